"""The command before it reads its first word."""

import subprocess
import sys


def test_a_python_without_a_dependency_is_named_with_it() -> None:
    code = "import sys; sys.modules['typer'] = None; from palaestra.__main__ import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr == f"error: {sys.executable} does not have the package typer\n"
