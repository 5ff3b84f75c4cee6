"""Makes run folders as training and evaluation leave them: simulated bandits, invented learning."""

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

K, T, EPISODES, SEEDS = 5, 50, 16, 5
TASK = "bandit/k5-normal-1"
REFERENCES = ("random", "epsilon-greedy", "ucb", "thompson")


def write_run(
    root: Path, seed: int = 0, experiment: str = "meta-bandit", skill: float = 0.95
) -> Path:
    """Write a finished run with evaluation; `skill` in [0, 1] is how far it learned."""
    run_id = f"{re.sub(r'[^a-z0-9]+', '-', experiment)}-gaussianbandit-v0-ppo-gru-s{seed}-0123abcd"
    folder = root / run_id
    folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, round(1000 * skill)])
    write_identity(folder, run_id, experiment, seed)
    write_lines(folder / "metrics.jsonl", _metrics(rng, skill))
    write_lines(folder / "episodes.jsonl", _episodes(rng))
    for agent in ("ppo-gru", *REFERENCES):
        place = folder / "eval" / "bandit-200000" / agent
        write_json(place / "summary.json", bandit_summary(agent, seed, skill))
    return folder


def write_identity(folder: Path, run_id: str, experiment: str, seed: int) -> None:
    """Write config.yaml and manifest.json of a finished run."""
    config = {
        "experiment": experiment,
        "description": "RL^2 on 5-arm Gaussian bandits",
        "seed": seed,
        "total_steps": 200_000,
        "env": {"id": "palaestra/GaussianBandit-v0", "num_envs": 64, "options": {"num_arms": K}},
        "agent": {"name": "ppo", "learning_rate": 1e-3, "gamma": 0.99},
        "policy": {"name": "gru", "hidden_size": 64},
        "rollout": {"steps": T, "workers": 0},
        "evaluation": {"suite": "bandit", "seeds": SEEDS, "baselines": list(REFERENCES)},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    manifest = {
        "run_id": run_id,
        "experiment": experiment,
        "schema_version": 1,
        "config_hash": "0123abcd",
        "code_version": {"git_sha": "4f2a9c1d7be03358a6fd20c4b1e9d8735512ab90", "dirty": False},
        "packages": {"palaestra": "0.1.0", "gymnasium": "1.4.0", "torch": "2.13.0"},
        "python": "3.11.9",
        "platform": "Linux-6.1-x86_64",
        "device": "cpu",
        "torch_threads": 2,
        "env": {"id": "palaestra/GaussianBandit-v0"},
        "started": "2030-05-04T09:12:30+00:00",
        "ended": "2030-05-04T09:14:12+00:00",
        "status": "succeeded",
        "wall_seconds": 102.4,
        "agent_steps": 200_000,
        "attempts": [{"n": 1, "from_step": 0}],
    }
    write_json(folder / "manifest.json", manifest)


def write_json(path: Path, data: Any) -> None:
    """Write one JSON file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _metrics(rng: np.random.Generator, skill: float) -> list[dict[str, Any]]:
    rows = []
    for i in range(1, 63):
        progress = skill * (1 - np.exp(-i / 14))
        regret = 35 - 22 * progress + rng.normal(0, 0.8)
        rows.append(
            {
                "agent_steps": 3200 * i,
                "frames": 3200 * i,
                "updates": i,
                "attempt": 1,
                "t": 1.65 * i,
                "rollout/return": 58.1 - regret + rng.normal(0, 0.6),
                "rollout/regret": regret,
                "rollout/length": T,
                "rollout/episodes": 64,
                "train/policy_loss": -0.01 * np.exp(-i / 30) + rng.normal(0, 0.002),
                "train/value_loss": 9 * np.exp(-i / 20) + 1.5 + rng.normal(0, 0.15),
                "train/entropy": np.log(K) * (1 - 0.7 * progress) + rng.normal(0, 0.01),
                "train/approx_kl": 0.01 + rng.normal(0, 0.001),
                "time/agent_steps_per_s": 1950 + rng.normal(0, 60),
            }
        )
    return rows


def _episodes(rng: np.random.Generator) -> list[dict[str, Any]]:
    return [
        {
            "agent_steps": 3200 * i,
            "env": list(range(4)),
            "return": rng.normal(20, 5, 4).round(3).tolist(),
            "length": [T] * 4,
            "regret": rng.normal(20, 5, 4).round(3).tolist(),
        }
        for i in range(1, 63)
    ]


def several_tasks_summary(scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the summary of a learner from the scores of each task's evaluation seeds."""
    tasks = [
        {"id": f"invented/{i}", "env_id": "Invented-v0", "episodes": 1, "score": estimate([*row])}
        for i, row in enumerate(scores)
    ]
    figures = estimate([x for row in scores for x in row])
    return {
        "agent": "ppo-gru",
        "suite": "invented",
        "mode": "greedy",
        "seeds": list(range(len(scores[0]))),
        "intervals": {"over": "seeds"},
        "aggregate": {
            name: {"value": figures[name], "low": None, "high": None} for name in ("iqm", "mean")
        },
        "tasks": [{**task, "metrics": {}} for task in tasks],
    }


@cache
def bandit_summary(agent: str, seed: int = 0, skill: float = 0.95) -> dict[str, Any]:
    """Return the summary of an agent that really played Gaussian bandits."""
    played = [
        [play_bandit(agent, s, e, seed, skill) for e in range(EPISODES)] for s in range(SEEDS)
    ]
    metrics = {
        name: estimate([float(np.mean([figures(p)[name] for p in ps])) for ps in played])
        for name in (
            "return",
            "regret",
            "coverage",
            "optimal_fraction",
            "greedy_fraction",
            "suffix_failure",
            "k_min_fraction",
        )
    }
    score = estimate([1 - g / 58.15 for g in metrics["regret"]["by_seed"]])
    shares = ("coverage", "optimal_fraction", "greedy_fraction", "suffix_failure", "k_min_fraction")
    return {
        "schema": 1,
        "agent": agent,
        "suite": "bandit",
        "suite_version": 1,
        "protocol": "one new instance for each episode of 50 pulls",
        "mode": "greedy" if agent == "ppo-gru" else "sample",
        "seeds": list(range(SEEDS)),
        "versions": {"palaestra": "0.1.0", "palaestra/GaussianBandit-v0": "v0"},
        "intervals": {"level": 0.95, "repetitions": 50_000, "over": "seeds", "n": SEEDS},
        "warnings": [],
        "aggregate": {
            "iqm": {"value": score["iqm"], "low": score["iqm_low"], "high": score["iqm_high"]},
            "mean": {"value": score["mean"], "low": score["mean_low"], "high": score["mean_high"]},
        },
        "metrics": {name: {"unit": "share", "meaning": name} for name in shares},
        "tasks": [
            {
                "id": TASK,
                "env_id": "palaestra/GaussianBandit-v0",
                "episodes": EPISODES,
                "score": score,
                "metrics": metrics,
                "strip": [
                    {"seed": 0, "episode": e, **{k: v.tolist() for k, v in played[0][e].items()}}
                    for e in range(3)
                ],
            }
        ],
        "not_applicable": {},
    }


def estimate(by_seed: list[float]) -> dict[str, Any]:
    """Return mean and IQM with a plain two-standard-errors interval."""
    values = np.array(by_seed)
    mean, half = values.mean(), 2 * values.std() / np.sqrt(len(values))
    found = {}
    for name in ("mean", "iqm"):
        found |= {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
    return {**found, "by_seed": by_seed}


def play_bandit(
    agent: str, seed: int, episode: int, run_seed: int = 0, skill: float = 0.95
) -> dict[str, np.ndarray]:
    """Play one bandit; instance and rewards are those of (seed, episode), whoever plays."""
    instance = np.random.default_rng([seed, episode])
    means = instance.normal(size=K)
    tape = instance.normal(size=(T, K)) + means
    rng = np.random.default_rng([seed, episode, run_seed, len(agent)])
    counts, sums, actions = np.zeros(K), np.zeros(K), []
    for t in range(T):
        arm = _choose(agent, counts, sums, rng, skill)
        counts[arm] += 1
        sums[arm] += tape[t, arm]
        actions.append(arm)
    return {
        "actions": np.array(actions),
        "rewards": tape[np.arange(T), actions],
        "expected_reward": means[actions],
        "best_expected_reward": np.full(T, means.max()),
        "regret": means.max() - means[actions],
    }


def _choose(
    agent: str, counts: np.ndarray, sums: np.ndarray, rng: np.random.Generator, skill: float
) -> int:
    if agent == "random" or (agent == "ppo-gru" and rng.random() > skill):
        return int(rng.integers(K))
    means = sums / np.maximum(counts, 1)
    if agent == "epsilon-greedy":
        return int(rng.integers(K) if rng.random() < 0.1 else np.argmax(means))
    spread = 1 / np.sqrt(np.maximum(counts, 1e-9))
    if agent == "thompson":
        return int(np.argmax(means + np.minimum(spread, 3) * rng.normal(size=K)))
    return int(np.argmax(means + (0.8 if agent == "ppo-gru" else 1.0) * np.minimum(spread, 9)))


def figures(played: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the decision metrics of one episode."""
    regret, actions = played["regret"], played["actions"]
    counts = np.bincount(actions, minlength=K)
    best = regret <= 0
    return {
        "return": played["rewards"].sum(),
        "regret": regret.sum(),
        "coverage": (counts > 0).mean(),
        "optimal_fraction": best.mean(),
        "greedy_fraction": float((actions[1:] == actions[:-1]).mean()),
        "suffix_failure": float(not best[T // 2 :].any()),
        "k_min_fraction": K * counts.min() / T,
    }


def game_record() -> dict[str, Any]:
    """Return a Tic-tac-toe game in which the agent, moving first, wins along the top row."""
    return {
        "seed": 0,
        "episode": 0,
        "actions": [0, 1, 2],
        "rewards": [0.0, 0.0, 1.0],
        "boards": [
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 2, 0, 0, 0, 0],
            [1, 1, 0, 0, 2, 0, 0, 2, 0],
            [1, 1, 1, 0, 2, 0, 0, 2, 0],
        ],
    }
