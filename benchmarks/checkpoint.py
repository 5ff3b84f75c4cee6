"""The pause of the training loop at a checkpoint, beside Stable-Baselines3's `save`.

    python benchmarks/checkpoint.py

A PPO run with about two million parameters makes a checkpoint after every update. The pause is
what the loop waits for: copying the state, and the end of the checkpoint before where that is still
being written. Stable-Baselines3 saves a model of the same size (network and optimiser alone, no
environments, no random generators) in the loop.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from palaestra.runs.config import RunConfig, load_config
from palaestra.runs.store.checkpoints import Checkpoints
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.training.train import build_loop
from palaestra.runs.training.trainer import Trainer

RESULTS = Path(__file__).parent / "results"


def config(updates: int) -> RunConfig:
    """Return a run whose policy and value networks have about a million parameters each."""
    return load_config(
        "cartpole",
        [
            "policy.hidden_sizes=[1000, 1000]",
            "rollout.steps=32",
            "agent.num_epochs=1",
            "agent.minibatch_size=64",
            "tensorboard=false",
            f"total_steps={256 * updates}",
            "checkpoint.every=1000000000",
        ],
    )


def measure(updates: int, root: Path) -> dict[str, Any]:
    """Train and note the pause at each checkpoint, and the time of an update beside it."""
    run = config(updates)
    loop = build_loop(run)
    folder = RunFolder.create("run", run, root)
    trainer = Trainer(run, folder, loop, quiet=True)
    folder.begin_attempt(0)
    pauses, writes, plain, beside = [], [], [], []
    for update in range(updates):
        start = time.perf_counter()
        trainer._advance()
        # Every other update has a checkpoint being written beside it.
        (beside if update % 2 else plain).append(time.perf_counter() - start)
        if update % 2 == 0:
            start = time.perf_counter()
            trainer.save_checkpoint(wait=False)
            pauses.append(time.perf_counter() - start)
        else:
            trainer.checkpoints.wait()
    for _ in range(5):
        trainer.agent_steps += 1
        start = time.perf_counter()
        trainer.save_checkpoint()
        writes.append(time.perf_counter() - start)
    loop.close()
    newest = root / "run" / "checkpoints" / Checkpoints(root / "run" / "checkpoints").names()[-1]
    return {
        "parameters": sum(x.size for x in loop.weights().values()),
        "megabytes": sum(file.stat().st_size for file in newest.iterdir()) / 1e6,
        "pause_ms": [1000 * x for x in pauses],
        "whole_write_ms": [1000 * x for x in writes],
        "update_ms": [1000 * x for x in plain],
        "update_beside_write_ms": [1000 * x for x in beside],
    }


def measure_peer(saves: int, root: Path) -> dict[str, Any]:
    """Save a model of Stable-Baselines3 of the same size as often."""
    import gymnasium
    from stable_baselines3 import PPO

    net = {"pi": [1000, 1000], "vf": [1000, 1000]}
    env = gymnasium.make("CartPole-v1")
    model = PPO("MlpPolicy", env, n_steps=64, policy_kwargs={"net_arch": net}, device="cpu")
    model.learn(64)
    times = []
    for number in range(saves):
        start = time.perf_counter()
        model.save(root / f"model-{number % 2}")
        times.append(time.perf_counter() - start)
    return {
        "parameters": sum(x.numel() for x in model.policy.parameters()),
        "megabytes": (root / "model-0.zip").stat().st_size / 1e6,
        "pause_ms": [1000 * x for x in times],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--updates", type=int, default=40, help="updates, half with a checkpoint")
    parser.add_argument("--out", type=Path, default=RESULTS / "checkpoint.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ours = measure(arguments.updates, Path(folder))
        peer = measure_peer(arguments.updates // 2, Path(folder))
    print(f"{platform.platform()}, torch {torch.__version__}, 1 thread")
    for name, found in (("palaestra", ours), ("stable-baselines3 save", peer)):
        times = found["pause_ms"]
        print(
            f"{name}: {found['parameters']:,} parameters, {found['megabytes']:.1f} MB, pause "
            f"median {statistics.median(times):.1f} ms, max {max(times):.1f} ms (n={len(times)})"
        )
    for name in ("whole_write_ms", "update_ms", "update_beside_write_ms"):
        print(f"palaestra {name}: median {statistics.median(ours[name]):.1f}")
    arguments.out.write_text(json.dumps({"palaestra": ours, "stable_baselines3": peer}, indent=1))


if __name__ == "__main__":
    main()
