"""Normalised observations and rewards: our wrappers against VecNormalize, both under PPO.

    python benchmarks/normalise_vs_sb3.py
    python benchmarks/normalise_vs_sb3.py --seeds 3 --steps 20000

Pendulum-v1, with and without normalisation of observations and rewards, Stable-Baselines3's PPO
beside ours with the same hyper-parameters: those of rl-baselines3-zoo (hyperparams/ppo.yml) without
state-dependent exploration, which ours does not have. One torch thread. `training` is the mean raw
return of the last fifth of the training episodes, `greedy` that of 50 episodes of fresh
environments with the statistics frozen, the same seeds on both sides. Intervals are 95 % bootstrap
intervals over training seeds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from palaestra.envs import make_vec
from palaestra.envs.state import load_statistics
from palaestra.metrics.statistics import bootstrap_interval, mean
from palaestra.runs.config import resolve
from palaestra.runs.evaluation.play import play
from palaestra.runs.rollouts.build import build_agent, environment_spaces
from palaestra.runs.training import build_loop

RESULTS = Path(__file__).parent / "results"

ENV, NUM_ENVS, N_STEPS = "Pendulum-v1", 4, 1024
GAMMA, LAMBDA, RATE, EPOCHS, BATCH = 0.9, 0.95, 1e-3, 10, 64
EPISODES = 50
WRAPPERS = ["normalise-observation", "normalise-reward"]


def tail(returns: list[float]) -> float:
    return float(np.mean(returns[-len(returns) // 5 :]))


def ours(seed: int, steps: int, normalised: bool) -> dict[str, float]:
    """Train with Palaestra."""
    config = resolve(
        {
            "seed": seed,
            "total_steps": steps,
            "threads": 1,
            "device": "cpu",
            "env": {"id": ENV, "num_envs": NUM_ENVS, "wrappers": WRAPPERS if normalised else []},
            "agent": {
                "name": "ppo",
                "gamma": GAMMA,
                "gae_lambda": LAMBDA,
                "learning_rate": RATE,
                "num_epochs": EPOCHS,
                "minibatch_size": BATCH,
            },
            "policy": {"name": "mlp"},
            "rollout": {"steps": N_STEPS},
        }
    )
    loop, returns, done = build_loop(config), [], 0
    while done < steps:
        iteration = loop.advance()
        done += iteration.agent_steps
        returns += iteration.episodes.returns.tolist()
    env = make_vec(ENV, EPISODES, config.env.wrappers)
    if normalised:
        load_statistics(env, loop.wrapper_statistics())
    actor = build_agent(config, *environment_spaces(config)).make_actor()
    actor.load_weights(loop.weights())
    seeds = [10_000 + i for i in range(EPISODES)]
    episodes = play(env, actor, seeds, np.random.default_rng(0), "greedy")
    loop.close()
    return {"training": tail(returns), "greedy": float(episodes.total(episodes.reward).mean())}


def theirs(seed: int, steps: int, normalised: bool) -> dict[str, float]:
    """Train with Stable-Baselines3."""
    envs: Any = make_vec_env(ENV, n_envs=NUM_ENVS, seed=seed)
    if normalised:
        envs = VecNormalize(envs, gamma=GAMMA)
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=N_STEPS,
        batch_size=BATCH,
        n_epochs=EPOCHS,
        gamma=GAMMA,
        gae_lambda=LAMBDA,
        learning_rate=RATE,
        seed=seed,
        device="cpu",
    )
    returns: list[float] = []

    def collect(scope: dict[str, Any], _: dict[str, Any]) -> bool:
        returns.extend(i["episode"]["r"] for i in scope["infos"] if "episode" in i)
        return True

    model.learn(steps, callback=collect)
    env = make_vec(ENV, EPISODES)
    observation, _ = env.reset(seed=[10_000 + i for i in range(EPISODES)])
    total, done = np.zeros(EPISODES), False
    while not done:  # every episode of Pendulum has 200 steps
        seen = envs.normalize_obs(observation) if normalised else observation
        action, _ = model.predict(seen, deterministic=True)
        observation, reward, _, truncated, _ = env.step(action)
        total += reward
        done = bool(truncated.all())
    return {"training": tail(returns), "greedy": float(total.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=102_400, help="25 updates of 4,096")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [f"{ENV}, {given.steps:,} steps, {given.seeds} seeds"]
    raw: list[dict[str, Any]] = []
    for seed in range(given.seeds):
        for normalised in (False, True):
            for side in (ours, theirs):
                start = time.perf_counter()
                found = side(seed, given.steps, normalised)
                row = {"side": side.__name__, "normalised": normalised, "seed": seed, **found}
                raw.append(row | {"seconds": round(time.perf_counter() - start, 1)})
                print(json.dumps(raw[-1]), flush=True)
                (RESULTS / "normalise_vs_sb3.jsonl").write_text(
                    "".join(f"{json.dumps(row)}\n" for row in raw)
                )
    for normalised in (False, True):
        for kind in ("training", "greedy"):
            parts = [f"{'normalised' if normalised else 'plain':<11}{kind:<9}"]
            for side in ("ours", "theirs"):
                chosen = [r for r in raw if (r["side"], r["normalised"]) == (side, normalised)]
                values = np.array([[row[kind]] for row in chosen])
                low, high, *_ = bootstrap_interval(values, np.random.default_rng(0), mean)
                parts.append(f"{side} {values.mean():8.1f} [{low:.1f}, {high:.1f}]")
            lines.append("  ".join(parts))
    print("\n".join(lines))
    (RESULTS / "normalise_vs_sb3.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
