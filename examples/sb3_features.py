"""Palaestra's memory inside Stable-Baselines3: PPO remembers a cue.

    python examples/sb3_features.py                # a gated recurrent unit
    python examples/sb3_features.py attention      # a transformer

Takes about half a minute on one free core and needs nothing but `pip install palaestra`.
"""

import argparse
import time
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from palaestra.agents.sb3.features import extractor_kwargs
from palaestra.envs.wrappers.history import HistoryObservation

CUES, STEPS = 4, 8

OPTIONS: dict[str, dict[str, Any]] = {
    "gru": {"hidden_size": 32},
    "attention": {"width": 32, "heads": 2, "layers": 1, "context": STEPS},
}


class Recall(gymnasium.Env[np.ndarray, int]):
    """One of 4 cues is shown at some step before the last, noise at all others.

    A flag tells the cue from the noise; naming the cue at the last step pays 1.
    """

    observation_space = spaces.Box(-1, 1, (CUES + 2,))
    action_space = spaces.Discrete(CUES)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw a cue and its step."""
        super().reset(seed=seed)
        self.t = 0
        self.cue, self.shown_at = self.np_random.integers((CUES, STEPS - 1))
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Take a step; the last action is compared with the cue."""
        self.t += 1
        over = self.t == STEPS
        return self._observation(), float(over and action == self.cue), over, False, {}

    def _observation(self) -> np.ndarray:
        flag = self.t == self.shown_at
        shown = np.eye(CUES)[self.cue] if flag else self.np_random.uniform(-1, 1, CUES)
        return np.array([*shown, flag, self.t / STEPS], np.float32)


def make_env(history: bool) -> gymnasium.Env:
    return Monitor(HistoryObservation(Recall(), STEPS) if history else Recall())


def train(policy: str, history: bool, steps: int, policy_kwargs: dict[str, Any]) -> PPO:
    model = PPO(
        policy,
        DummyVecEnv([partial(make_env, history)] * 16),
        n_steps=32,
        batch_size=128,
        n_epochs=4,
        learning_rate=3e-3,
        gamma=1.0,
        seed=0,
        device="cpu",
        policy_kwargs=policy_kwargs,
    )
    return model.learn(steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("features", nargs="?", default="gru", choices=OPTIONS)
    parser.add_argument("--steps", type=int, default=20_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    ours = extractor_kwargs(arguments.features, OPTIONS[arguments.features]) | {"net_arch": []}
    print(f"mean return of 200 episodes after {arguments.steps} steps; chance is {1 / CUES:.2f}")
    for label, policy, history, policy_kwargs in (
        ("MlpPolicy, the last observation", "MlpPolicy", False, {}),
        (f"MultiInputPolicy, {STEPS} observations", "MultiInputPolicy", True, {}),
        (f"{arguments.features} features, {STEPS} observations", "MultiInputPolicy", True, ours),
    ):
        start = time.perf_counter()
        model = train(policy, history, arguments.steps, policy_kwargs)
        env = make_env(history)
        env.reset(seed=1)
        mean, _ = evaluate_policy(model, env, n_eval_episodes=200)
        print(f"  {label:<36} {mean:5.2f}   ({time.perf_counter() - start:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
