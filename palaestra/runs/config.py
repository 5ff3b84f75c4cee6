"""RunConfig: one typed, frozen description of a run, from a preset or file plus overrides."""

import hashlib
import importlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator

from palaestra.envs.suites.base import Suite
from palaestra.envs.suites.file import TRAINING, suite_from_plain, suite_of_environment
from palaestra.errors import UserError, did_you_mean
from palaestra.options import Options, validate
from palaestra.registry import registry


class EnvConfig(Options):
    """The training environment."""

    id: str = Field(description="environment id, of Palaestra, a plug-in or Gymnasium")
    num_envs: int = Field(8, ge=1, description="parallel environments, over all workers")
    wrappers: tuple[str | dict[str, Any], ...] = Field(
        (), description="wrappers by name, or {name: ..., option: ...}, innermost first"
    )
    options: dict[str, Any] = Field({}, description="keyword arguments of the environment")
    on_bad_transition: Literal["stop", "drop_episode"] = Field(
        "stop",
        description="where a reward or an observation is not finite: end the run with an error, or "
        "leave the episode out from there on",
    )
    reset_at_checkpoint: bool = Field(
        False,
        description="reset environments at every checkpoint, for those that cannot be restored",
    )


class RolloutConfig(Options):
    """How experience is collected."""

    steps: int = Field(128, ge=1, description="length of a fragment in agent steps")
    workers: int = Field(0, ge=0, description="rollout workers; 0 collects in this process")
    backend: Literal["ray", "local"] = Field(
        "ray", description="where workers live: Ray actors, or one after another in this process"
    )
    address: str | None = Field(
        None, description="Ray cluster to join (host:port, ray://host:port or auto)"
    )
    threads_per_worker: int = Field(1, ge=1, description="torch threads of each worker")
    max_restarts: int = Field(3, ge=0, description="restarts of crashed or silent workers")
    timeout_s: float = Field(
        300, gt=0, description="seconds without a fragment after which a worker counts as hung"
    )


class RecordConfig(Options):
    """What an evaluation keeps of its episodes beside actions, rewards and infos."""

    episodes: int = Field(
        0, ge=0, description="episodes of each task whose observations are kept, as arrays"
    )


class EvaluationConfig(Options):
    """The evaluation at the end of a run, and on the way there."""

    every: int | None = Field(
        None,
        ge=1,
        description="agent steps between two evaluations during training; null: at the end only",
    )
    record: RecordConfig = RecordConfig()
    suite: str | None = Field(
        None,
        description="suite by name, or a file of one's own (.yaml); null: the training environment",
    )
    tasks: tuple[str, ...] = Field((), description="task ids of the suite; empty means all")
    episodes: int | None = Field(
        None, ge=1, description="episodes of each task and seed; null takes the suite's number"
    )
    seeds: int = Field(5, ge=1, description="evaluation seeds")
    mode: Literal["sample", "greedy"] = Field("greedy", description="how the agent acts")
    baselines: tuple[str, ...] = Field((), description="baselines evaluated beside it")

    @property
    def suite_name(self) -> str:
        """What the suite is called in folders and tables."""
        return suite_name(self.suite)


def suite_name(suite: str | None) -> str:
    """Return what a suite is called: by its name, its file, or None for a run's environment."""
    if suite is None:
        return TRAINING
    path = Path(suite)
    return path.stem if path.suffix in (".yaml", ".yml") else suite


class CheckpointConfig(Options):
    """When checkpoints are written and which are kept."""

    every: int | None = Field(
        None, ge=1, description="agent steps between two checkpoints; null: a tenth of the run"
    )
    minutes: float | None = Field(
        5, gt=0, description="at most this long between two; not where it resets environments"
    )
    keep_last: int = Field(2, ge=1, description="how many of the newest are kept")
    keep_every: int | None = Field(None, ge=1, description="every k-th is kept as well")
    best: str | None = Field(
        None,
        description="a metric of metrics.jsonl; the checkpoint where it was best is kept; null: "
        "evaluation/score (without a score evaluation/return) where there is evaluation.every",
    )
    best_is: Literal["max", "min"] = Field("max", description="which values of it are better")


class StopConfig(Options):
    """Rules that end a run before `total_steps`; the run counts as a success."""

    metric: str = Field(
        "rollout/return", description="a metric of metrics.jsonl, as evaluation/score"
    )
    better: Literal["max", "min"] = Field("max", description="which values of it are better")
    target: float | None = Field(None, description="end where the metric reaches this value")
    patience: int | None = Field(
        None, ge=1, description="end after so many agent steps without a better value"
    )
    hours: float | None = Field(None, gt=0, description="end after this wall time, over attempts")


class RunConfig(Options):
    """Everything that decides a run; the file in the run folder has no implicit defaults."""

    experiment: str = Field("run", description="name of the experiment, first part of the run id")
    description: str = Field("", description="one sentence on what this run is for")
    seed: int = Field(0, ge=0, description="the seed from which every stream is derived")
    total_steps: int = Field(ge=1, description="agent steps to train for")
    env: EnvConfig
    agent: dict[str, Any] = Field(description="name and options of the agent")
    policy: dict[str, Any] | None = Field(None, description="name and options of the policy")
    rollout: RolloutConfig = RolloutConfig()
    evaluation: EvaluationConfig | None = Field(None, description="null skips it")
    device: str = Field(
        "auto",
        description="where the learner's networks live: auto (a GPU where there is one), cpu, cuda "
        "or cuda:N",
    )
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, description="torch threads to learn with"
    )
    checkpoint: CheckpointConfig = CheckpointConfig()
    stop: StopConfig | None = Field(None, description="rules that end the run early")
    log_every: int | None = Field(
        None,
        ge=1,
        description="agent steps between two lines of metrics; null: a thousandth of the "
        "run, 10,000 at most",
    )
    tensorboard: bool = Field(True, description="write TensorBoard events beside the metrics")
    trackers: tuple[Literal["mlflow", "wandb"], ...] = Field(
        (), description="further trackers, which show the run in another tool"
    )
    plugins: tuple[str, ...] = Field((), description="modules to import before names are resolved")

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
            raise ValueError("auto, cpu, cuda and cuda:N are accepted")
        return value

    @field_validator("agent", "policy")
    @classmethod
    def _is_named(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and not isinstance(value.get("name"), str):
            raise ValueError("a mapping with the key 'name' is expected")
        return value

    @property
    def all_trackers(self) -> tuple[str, ...]:
        """The trackers that the run writes to, TensorBoard included."""
        return (*(["tensorboard"] if self.tensorboard else []), *self.trackers)


def load_config(source: str, overrides: Sequence[str] = (), **settings: Any) -> RunConfig:
    """Return the resolved configuration of a preset or file.

    Args:
      source: a preset's name or the path of a YAML file.
      overrides: "dotted.key=value" strings; values are read as YAML.
      settings: further values by dotted key (with `__` for the dot), applied last unless None.

    Raises:
      UserError: unknown preset, file, key or name, or a value that is not accepted.
    """
    raw = _read(source)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise UserError(f"override {override!r}: expected the form key=value, as agent.gamma=1")
        _assign(raw, key.strip(), parse_yaml(value, f"override {override!r}"), override)
    for key, value in settings.items():
        if value is not None:
            _assign(raw, key.replace("__", "."), value, key)
    return resolve(raw)


def resolve(raw: Mapping[str, Any]) -> RunConfig:
    """Return a checked configuration with every default made explicit.

    Raises:
      UserError: one line for each wrong field.
    """
    config = validate(RunConfig, _migrated(raw))
    import_plugins(config.plugins)
    agent = registry.get("agent", config.agent["name"])
    update: dict[str, Any] = {"agent": _resolved("agent", agent, config.agent)}
    if agent.needs_policy:
        if config.policy is None:
            raise UserError(f"policy: agent {config.agent['name']!r} needs one, as name: gru.")
        policy = registry.get("policy", config.policy["name"])
        update["policy"] = _resolved("policy", policy, config.policy)
    elif config.policy is not None:
        raise UserError(f"policy: agent {config.agent['name']!r} takes none; remove the key.")
    if config.evaluation is not None:
        find_suite(config.evaluation.suite, config.env).select(config.evaluation.tasks)
        for name in config.evaluation.baselines:
            registry.entry("agent", name)
    workers = config.rollout.workers
    if workers and config.env.num_envs % workers:
        raise UserError(
            f"env.num_envs: {config.env.num_envs} environments cannot be shared equally "
            f"by {workers} workers; choose a multiple of {workers}."
        )
    return config.model_copy(update=update)


def find_suite(name: str | None, env: EnvConfig | None = None) -> Suite:
    """Return a suite by name, from a .yaml file, or (None) the environment of training alone.

    Raises:
      UserError: there is none of this name, or the file is not one of a suite.
    """
    if name is None:
        if env is None:
            known = registry.entries("suite")
            raise UserError(f"--suite is needed; {did_you_mean('', known)}")
        return suite_of_environment(env.id, env.options, env.wrappers)
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        result: Suite = registry.get("suite", name)
        return result
    if not path.is_file():
        raise UserError(f"suite file {name!r} does not exist.")
    raw = read_yaml(path)
    if not isinstance(raw, Mapping):
        raise UserError(f"{name}: a mapping of keys is expected, not {type(raw).__name__}.")
    return suite_from_plain(raw, path)


def _migrated(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration of an earlier version in today's keys."""
    if "log_interval" not in raw:
        return raw
    raw = dict(raw)
    updates, rollout, env = raw.pop("log_interval"), raw.get("rollout") or {}, raw.get("env") or {}
    if updates != 1:  # one line for each update is what a small `log_every` gives
        steps = rollout.get("steps", 128) * env.get("num_envs", 8)
        raw.setdefault("log_every", updates * steps)
    else:
        raw.setdefault("log_every", 1)
    return raw


def _resolved(kind: str, thing: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in given.items() if key != "name"}
    checked = validate(thing.Config, options, kind)
    return {"name": given["name"], **checked.model_dump(mode="json")}


def import_plugins(modules: Sequence[str]) -> None:
    """Import modules that register things by decorator, found from the working directory too.

    Raises:
      UserError: a module is missing or fails at import.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"plugins: module {module!r} fails at import: {type(error).__name__}: {error}"
            ) from error


def dump_yaml(config: RunConfig) -> str:
    """Return the configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_hash(config: RunConfig) -> str:
    """Return the first 8 hex digits of the SHA-256 of what decides the run's results.

    Where a run is carried out and what is kept of it (cluster address, restarts, checkpoints,
    trackers) is not part of it.
    """
    return hashlib.sha256(json.dumps(_decisive(config), sort_keys=True).encode()).hexdigest()[:8]


def config_difference(old: RunConfig, new: RunConfig) -> list[str]:
    """Return one line, as "agent.gamma: 0.99 -> 0.98", for each difference that decides results."""
    before, after = (flatten(_decisive(config)) for config in (old, new))
    return [
        f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, ...) != after.get(key, ...)
    ]


def _decisive(config: RunConfig) -> dict[str, Any]:
    data = config.model_dump(mode="json")
    checkpoint = data.pop("checkpoint")
    if config.env.reset_at_checkpoint:
        data["checkpoint"] = {"every": checkpoint["every"]}
    for key in ("description", "tensorboard", "trackers", "log_every", "device"):
        del data[key]
    if data["stop"] is not None:
        del data["stop"]["hours"]
    for key in ("address", "max_restarts", "timeout_s"):
        del data["rollout"][key]
    return data


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one: {"env": {"id": 1}} becomes {"env.id": 1}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def default_run_id(config: RunConfig) -> str:
    """Return the run id that follows from the configuration alone."""
    env = config.env.id.rpartition("/")[2].lower()
    agent = agent_label(config.agent, config.policy)
    name = f"{config.experiment}-{env}-{agent}-s{config.seed}-{config_hash(config)}"
    return name.replace("/", "-")


def agent_label(agent: Mapping[str, Any], policy: Mapping[str, Any] | None) -> str:
    """Return what a trained agent is called in tables, from its configuration: name and policy.

    A run's manifest keeps it; whoever has a run reads it there.
    """
    names = [agent["name"], *([policy["name"]] if policy else [])]
    return "-".join(names).replace("/", "-")


def _read(source: str) -> dict[str, Any]:
    path = Path(source)
    presets = registry.entries("preset")
    if source in presets:
        raw = registry.get("preset", source)
    elif path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"configuration file {source!r} does not exist.")
        raw = read_yaml(path)
    else:
        raise UserError(
            f"unknown preset {source!r}: {did_you_mean(source, presets)} "
            "A path of a configuration ends in .yaml."
        )
    if not isinstance(raw, Mapping):
        raise UserError(f"{source}: a mapping of keys is expected, not {type(raw).__name__}.")
    result: dict[str, Any] = json.loads(json.dumps(raw))  # a copy: presets are shared
    return result


def _assign(raw: dict[str, Any], dotted: str, value: Any, given: str) -> None:
    *parents, leaf = dotted.split(".")
    place = raw
    for parent in parents:
        inner = place.setdefault(parent, {})
        if inner is None:
            inner = place[parent] = {}
        if not isinstance(inner, dict):
            raise UserError(f"{given}: {parent!r} is a value, not a group of keys.")
        place = inner
    if leaf == "name" and parents in (["agent"], ["policy"]) and place.get("name") != value:
        place.clear()  # options of the former choice do not carry over to another one
    place[leaf] = value


class _Loader(yaml.SafeLoader):
    """Safe YAML whose floats follow YAML 1.2: 3e-4 is a number, not a string.

    What JSON does not have (dates, sets, binary) is no value of a configuration, and a key that
    is given twice is a mistake.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node whose keys are different strings."""
        for i, (key, _) in enumerate(node.value):
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a key is not a word")
            if any(key.value == other.value for other, _ in node.value[:i]):
                raise yaml.YAMLError(
                    f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice"
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)

_LONGEST = 1_000_000
"""Characters of a YAML text."""

_DEEPEST = 50
"""Groups within groups."""

_LARGEST = 100_000
"""Values, after every alias has been replaced by what it stands for."""


def read_yaml(path: Path) -> Any:
    """Return the value of a YAML file; see `parse_yaml`.

    Raises:
      UserError: not a text file, or not plain YAML.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a text file in UTF-8: {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML text: mappings, lists, texts, numbers, true, false and null.

    Raises:
      UserError: not YAML, YAML that asks for objects, a key given twice, or a text that is too
        long, too deep, or too large once its aliases are replaced.
    """
    try:
        _check_size(text, source)
        value = yaml.load(text, Loader=_Loader)
        json.dumps(value)
        return value
    except (yaml.YAMLError, TypeError) as error:
        raise UserError(f"{source}: not plain YAML: {error}") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source}: a value that cannot be read: {error}") from None


def _check_size(text: str, source: str) -> None:
    """Refuse what would take long to build, before anything is built: aliases multiply."""
    if len(text) > _LONGEST:
        raise UserError(f"{source}: longer than {_LONGEST:,} characters, no configuration is.")
    sizes: dict[str, int] = {}  # values below an anchor
    open_groups: list[tuple[str | None, int]] = []  # anchor, and values before it
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise UserError(
                    f"{source}: alias *{event.anchor}: the anchor of a whole value before it is "
                    "expected."
                )
            count += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_groups.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_groups.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(open_groups) > _DEEPEST:
            raise UserError(f"{source}: more than {_DEEPEST} groups within each other.")
        if count > _LARGEST:
            raise UserError(
                f"{source}: more than {_LARGEST:,} values, aliases included; "
                "a configuration without so many is expected."
            )
