"""The pause of the training loop at a checkpoint, and the memory that a large replay costs in one.

    python benchmarks/checkpoint.py              # the pause, beside Stable-Baselines3's `save`
    python benchmarks/checkpoint.py --replay     # the memory

A PPO run with about two million parameters makes a checkpoint after every update. The pause is
what the loop waits for: copying the state, and the end of the checkpoint before where that is still
being written. Stable-Baselines3 saves a model of the same size (network and optimiser alone, no
environments, no random generators) in the loop.

The memory is measured with a learner that holds 1 GiB of arrays like a replay's, as `Segments`: a
first checkpoint, one after 5 % of the rows have been replaced, and a process of its own that
resumes from it. Peaks are the kernel's own (VmHWM), less what the process held before, which is
the arrays and the interpreter.
"""

import argparse
import hashlib
import json
import multiprocessing
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from palaestra.experience.segments import Segments
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


class ReplayLearner:
    """A learner with a small network and a ring of Atari-like transitions.

    Args:
      gib: size of the ring.
      fill: fill it with noise, so that nothing of it is shared or compressed.
    """

    def __init__(self, gib: float, fill: bool) -> None:
        rows = int(gib * 2**30) // (84 * 84 + 8 + 4 + 1)
        arrays: dict[str, np.ndarray] = {
            "frame": np.zeros((rows, 84, 84), np.uint8),
            "action": np.zeros(rows, np.int64),
            "reward": np.zeros(rows, np.float32),
            "terminated": np.zeros(rows, bool),
        }
        self.replay = Segments(arrays)
        self.weights = {f"layer.{i}": np.full((512, 512), i, np.float32) for i in range(4)}
        self.rng = np.random.default_rng(0)
        self.cursor = 0
        for array in arrays.values():  # so that its pages are there
            array[:] = 1
        if fill:
            self.collect(1.0)

    def collect(self, share: float) -> None:
        """Replace this share of the ring."""
        for _ in range(-(-int(share * self.replay.length) // 1000)):
            rows = np.arange(self.cursor, self.cursor + 1000) % self.replay.length
            self.replay.touch_rows(rows)
            self.replay.arrays["frame"][rows] = self.rng.integers(0, 256, (1000, 84, 84), np.uint8)
            self.replay.arrays["action"][rows] = rows
            self.replay.arrays["reward"][rows] = self.rng.normal(size=1000)
            self.cursor = int(rows[-1]) + 1

    def parts(self) -> dict[str, Any]:
        """Return the parts of a checkpoint."""
        learner = {"policy": self.weights, "replay": self.replay, "cursor": self.cursor}
        return {"actor": self.weights, "loop": {"learner": learner}}

    def load(self, parts: dict[str, Any]) -> None:
        """Continue where the parts were taken."""
        learner = parts["loop"]["learner"]
        learner["replay"].fill(self.replay)
        self.weights, self.cursor = learner["policy"], learner["cursor"]

    def digest(self) -> str:
        """Return the SHA-256 of everything in it."""
        found = hashlib.sha256(str(self.cursor).encode())
        for array in [*self.replay.arrays.values(), *self.weights.values()]:
            found.update(array.data)
        return found.hexdigest()


def memory(name: str) -> int:
    """Return a figure of /proc/self/status in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if name in x)
    return 1024 * int(line.split()[1])


def watched(action: Callable[[], Any]) -> dict[str, Any]:
    """Carry out an action and return its seconds and how far memory rose above what was held."""
    Path("/proc/self/clear_refs").write_text("5")  # begins the peak anew
    before, start = memory("VmRSS"), time.perf_counter()
    action()
    return {
        "seconds": time.perf_counter() - start,
        "peak_gib": (memory("VmHWM") - before) / 2**30,
    }


def write_replay(gib: float, folder: Path) -> dict[str, Any]:
    """Write a first checkpoint and one after 5 % of the ring were replaced."""
    learner, store = ReplayLearner(gib, fill=True), Checkpoints(folder)

    def save(step: int) -> dict[str, Any]:
        found = watched(lambda: store.save(step, learner.parts(), {"config_hash": "x"}))
        files = [file.stat() for file in (folder / store.names()[-1]).iterdir()]
        found["bytes"] = sum(file.st_size for file in files)
        found["bytes_written"] = sum(file.st_size for file in files if file.st_nlink == 1)
        return found

    first = save(1)
    learner.collect(0.05)
    return {
        "arrays_gib": sum(x.nbytes for x in learner.replay.arrays.values()) / 2**30,
        "segments": len(learner.replay.stamps),
        "first": first,
        "second": save(2),
        "digest": learner.digest(),
    }


def read_replay(gib: float, folder: Path) -> dict[str, Any]:
    """Resume from the newest checkpoint."""
    learner, store = ReplayLearner(gib, fill=False), Checkpoints(folder)

    def resume() -> None:
        found = store.recover(["x"])
        assert found is not None
        learner.load(found[1])

    return {"resume": watched(resume), "digest": learner.digest()}


def measure_replay(gib: float, repetitions: int, out: Path) -> None:
    """Measure each repetition in processes of its own, print and store the figures."""
    found = []
    for _ in range(repetitions):
        with (
            tempfile.TemporaryDirectory() as folder,
            ProcessPoolExecutor(
                1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
            ) as pool,
        ):
            one = pool.submit(write_replay, gib, Path(folder)).result()
            again = pool.submit(read_replay, gib, Path(folder)).result()
        one |= {"resume": again["resume"], "bit_equal": one.pop("digest") == again["digest"]}
        found.append(one)
        print(
            f"{one['arrays_gib']:.3f} GiB in {one['segments']} segments: bit-equal "
            f"{one['bit_equal']}, second checkpoint writes "
            f"{one['second']['bytes_written'] / one['second']['bytes']:.1%} of its bytes"
        )
        for name in ("first", "second", "resume"):
            print(
                f"  {name}: peak over the arrays {one[name]['peak_gib']:.3f} GiB, "
                f"{one[name]['seconds']:.2f} s"
            )
    out.write_text(json.dumps({"machine": platform.platform(), "repetitions": found}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--updates", type=int, default=40, help="updates, half with a checkpoint")
    parser.add_argument("--replay", action="store_true", help="measure memory instead")
    parser.add_argument("--gib", type=float, default=1.0, help="size of the replay")
    parser.add_argument("--repetitions", type=int, default=3, help="of the replay")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/checkpoint*.json")
    arguments = parser.parse_args()
    if arguments.replay:
        out = arguments.out or RESULTS / "checkpoint-replay.json"
        measure_replay(arguments.gib, arguments.repetitions, out)
        return
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
    out = arguments.out or RESULTS / "checkpoint.json"
    out.write_text(json.dumps({"palaestra": ours, "stable_baselines3": peer}, indent=1))


if __name__ == "__main__":
    main()
