"""Recorded episodes as arrays in a safetensors file, so that metrics can be computed later."""

from pathlib import Path
from typing import Any

import numpy as np

from palaestra.errors import UserError
from palaestra.experience.episodes import Episodes

_OBSERVATION = "observation"


def to_bytes(episodes: Episodes) -> bytes:
    """Return the episodes whose observations were kept; texts among them are left out.

    Arrays: `action`, `reward`, `length`, `info/<name>`, and `observation` or
    `observation/<key>` with one more step than actions: what was seen last.
    """
    from safetensors.numpy import save

    leaves = dict(_flat(episodes.observations, _OBSERVATION))
    count = len(next(iter(leaves.values()))) if leaves else 0
    arrays = {
        "action": episodes.action[:count],
        "reward": episodes.reward[:count],
        "length": episodes.length[:count],
        **{f"info/{name}": x[:count] for name, x in episodes.info.items()},
        **leaves,
    }
    numbers = {"num_actions": str(episodes.num_actions)}
    plain = {name: np.ascontiguousarray(x) for name, x in arrays.items() if x.dtype != object}
    return save(plain, numbers)


def read_recorded(path: Path) -> Episodes:
    """Return the episodes of a file that an evaluation with `record` has written.

    Raises:
      UserError: not such a file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            numbers = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Episodes(
            arrays["action"],
            arrays["reward"],
            arrays["length"],
            int(numbers["num_actions"]),
            {n.removeprefix("info/"): x for n, x in arrays.items() if n.startswith("info/")},
            None,
            _tree({n: x for n, x in arrays.items() if n.startswith(_OBSERVATION)}),
        )
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: no recorded episodes: {type(error).__name__}: {error}") from None


def _flat(tree: Any, path: str) -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, dict):
        return [leaf for key, part in tree.items() for leaf in _flat(part, f"{path}/{key}")]
    return [(path, tree)]


def _tree(leaves: dict[str, np.ndarray]) -> Any:
    if set(leaves) == {_OBSERVATION}:
        return leaves[_OBSERVATION]
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.removeprefix(f"{_OBSERVATION}/").split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = leaf
    return tree
