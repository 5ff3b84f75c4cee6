"""Files of safetensors, written from and read into arrays in their place.

The package safetensors builds a whole file in memory; here nothing is copied. What is written, its
reader reads too.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from palaestra.experience.segments import layout_of

_CODES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "float16": "F16",
    "uint32": "U32",
    "int32": "I32",
    "float32": "F32",
    "uint64": "U64",
    "int64": "I64",
    "float64": "F64",
}

TYPES = {np.dtype(name): code for name, code in _CODES.items()}
"""Types of arrays that can be stored -> what safetensors calls them."""


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write C-contiguous arrays as safetensors, and return size and SHA-256 of the file.

    Raises:
      TypeError: an array of a type that safetensors does not know.
    """
    head = _head(arrays)
    digest, size = hashlib.sha256(head), len(head)
    with path.open("wb") as file:
        file.write(head)
        for array in arrays.values():
            content = _bytes(array)
            file.write(content)
            digest.update(content)
            size += len(content)
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Read a file of `write_tensors` into arrays of the same names, types and shapes.

    Raises:
      ValueError: the file holds something else.
    """
    head = _head(arrays)
    with path.open("rb") as file:
        if file.read(len(head)) != head:
            raise ValueError(f"{path}: other arrays than {layout_of(arrays)}")
        for array in arrays.values():
            content = _bytes(array)
            if file.readinto(content) != len(content):
                raise ValueError(f"{path}: shorter than its arrays")


def _head(arrays: Mapping[str, np.ndarray]) -> bytes:
    entries, start = {}, 0
    for name, array in arrays.items():
        if array.dtype not in TYPES:
            raise TypeError(f"array {name!r}: {array.dtype} is not a type that can be stored")
        entries[name] = {
            "dtype": TYPES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the data are aligned
    return len(text).to_bytes(8, "little") + text


def _bytes(array: np.ndarray) -> memoryview:
    """Return the memory of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8).data
