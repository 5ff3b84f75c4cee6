"""Agent steps per second of whole PPO training: `rat` beside `mlp`, and beside sb3-contrib.

All sides have one width, and the same environment, rollouts, epochs and minibatches; each collects
and learns a round in turn, in CPU time of this process. Two comparisons:

of mlp: two hidden layers of the width for policy and value each, which is the usual feed-forward
network of PPO, and `stack`, the very blocks of `rat` without the memory in them. Names that end in
-1 have perceptrons as wide as the block, not three times as wide.

of sb3-contrib: RecurrentPPO with one LSTM for policy and value, see ppo_vs_sb3.py.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernel_timing import surroundings
from torch import Tensor

from palaestra.experience.state import State
from palaestra.policies.base import Backbone
from palaestra.policies.mlp import Stateless
from palaestra.policies.stack import StackPolicy
from palaestra.registry import register
from palaestra.runs.config import resolve
from palaestra.runs.training.train import build_loop

WIDTH = 64
SETTINGS: dict[str, dict[str, Any]] = {
    "recall": dict(
        env="palaestra/Recall-v0", options={"K": 4, "gap": 64}, num_envs=64, steps=66,
        minibatch_size=1056, num_epochs=4,
    ),
    # the default setting of ppo_vs_sb3.py with the rollouts of its recurrent comparison
    "cartpole": dict(
        env="CartPole-v1", options={}, num_envs=8, steps=128, minibatch_size=256, num_epochs=10,
    ),
}  # fmt: skip
POLICIES: dict[str, dict[str, Any]] = {
    "mlp": {"name": "mlp", "hidden_sizes": [WIDTH, WIDTH]},
    "stack": {"name": "memory-speed-stack", "width": WIDTH, "layers": 1},
    "stack-1": {"name": "memory-speed-stack", "width": WIDTH, "layers": 1, "expansion": 1},
    "rat": {"name": "rat", "width": WIDTH, "layers": 1},
    "rat-1": {"name": "rat", "width": WIDTH, "layers": 1, "expansion": 1},
    "gru": {"name": "gru", "hidden_size": WIDTH},
    "lstm": {"name": "lstm", "hidden_size": WIDTH},
}
PEER = "sb3-contrib"
BARS = (("rat", "mlp", 0.65), ("rat", PEER, 4.0))

Round = Callable[[], int]
"""Collects and learns once and returns the agent steps."""


class NoMemory(Backbone):
    """Passes its input on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_features = self.out_features = width

    def initial_state(self, batch: int) -> Stateless:
        """Return a state without content."""
        return Stateless()

    def forward(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Return the input."""
        return x, state

    def step(self, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
        """Return the input."""
        return x, state


@register("policy", "memory-speed-stack")
class NoMemoryPolicy(StackPolicy):
    """Blocks without memory."""

    def make_mixers(self) -> list[Backbone]:
        """Return what passes its input on."""
        return [NoMemory(self.config.width) for _ in range(self.config.layers)]


def ours(setting: dict[str, Any], policy: dict[str, Any]) -> Round:
    """Return Palaestra's training, ready to go."""
    config = resolve(
        {
            "total_steps": 10**9,
            "threads": 1,
            "env": {
                "id": setting["env"],
                "num_envs": setting["num_envs"],
                "options": setting["options"],
            },
            "agent": {
                "name": "ppo",
                "num_epochs": setting["num_epochs"],
                "minibatch_size": setting["minibatch_size"],
            },
            "policy": policy,
            "rollout": {"steps": setting["steps"]},
        }
    )
    loop = build_loop(config)
    return lambda: loop.advance().agent_steps


def theirs(setting: dict[str, Any]) -> Round:
    """Return the training of sb3-contrib, ready to go."""
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.torch_layers import FlattenExtractor

    class Flatten(FlattenExtractor):
        """Counts its features as an int, which an LSTM asks for, also of a MultiDiscrete."""

        def __init__(self, observation_space: Any) -> None:
            super().__init__(observation_space)
            self._features_dim = int(self._features_dim)

    env = make_vec_env(setting["env"], setting["num_envs"], seed=0, env_kwargs=setting["options"])
    model: Any = RecurrentPPO(
        "MlpLstmPolicy",
        env,
        n_steps=setting["steps"],
        batch_size=setting["minibatch_size"],
        n_epochs=setting["num_epochs"],
        seed=0,
        device="cpu",
        policy_kwargs=dict(
            lstm_hidden_size=WIDTH,
            net_arch=[],
            enable_critic_lstm=False,
            shared_lstm=True,
            features_extractor_class=Flatten,
        ),
    )

    def advance() -> int:
        before = model.num_timesteps
        model.learn(setting["num_envs"] * setting["steps"], reset_num_timesteps=before == 0)
        return model.num_timesteps - before

    return advance


def measure(setting: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Return the agent steps per second of every side in each round."""
    sides = {name: ours(setting, policy) for name, policy in POLICIES.items()}
    sides[PEER] = theirs(setting)
    for advance in sides.values():
        advance()  # fills caches
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, advance in sides.items():
            begin = time.process_time()
            steps = advance()
            found[name].append(steps / (time.process_time() - begin))
    return found


def run_speed(rounds: int, path: Path) -> None:
    """Measure all settings, print the table and write the figures."""
    report: dict[str, Any] = {"width": WIDTH, "rounds": rounds, **surroundings("cpu")}
    lines = []
    for name, setting in SETTINGS.items():
        rates = measure(setting, rounds)
        report[name] = {"setting": setting, "steps_per_s": rates}
        lines += [f"{name}: {setting}", *table(rates), ""]
    print("\n".join(lines))
    path.write_text(json.dumps(report, indent=1) + "\n")
    path.with_suffix(".txt").write_text("\n".join(lines))


def table(rates: dict[str, list[float]]) -> list[str]:
    """Return the median rate of every side and the median ratio of each round to two of them."""
    lines = [f"  {'':<12} {'steps/s':>9} {'of mlp':>8} {'of ' + PEER:>16}"]
    for side, found in rates.items():
        mlp, peer = ratio(rates, side, "mlp"), ratio(rates, side, PEER)
        median = statistics.median(found)
        lines.append(f"  {side:<12} {median:9,.0f} {mlp:7.2f}x {peer:15.2f}x")
    for side, base, bar in BARS:
        found_ratio = ratio(rates, side, base)
        verdict = "reached" if found_ratio >= bar else "missed"
        lines.append(f"  {side} at {bar}x of {base} or more: {found_ratio:.2f}x, {verdict}")
    return lines


def ratio(rates: dict[str, list[float]], side: str, base: str) -> float:
    """Return the median of the ratios of each round."""
    return statistics.median(x / y for x, y in zip(rates[side], rates[base], strict=True))
