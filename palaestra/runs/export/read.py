"""Read an export back: an agent that acts, from a folder that may have come from anywhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from palaestra.envs.make import named_modules
from palaestra.errors import UserError
from palaestra.runs.config import parse_yaml, resolve
from palaestra.runs.evaluation.actors import RunActors
from palaestra.runs.export.layout import CONFIG, WEIGHTS, check_files, is_export
from palaestra.runs.export.plugins import import_allowed
from palaestra.runs.export.weights import check_weights, from_safetensors
from palaestra.runs.rollouts.build import build_agent, environment_spaces
from palaestra.runs.rollouts.statistics import unpack

__all__ = ["ExportedActors", "is_export"]


class ExportedActors(RunActors):
    """Makes actors of an export.

    Every file is compared with the manifest's checksums before anything is used. Nothing is
    unpickled; no code of the folder or of the working directory is imported.

    Args:
      folder: the export.
      allow_plugins: installed modules that the configuration's `plugins` may import; without it
        an export that names any is refused. Installed entry points need no permission.

    Attributes:
      manifest: what was exported.
      agent: what the trained agent is called in tables.
      config: of the run; its `plugins` are empty, so that nobody imports them in another way.
      spaces: observation and action space of training.
      weights: what the actors act with.
      step: agent steps that they were trained for.

    Raises:
      UserError: a file, name, value or weight that is not accepted, by name.
    """

    def __init__(self, folder: Path, allow_plugins: Sequence[str] = ()) -> None:
        self.manifest, contents = check_files(folder)
        self.agent, self.step = self.manifest.agent, self.manifest.agent_steps
        raw = _configuration(contents[CONFIG], folder / CONFIG)
        plugins = raw.pop("plugins", None) or []
        if not isinstance(plugins, list) or not all(isinstance(p, str) for p in plugins):
            raise UserError(
                f"{folder / CONFIG}: plugins: {plugins!r}: a list of modules is expected."
            )
        import_allowed(plugins, allow_plugins, folder / CONFIG)
        self.config = resolve(raw)
        named = named_modules(self.config.env.id, self.config.env.wrappers)
        import_allowed(named, allow_plugins, folder / CONFIG)
        self.spaces = environment_spaces(self.config)
        packed = from_safetensors(contents[WEIGHTS], folder / WEIGHTS)
        self.weights, self.statistics = unpack(packed)
        check_weights(self.weights, build_agent(self.config, *self.spaces), folder / WEIGHTS)


def _configuration(content: bytes, source: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file of plain data.

    Raises:
      UserError: not YAML, tags that ask for objects, aliases, or something else than a mapping.
    """
    try:
        text = content.decode()
        # A few aliases of aliases stand for gigabytes; an export has none.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise UserError(f"{source}: YAML aliases are not accepted.")
        raw = parse_yaml(text, str(source))
    except (UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{source}: not plain YAML: {error}") from None
    if not isinstance(raw, Mapping):
        raise UserError(f"{source}: a mapping of keys is expected, not {type(raw).__name__}.")
    return dict(raw)
