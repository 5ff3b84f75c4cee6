"""Optimisers by name, registered under the kind "optimizer"; each keeps a module in one vector."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from palaestra.errors import UserError
from palaestra.options import Options, validate
from palaestra.registry import registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from palaestra.agents.optimizers.base import Optimizer


def make(
    options: Mapping[str, Any],
    module: "nn.Module",
    reduce: "Callable[[Tensor], None] | None" = None,
) -> "Optimizer":
    """Return an optimiser of a module's parameters, built as `cls(config, module, reduce)`.

    Args:
      options: `name` and the options of that optimiser.
      module: those of its parameters that require a gradient are optimised.
      reduce: is called on all gradients as one vector, before they are clipped, to change them in
        place: the mean over several learners, say.

    Raises:
      UserError: unknown name or option, or a value that is not accepted.
    """
    result: Optimizer = registry.get("optimizer", options["name"])(_config(options), module, reduce)
    return result


def resolve(options: Any) -> dict[str, Any]:
    """Return the options of an optimiser with every default made explicit; "adam" without a name.

    Raises:
      UserError: unknown name or option, or a value that is not accepted.
    """
    if not isinstance(options, Mapping):
        raise UserError("a mapping with name and options is expected, as {name: adam, eps: 1e-5}")
    named = {"name": "adam", **options}
    return {"name": named["name"], **_config(named).model_dump(mode="json")}


def _config(options: Mapping[str, Any]) -> Options:
    own = {key: value for key, value in options.items() if key != "name"}
    result: Options = validate(registry.get("optimizer", options["name"]).Config, own)
    return result
