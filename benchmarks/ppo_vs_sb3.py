"""PPO against Stable-Baselines3 on the same work, in turns within one run.

    python benchmarks/ppo_vs_sb3.py                    # CartPole, both comparisons
    python benchmarks/ppo_vs_sb3.py --only feedforward --seeds 5

feedforward: CartPole-v1 with the hyper-parameters and the network of the chosen setting, both
sides with one torch thread. Steps/s counts the whole of `learn` and of our training loop; the
final return is measured by ours and theirs in the same way: 100 greedy episodes of fresh
environments per seed.

recurrent: our `gru` policy against sb3-contrib's RecurrentPPO at the same width, fragments,
minibatches and epochs, one memory for policy and value on both sides. sb3-contrib keeps the value's
gradient out of a shared memory; ours lets it in, so that it is scaled down (reward_scale 0.1).
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from palaestra.metrics.statistics import bootstrap_intervals, iqm, mean
from palaestra.runs.config import resolve
from palaestra.runs.rollouts.local import LocalRollouts
from palaestra.runs.training.train import build_learner

RESULTS = Path(__file__).parent / "results"

SETTINGS: dict[str, dict[str, Any]] = {
    # rl-baselines3-zoo, hyperparams/ppo.yml, CartPole-v1
    "tuned": dict(
        num_envs=8, steps=32, minibatch_size=256, num_epochs=20, gamma=0.98, gae_lambda=0.8,
        learning_rate=1e-3, linear=True, clip_range=0.2, total_steps=100_000,
    ),
    # the defaults of stable_baselines3.PPO
    "default": dict(
        num_envs=4, steps=2048 // 4, minibatch_size=64, num_epochs=10, gamma=0.99,
        gae_lambda=0.95, learning_rate=3e-4, linear=False, clip_range=0.2, total_steps=100_000,
    ),
}  # fmt: skip


def ours(setting: dict[str, Any], policy: dict[str, Any], seed: int, vector: bool) -> dict:
    """Train with Palaestra and return steps/s and the greedy return."""
    config = resolve(
        {
            "seed": seed,
            "total_steps": setting["total_steps"],
            "threads": 1,
            "env": {"id": "CartPole-v1", "num_envs": setting["num_envs"]},
            "agent": {
                "name": "ppo",
                "learning_rate": setting["learning_rate"],
                "learning_rate_schedule": "linear" if setting["linear"] else "constant",
                "gamma": setting["gamma"],
                "gae_lambda": setting["gae_lambda"],
                "num_epochs": setting["num_epochs"],
                "minibatch_size": setting["minibatch_size"],
                "clip_range": setting["clip_range"],
                "reward_scale": setting.get("reward_scale", 1.0),
            },
            "policy": policy,
            "rollout": {"steps": setting["steps"]},
        }
    )
    learner = build_learner(config)
    rollouts = LocalRollouts(config)
    if not vector:
        from gymnasium.vector import AutoresetMode, SyncVectorEnv

        from palaestra.runs.rollouts.collector import Collector

        collector = rollouts.workers[0].collector
        env = SyncVectorEnv(
            [lambda: gymnasium.make("CartPole-v1")] * setting["num_envs"],
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        seeds = [1000 * seed + i for i in range(setting["num_envs"])]
        rollouts.workers[0].collector = Collector(env, collector.actor, collector.rng, seeds)
    start, steps = time.perf_counter(), 0
    while steps < config.total_steps:
        found = rollouts.collect(learner.weights(), 0)
        learner.update([r.fragment for r in found])
        steps += sum(r.fragment.env_steps for r in found)
    seconds = time.perf_counter() - start
    actor = rollouts.workers[0].collector.actor
    actor.load_weights(learner.weights())
    state = {"memory": None}

    def act(observation: np.ndarray, reset: np.ndarray) -> np.ndarray:
        memory = state["memory"] or actor.initial_state(len(reset))
        action, state["memory"], _ = actor.act(
            observation, memory, reset, np.random.default_rng(0), "greedy"
        )
        return action

    return {"steps_per_s": steps / seconds, "return": greedy_return(act, seed)}


def theirs(setting: dict[str, Any], recurrent: int | None, seed: int) -> dict:
    """Train with Stable-Baselines3 or sb3-contrib and return steps/s and the greedy return."""
    from sb3_contrib import RecurrentPPO
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env("CartPole-v1", setting["num_envs"], seed=seed)
    rate = setting["learning_rate"]
    common: dict[str, Any] = dict(
        n_steps=setting["steps"],
        batch_size=setting["minibatch_size"],
        n_epochs=setting["num_epochs"],
        gamma=setting["gamma"],
        gae_lambda=setting["gae_lambda"],
        learning_rate=(lambda left: rate * left) if setting["linear"] else rate,
        clip_range=setting["clip_range"],
        ent_coef=0.0,
        seed=seed,
        device="cpu",
    )
    if recurrent:
        kwargs = dict(
            lstm_hidden_size=recurrent, net_arch=[], enable_critic_lstm=False, shared_lstm=True
        )
        model: Any = RecurrentPPO("MlpLstmPolicy", env, policy_kwargs=kwargs, **common)
    else:
        model = PPO("MlpPolicy", env, **common)
    start = time.perf_counter()
    model.learn(setting["total_steps"])
    seconds = time.perf_counter() - start
    state: dict[str, Any] = {"memory": None}

    def act(observation: np.ndarray, reset: np.ndarray) -> np.ndarray:
        action, state["memory"] = model.predict(
            observation, state["memory"], episode_start=reset, deterministic=True
        )
        return action

    return {"steps_per_s": model.num_timesteps / seconds, "return": greedy_return(act, seed)}


def greedy_return(act: Any, seed: int, episodes: int = 100) -> float:
    """Return the mean return of the first episode of `episodes` fresh environments."""
    env = gymnasium.make_vec("CartPole-v1", episodes, vectorization_mode="sync")
    observation, _ = env.reset(seed=10_000 + 1000 * seed)
    alive, total, reset = np.ones(episodes, bool), np.zeros(episodes), np.ones(episodes, bool)
    while alive.any():
        observation, reward, terminated, truncated, _ = env.step(act(observation, reset))
        total += reward * alive
        reset = terminated | truncated
        alive &= ~reset
    return float(total.mean())


def compare(name: str, sides: dict[str, Any], seeds: int, base: str) -> dict[str, Any]:
    """Run every side in turn for each seed and print rates, ratios and returns."""
    found: dict[str, list[dict]] = {side: [] for side in sides}
    for seed in range(seeds):
        for side, run in sides.items():
            result = run(seed)
            found[side].append(result)
            print(f"{name} seed {seed} {side:<24} {result['steps_per_s']:9,.0f} steps/s "
                  f"return {result['return']:6.1f}", flush=True)  # fmt: skip
    print(f"\n{name}: {seeds} seeds, mean return with 95 % bootstrap interval")
    summary: dict[str, Any] = {}
    for side, results in found.items():
        returns = np.array([[r["return"]] for r in results])
        interval = bootstrap_intervals(returns, np.random.default_rng(0), [mean], 50_000)[0]
        rates = np.array([r["steps_per_s"] for r in results])
        ratios = rates / np.array([r["steps_per_s"] for r in found[base]])
        summary[side] = {
            "steps_per_s": rates.tolist(),
            "return": returns[:, 0].tolist(),
            "return_mean": float(returns.mean()),
            "return_interval": [interval.low, interval.high],
            "return_iqm": float(iqm(returns)),
            f"ratio_to_{base}": ratios.tolist(),
            f"median_ratio_to_{base}": float(np.median(ratios)),
        }
        print(f"  {side:<24} median {np.median(rates):9,.0f} steps/s  {np.median(ratios):5.2f}x "
              f"{base} (min {ratios.min():.2f}, max {ratios.max():.2f})  return "
              f"{returns.mean():6.1f} [{interval.low:.1f}, {interval.high:.1f}]")  # fmt: skip
    print()
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=["feedforward", "recurrent"])
    parser.add_argument("--setting", choices=list(SETTINGS), help="default: both")
    parser.add_argument("--steps", type=int, help="agent steps, instead of the setting's")
    parser.add_argument("--out", type=Path, default=RESULTS / "ppo_vs_sb3.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"machine": platform.processor() or platform.machine()}
    chosen = [options.setting] if options.setting else list(SETTINGS)
    for name in chosen if options.only != "recurrent" else []:
        setting = {**SETTINGS[name], **({"total_steps": options.steps} if options.steps else {})}
        sides = {
            "stable-baselines3": lambda seed, s=setting: theirs(s, None, seed),
            "palaestra": lambda seed, s=setting: ours(s, {"name": "mlp"}, seed, True),
            "palaestra, SyncVectorEnv": lambda seed, s=setting: ours(
                s, {"name": "mlp"}, seed, False
            ),
        }
        report[f"feedforward-{name}"] = compare(
            f"feedforward-{name}", sides, options.seeds, "stable-baselines3"
        )
    if options.only != "feedforward":
        setting = {
            **SETTINGS["default"],
            "num_envs": 8,
            "steps": 128,
            "minibatch_size": 256,
            "reward_scale": 0.1,
            "total_steps": options.steps or 50_000,
        }
        gru = {"name": "gru", "hidden_size": 64}
        sides = {
            "sb3-contrib": lambda seed: theirs(setting, 64, seed),
            "palaestra": lambda seed: ours(setting, gru, seed, True),
            "palaestra, SyncVectorEnv": lambda seed: ours(setting, gru, seed, False),
        }
        report["recurrent"] = compare("recurrent", sides, options.seeds, "sb3-contrib")
    options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
