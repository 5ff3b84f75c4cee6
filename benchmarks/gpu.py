"""Everything that needs a GPU, in one command of at most eight minutes.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --only ppo

It runs the tests marked `gpu`, the kernels beside their peers in training and in decoding, and PPO
with `rat` and with `mlp` on the device and on the CPU; each part has a limit of time of its own and
says what it did not reach. Raw output goes to benchmarks/results/gpu/. Without a GPU it ends with
exit code 2.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "gpu"

PARTS: dict[str, tuple[int, list[str]]] = {
    "tests": (150, ["-m", "pytest", "tests", "-m", "gpu", "-q", "--durations=20"]),
    "kernels": (
        150,
        ["benchmarks/kernels.py", "--device", "cuda", "--shapes", "rl", "--out", "gpu/kernels-rl"],
    ),
    "decode": (
        60,
        ["benchmarks/kernels.py", "--device", "cuda", "--shapes", "acting", "--out", "gpu/decode"],
    ),
    "ppo": (100, ["benchmarks/gpu.py", "--ppo"]),
}
"""Part -> limit in seconds, arguments of python."""

POLICIES: dict[str, dict[str, Any]] = {
    "rat": {"name": "rat", "width": 256, "layers": 2},
    "mlp": {"name": "mlp", "hidden_sizes": [256, 256]},
}


def run(part: str) -> dict[str, Any]:
    """Run one part in a process of its own and keep what it prints."""
    limit, arguments = PARTS[part]
    print(f"== {part} (at most {limit} s)", flush=True)
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = RESULTS / f"{part}.log"
    with log.open("w") as file:
        try:
            code: int | str = subprocess.run(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"cut after {limit} s"
    seconds = round(time.perf_counter() - start, 1)
    print("\n".join(log.read_text().splitlines()[-12:]))
    print(f"== {part}: {code}, {seconds} s", flush=True)
    return {"part": part, "code": code, "seconds": seconds}


def ppo() -> None:
    """Print agent steps per second of collecting and of learning, on the GPU and on the CPU."""
    from palaestra.runs.config import resolve
    from palaestra.runs.training import build_loop

    for name, policy in POLICIES.items():
        for device, precision in (("cuda", "float32"), ("cuda", "bfloat16"), ("cpu", "float32")):
            config = resolve(
                {
                    "total_steps": 10_000_000,
                    "device": device,
                    "env": {
                        "id": "palaestra/Recall-v0",
                        "num_envs": 256,
                        "options": {"K": 4, "gap": 64},
                    },
                    "agent": {
                        "name": "ppo",
                        "minibatch_size": 8448,
                        "num_epochs": 2,
                        "precision": precision,
                    },
                    "policy": policy,
                    "rollout": {"steps": 66},
                }
            )
            loop = build_loop(config)
            loop.advance()  # compiles the kernels
            steps, collect, learn, start = 0, 0.0, 0.0, time.perf_counter()
            while time.perf_counter() - start < 8:
                done = loop.advance()
                steps += done.agent_steps
                collect, learn = collect + done.collect_s, learn + done.learn_s
            loop.close()
            row = {
                "policy": name,
                "device": device,
                "precision": precision,
                "agent_steps_per_s": round(steps / (collect + learn)),
                "collect_per_s": round(steps / collect),
                "learn_per_s": round(steps / learn),
            }
            print(json.dumps(row), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--ppo", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not torch.cuda.is_available():
        print(f"torch {torch.__version__} finds no GPU here; one is needed.", file=sys.stderr)
        return 2
    if given.ppo:
        ppo()
        return 0
    RESULTS.mkdir(parents=True, exist_ok=True)
    machine = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }
    print(json.dumps(machine))
    found = [run(part) for part in given.only or PARTS]
    (RESULTS / "summary.json").write_text(json.dumps({**machine, "parts": found}, indent=1) + "\n")
    return 0 if all(row["code"] == 0 for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
