"""Environment steps per second: our vector environments beside Gymnasium's SyncVectorEnv.

    python benchmarks/envs.py --env palaestra/GaussianBandit-v0

Both sides do the same work: the same number of rows, seeds, actions and steps, resets included. The
peer steps our own single environment, without the wrappers that `gymnasium.make` would add. The
two are measured in turn; the median of the rounds is reported, and the sums of rewards must agree.
"""

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from palaestra.envs import make_vec

RESULTS = Path(__file__).parent / "results"
SEED = 0


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    env: str
    num_envs: int
    steps: int
    options: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case("palaestra/GaussianBandit-v0", 1024, 100, {"K": 5, "T": 50}),
    Case("palaestra/GaussianBandit-v0", 64, 500, {"K": 5, "T": 50}),
    Case("palaestra/GaussianBandit-v0", 1024, 100, {"K": 20, "T": 50}),
    Case("palaestra/BernoulliBandit-v0", 1024, 100, {"K": 5, "T": 50}),
    Case("palaestra/SyntheticMovies-v0", 1024, 100, {"K": 5, "T": 50}),
    Case("palaestra/TicTacToe-v0", 1024, 100),
    Case("palaestra/TicTacToe-v0", 64, 500),
    Case("palaestra/TicTacToe-v0", 1024, 100, {"opponent": "minimax", "first": "alternate"}),
    Case("palaestra/Recall-v0", 1024, 100, {"K": 4, "gap": 64}),
    Case("palaestra/TMaze-v0", 1024, 100, {"length": 50}),
    Case("palaestra/RepeatPrevious-v0", 1024, 100, {"k": 32, "T": 104}),
    Case("palaestra/CountRecall-v0", 1024, 100, {"K": 4, "copies": 26}),
]
"""What is measured; actions are uniform over the legal ones."""


def native(case: Case) -> VectorEnv:
    return make_vec(case.env, case.num_envs, **case.options)


def peer(case: Case) -> VectorEnv:
    single = load_env_creator(gymnasium.spec(case.env).entry_point)
    return SyncVectorEnv(
        [lambda: single(**case.options)] * case.num_envs, autoreset_mode=AutoresetMode.SAME_STEP
    )


def record_actions(case: Case) -> np.ndarray:
    """Return actions `[steps, N]` of uniform legal play, which both sides replay."""
    envs, rng = native(case), np.random.default_rng(SEED)
    n = envs.single_action_space.n
    _, infos = envs.reset(seed=SEED)
    actions = np.empty((case.steps, case.num_envs), np.int64)
    for t in range(case.steps):
        legal = infos.get("action_mask", np.ones((case.num_envs, n), bool))
        actions[t] = np.where(legal, rng.random(legal.shape), -1.0).argmax(axis=1)
        infos = envs.step(actions[t])[4]
    return actions


def measure(envs: VectorEnv, actions: np.ndarray) -> tuple[float, float]:
    """Return environment steps per second and the sum of all rewards."""
    total = np.zeros(actions.shape[1])
    start = time.perf_counter()
    envs.reset(seed=SEED)
    for a in actions:
        total += envs.step(a)[1]
    return actions.size / (time.perf_counter() - start), float(total.sum())


def run(case: Case, rounds: int) -> dict[str, Any]:
    """Measure both sides in turn, after one unmeasured round of each."""
    actions = record_actions(case)
    sides = {"native": native(case), "sync": peer(case)}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for envs in sides.values():
        measure(envs, actions[:2])
    for _ in range(rounds):
        sums = {}
        for name, envs in sides.items():
            rate, sums[name] = measure(envs, actions)
            rates[name].append(rate)
        if sums["native"] != sums["sync"]:
            raise SystemExit(f"{case.env}: the two sides were paid differently: {sums}")
    ratios = [one / other for one, other in zip(rates["native"], rates["sync"], strict=True)]
    return {
        **asdict(case),
        "native_steps_per_second": statistics.median(rates["native"]),
        "sync_steps_per_second": statistics.median(rates["sync"]),
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "rounds": rates,
    }


def machine() -> dict[str, str]:
    return {
        "processor": processor(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gymnasium": gymnasium.__version__,
        "measured": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} threads" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    known = sorted({case.env for case in CASES})
    parser.add_argument("--env", choices=known, help="one environment instead of all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the raw output")
    arguments = parser.parse_args()
    heads = f"{'rows':>5} {'native/s':>12} {'sync/s':>9} {'ratio':>7}"
    print(f"{'environment':32} {'options':22} {heads}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in [arguments.env] if arguments.env else known:
        results = []
        for case in (case for case in CASES if case.env == name):
            results.append(run(case, arguments.rounds))
            r = results[-1]
            options = " ".join(f"{key}={value}" for key, value in case.options.items())
            print(
                f"{case.env:32} {options:22} {case.num_envs:5d} "
                f"{r['native_steps_per_second']:12,.0f} {r['sync_steps_per_second']:9,.0f} "
                f"{r['ratio']:6.1f}x"
            )
        raw = {"machine": machine(), "cases": results}
        file = arguments.out / f"envs-{name.partition('/')[2]}.json"
        file.write_text(json.dumps(raw, indent=1) + "\n")


if __name__ == "__main__":
    main()
