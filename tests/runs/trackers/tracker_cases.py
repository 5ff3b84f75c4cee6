"""Runs written by hand: configuration, lines of metrics, and what trackers have to hold."""

from collections.abc import Callable
from typing import Any

from palaestra.runs.config import RunConfig, resolve
from palaestra.runs.store.folder import RunFolder

CONFIG = {
    "experiment": "walk",
    "description": "A walk.",
    "seed": 3,
    "total_steps": 1000,
    "env": {"id": "CartPole-v1", "num_envs": 2},
    "agent": {"name": "ppo"},
    "policy": {"name": "mlp"},
    "threads": 1,
}

MakeRun = Callable[..., RunFolder]


def config(**changes: Any) -> RunConfig:
    return resolve({**CONFIG, **changes})


def line(agent_steps: int, attempt: int = 1) -> dict[str, Any]:
    """A line of metrics as training writes it."""
    return {
        "agent_steps": agent_steps,
        "frames": agent_steps,
        "updates": agent_steps // 10,
        "attempt": attempt,
        "t": agent_steps / 8,
        "rollout/return": agent_steps / 3,
        "train/loss": -1 / (1 + agent_steps),
    }


def curves(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """What a tracker has to hold of these lines."""
    names = ("rollout/return", "train/loss")
    return {name: [(row["agent_steps"], row[name]) for row in lines] for name in names}
