"""Folders and files that are whole or absent, whenever their writer is killed."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def write_folder(files: Mapping[str, bytes], target: Path) -> None:
    """Write files into a folder beside `target` and move it into the place of what is there.

    Raises:
      OSError: the disk is full or cannot be written.
    """
    temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    old = target.with_name(f".old-{target.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        if target.exists():
            target.replace(old)
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
