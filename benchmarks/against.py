"""Speed of whole runs against an older commit of this repository, in pairs.

    python benchmarks/against.py COMMIT
    python benchmarks/against.py COMMIT --only cartpole --pairs 9 --scale 0.5

Both versions train the same presets, one process each, one torch thread, without evaluation: first
one, then the other, in turn first. The older version runs from a work tree of its own, with the
packages of this environment. What is compared is the time that training took, as the run's own
manifest has it (wall), and the CPU time of the whole process. The median of the pairs counts: a
machine that slows down slows both halves of a pair. A ratio above 1 means that the present code is
faster. With the older commit given as HEAD the ratios show the noise of the machine.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"

RUNS = {
    "demo": (1_200_000, ["rollout.workers=0"]),
    "cartpole": (60_000, []),
    "recall": (300_000, []),
    "tictactoe": (200_000, []),
    "sb3-cartpole": (30_000, []),
}
"""Preset -> agent steps, overrides."""

COMMON = ["threads=1", "evaluation=null", "tensorboard=false"]


def train(tree: Path, preset: str, steps: int, overrides: list[str]) -> tuple[float, float]:
    """Train once with the code of `tree`; return seconds of training and of the process's CPU."""
    options = [*COMMON, f"total_steps={steps}", *overrides]
    command = [sys.executable, "-m", "palaestra", "train", preset, "--run-id", "run"]
    with tempfile.TemporaryDirectory() as place:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [*command, *(part for option in options for part in ("-o", option))],
            cwd=place,
            env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
            check=True,
            capture_output=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        manifest = json.loads((Path(place) / "runs" / "run" / "manifest.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(manifest["wall_seconds"]), cpu


def compare(old: Path, preset: str, pairs: int, scale: float) -> dict[str, object]:
    """Return the ratios old / new of every pair."""
    steps, overrides = RUNS[preset]
    steps = int(steps * scale)
    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    for pair in range(pairs):
        trees = [old, ROOT] if pair % 2 == 0 else [ROOT, old]
        times = {tree: train(tree, preset, steps, overrides) for tree in trees}
        for i, kind in enumerate(ratios):
            ratios[kind].append(times[old][i] / times[ROOT][i])
    return {"preset": preset, "steps": steps, **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("commit")
    parser.add_argument("--only", action="append", choices=RUNS)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of steps")
    given = parser.parse_args()
    sha, now = (
        subprocess.run(
            ["git", "rev-parse", "--short", ref],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for ref in (given.commit, "HEAD")
    )
    lines = [f"{now} against {sha}: time of {sha} / time of {now}, median of {given.pairs} pairs"]
    print(lines[0], flush=True)
    found = []
    with tempfile.TemporaryDirectory() as place:
        old = Path(place) / "old"
        subprocess.run(
            ["git", "worktree", "add", "--detach", "--quiet", str(old), sha], cwd=ROOT, check=True
        )
        try:
            for preset in given.only or RUNS:
                row = compare(old, preset, given.pairs, given.scale)
                found.append(row)
                parts = [f"{preset:<13} {row['steps']:>9,} steps"]
                for kind in ("wall", "cpu"):
                    x = sorted(row[kind])  # type: ignore[call-overload]
                    parts.append(f"{kind} {statistics.median(x):.3f}x [{x[0]:.3f}, {x[-1]:.3f}]")
                lines.append("   ".join(parts))
                print(lines[-1], flush=True)
        finally:
            subprocess.run(
                ["git", "worktree", "remove", "--force", str(old)], cwd=ROOT, check=False
            )
    (RESULTS / "against.txt").write_text("\n".join(lines) + "\n")
    (RESULTS / "against.json").write_text(
        json.dumps({"old": sha, "new": now, "runs": found}) + "\n"
    )


if __name__ == "__main__":
    main()
