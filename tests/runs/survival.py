"""Runs in processes that can be killed, and the comparison of what they leave behind."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from palaestra.runs.config import RunConfig, load_config
from palaestra.runs.store.checkpoints import Checkpoints

QUICK = ["threads=1", "tensorboard=false", "evaluation=null"]

SMALL_PPO = [*QUICK, "env.num_envs=4", "agent.minibatch_size=16", "rollout.steps=8"]

EVALUATION = [
    "evaluation={suite: bandit, tasks: [bandit/k5-normal-1], episodes: 4, seeds: 2}",
    "evaluation.baselines=[ucb]",
]

SB3 = [*QUICK, "env.num_envs=2"]

REPLAY = [
    "agent.learning_starts=200",
    "agent.buffer_size=500",
    "agent.batch_size=16",
    "agent.train_freq=2",
    "agent.target_update_interval=64",
    "rollout.steps=16",
    "total_steps=1000",
]

CONFIGS: dict[str, tuple[str, list[str]]] = {
    "ppo-mlp": ("cartpole", [*SMALL_PPO, "total_steps=3200", "agent.num_epochs=2"]),
    "ppo-mlp-normalised": (
        "cartpole",
        [
            *SMALL_PPO,
            "env.wrappers=[normalise-observation, {name: frame-stack, frames: 2}]",
            "env.options={max_episode_steps: 50}",
            "evaluation={every: 640, episodes: 2, seeds: 2}",
            "checkpoint.every=320",
            "total_steps=1600",
            "agent.num_epochs=2",
        ],
    ),
    "ppo-gru": (
        "demo",
        [*SMALL_PPO, *EVALUATION, "total_steps=3200", "log_every=96", "policy.hidden_size=8"],
    ),
    "ppo-attention": (
        "demo",
        [
            *SMALL_PPO,
            "total_steps=1600",
            "policy.name=attention",
            "policy.width=8",
            "policy.heads=2",
        ],
    ),
    "ppo-mlp-masked": ("tictactoe", [*SMALL_PPO, "total_steps=3200"]),
    "ppo-gru-contextual": (
        "contextual-bandit",
        [*SMALL_PPO, "total_steps=1600", "policy.hidden_size=8"],
    ),
    "q-learning": (
        "tictactoe",
        [
            *QUICK,
            "env.num_envs=4",
            "rollout.steps=8",
            "agent.name=q-learning",
            "policy=null",
            "total_steps=3200",
        ],
    ),
    "sb3-ppo": (
        "sb3-cartpole",
        [*SB3, "agent.n_steps=16", "agent.batch_size=32", "agent.n_epochs=2", "total_steps=3200"],
    ),
    "sb3-a2c": ("sb3-cartpole", [*SB3, "agent.name=sb3/a2c", "total_steps=3200"]),
    "sb3-dqn": ("sb3-cartpole", [*SB3, "agent.name=sb3/dqn", *REPLAY]),
    "sb3-qrdqn": (
        "sb3-cartpole",
        [*SB3, "agent.name=sb3/qrdqn", "agent.n_quantiles=8", *REPLAY],
    ),
    "sb3-recurrent-ppo": (
        "sb3-cartpole",
        [
            *SB3,
            "agent.name=sb3/recurrent-ppo",
            "agent.n_steps=16",
            "agent.batch_size=32",
            "agent.n_epochs=2",
            "agent.lstm_hidden_size=8",
            "total_steps=1280",
        ],
    ),
    "sb3-recurrent-ppo-native": (
        "sb3-cartpole",
        [
            *SB3,
            "env.id=palaestra/GaussianBandit-v0",
            "env.options={K: 3, T: 10}",
            "agent.name=sb3/recurrent-ppo",
            "agent.n_steps=16",
            "agent.batch_size=32",
            "agent.n_epochs=2",
            "agent.lstm_hidden_size=8",
            "total_steps=1280",
        ],
    ),
}
"""A small run for every agent and for every kind of policy and environment: preset, overrides."""

SB3_CONFIGS = [name for name in CONFIGS if name.startswith("sb3")]
OWN_CONFIGS = [name for name in CONFIGS if name not in SB3_CONFIGS]

KILLS = 10
RAY_KILLS = int(os.environ.get("PALAESTRA_TEST_RAY_KILLS", "3"))

OPERATIONS = ("_write", "_write_arrays", "_link", "_sync", "replace", "rmtree")
"""What is done to the files of a checkpoint, at any of which a process can be made to die."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["palaestra.runs.training.train", "palaestra.agents.ppo", "sb3_contrib"]
)


def config_of(name: str, *overrides: str, **settings: Any) -> RunConfig:
    preset, own = CONFIGS[name]
    return load_config(preset, [*own, *overrides], **settings)


def start(
    config: RunConfig,
    run_id: str,
    root: Path,
    *,
    dies_at: int | None = None,
    operations: Sequence[str] = OPERATIONS,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Start or resume a run in a process of its own.

    Args:
      dies_at: kill the process at this operation on the files of a checkpoint, counted from 1.
      operations: which are counted.
      environment: variables to set in it.
    """
    death = dies_at and (dies_at, tuple(operations))
    arguments = (config.model_dump(mode="json"), run_id, str(root), death, dict(environment))
    process = _context.Process(target=_train, args=arguments)
    process.start()
    return process


def _train(
    config: dict[str, Any],
    run_id: str,
    root: str,
    death: tuple[int, tuple[str, ...]] | None,
    environment: dict[str, str],
) -> None:
    os.environ.update(environment)
    from palaestra.runs.cli.verbs import train_and_report
    from palaestra.runs.config import resolve

    if death is not None:
        _die_at(*death)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        train_and_report(resolve(config), run_id, True, root=Path(root), resume="auto")


def _die_at(number: int, operations: Sequence[str]) -> None:
    """Make the process kill itself at the given operation on a checkpoint's files."""
    from palaestra.runs.store import checkpoints, format

    count = 0

    def dying(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return call

    places = {"replace": Path, "rmtree": checkpoints.shutil}
    for name in operations:
        place = places.get(name, format)
        function = dying(getattr(place, name))
        for where in {place, checkpoints} if hasattr(checkpoints, name) else {place}:
            setattr(where, name, function)


def finish(process: Any) -> None:
    """Wait for a process that is expected to succeed."""
    process.join(timeout=240)
    assert process.exitcode == 0, process.exitcode


def straight(config: RunConfig, run_id: str, root: Path, **options: Any) -> float:
    """Run without interruption and return the seconds that it took."""
    begin = time.monotonic()
    finish(start(config, run_id, root, **options))
    return time.monotonic() - begin


def killed(
    config: RunConfig,
    run_id: str,
    root: Path,
    lives: Sequence[float],
    **options: Any,
) -> int:
    """Kill the run after each of these seconds, resume it, and return the number of kills."""
    kills = 0
    for seconds in lives:
        process = start(config, run_id, root, **options)
        process.join(timeout=seconds)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
    finish(start(config, run_id, root, **options))
    return kills


def kill_at_random(config: RunConfig, kills: int, root: Path, **options: Any) -> int:
    """Kill runs at random moments until there were so many kills, and return their number.

    Each run is resumed until it ends, and equals the straight run.
    """
    seconds = straight(config, "straight", root, **options)
    rng = np.random.default_rng(0)
    left, runs = kills, 0
    while left > 0:
        runs += 1
        assert runs < 40, "the runs end before they are killed"
        # Several kills in the course of one run, the first of them anywhere.
        lives = rng.uniform(0, [seconds, seconds / 2, seconds / 2])[:left]
        struck = killed(config, f"killed-{runs}", root, lives, **options)
        seconds = seconds if struck else seconds / 2  # the machine has become faster
        left -= struck
        assert_same_run(root / "straight", root / f"killed-{runs}", ray=bool(options))
    return kills - left


def untimed(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what depends on time."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    timed = ("t", "attempt")
    return [
        {k: v for k, v in line.items() if k not in timed and not k.startswith("time/")}
        for line in lines
    ]


def assert_same_run(one: Path, other: Path, *, ray: bool = False) -> None:
    """Everything that two runs leave is equal bit for bit, but for times.

    Ray itself draws from Python's global generator, of which nothing here makes use.
    """
    assert untimed(one) == untimed(other)
    assert (one / "episodes.jsonl").read_bytes() == (other / "episodes.jsonl").read_bytes()
    evaluations = [evaluations_of(path) for path in (one, other)]
    assert evaluations[0] == evaluations[1]
    states = [Checkpoints(path / "checkpoints").read() for path in (one, other)]
    for state in states:
        del state["run"]["logs"]  # holds the lengths of lines with times in them
        if ray:
            del state["random"]["python"]
            for worker in state["loop"]["rollouts"].values():
                del worker["random"]["python"]
    assert_same_tree(states[0], states[1])


def evaluations_of(path: Path) -> dict[str, bytes]:
    """Return the content of every file of the run's evaluations."""
    files = (file for file in (path / "eval").rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def assert_same_tree(one: Any, other: Any, path: str = "") -> None:
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key, value in one.items():
            assert_same_tree(value, other[key], f"{path}/{key}")
    elif isinstance(one, tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same_tree(a, b, f"{path}/{i}")
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, path
        np.testing.assert_array_equal(one, other, err_msg=path)
    else:
        assert one == other or (one != one and other != other), (path, one, other)
