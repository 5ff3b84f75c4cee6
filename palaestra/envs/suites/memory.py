"""The suite `memory`, with the best play without and with memory in closed form."""

from dataclasses import replace
from typing import Any

from palaestra.envs.suites.bandit import gaussian
from palaestra.envs.suites.base import Suite, Task


def _memory(
    name: str, env: str, env_kwargs: dict[str, Any], low: float, high: float, tags: tuple[str, ...]
) -> Task:
    return Task(
        id=f"memory/{name}",
        env_id=f"palaestra/{env}-v0",
        env_kwargs=env_kwargs,
        low=low,
        high=high,
        source="closed form: the best play without memory, the best play with memory",
        tags=tags,
        reference={"return/memoryless": low, "return/best": high},
    )


def _recall(gap: int, *tags: str) -> Task:
    K = 4
    kwargs = {"K": K, "gap": gap, "distractors": True}
    return _memory(f"recall-{gap}", "Recall", kwargs, 1 / K, 1.0, ("recall", *tags))


def _tmaze(length: int) -> Task:
    # Without memory to the junction and either turn: 4 or -0.1.
    return _memory(f"tmaze-{length}", "TMaze", {"length": length}, 1.95, 4.0, ("tmaze",))


def _repeat(k: int, T: int) -> Task:
    K = 4
    kwargs = {"k": k, "K": K, "T": T}
    return _memory(f"repeat-{k}", "RepeatPrevious", kwargs, 2 / K - 1, 1.0, ("repeat",))


def _count(K: int, copies: int) -> Task:
    # The present card is a uniform one of the pack. Where it is the symbol asked for, the count is
    # uniform on 1 .. copies, and elsewhere on 0 .. copies.
    right = (1 / copies + (K - 1) / (copies + 1)) / K
    kwargs = {"K": K, "copies": copies}
    return _memory(f"count-{K}", "CountRecall", kwargs, 2 * right - 1, 1.0, ("count",))


def _meta_bandit(K: int) -> Task:
    bandit = gaussian(K, "normal", 1.0, 1.0)
    return replace(bandit, id=f"memory/bandit-{K}", tags=("bandit", f"k{K}"))


MEMORY = Suite(
    name="memory",
    version=1,
    tasks=(
        _recall(16),
        _recall(64),
        _recall(256, "extra"),
        _tmaze(10),
        _tmaze(50),
        _repeat(4, 52),
        _repeat(32, 104),
        _repeat(64, 156),
        _count(2, 26),
        _count(4, 26),
        _count(13, 16),
        _meta_bandit(5),
        _meta_bandit(20),
    ),
    protocol=(
        "one new instance for each episode, the same for every agent; score 0 is the best play "
        "without memory, on bandits uniform play, and 1 the best play with memory, on bandits "
        "always the best arm"
    ),
    tags=("memory",),
    description="Recall after a wait, T-mazes, repeating, counting, and bandits from raw history.",
)
