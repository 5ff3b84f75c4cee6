"""The streams of an algorithm that draws from the global random generators."""

import random
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator
from stable_baselines3.common.utils import set_random_seed


class GlobalGenerators:
    """Streams of its own for one algorithm: the global ones within `with`, untouched otherwise.

    What others draw from the global generators in between changes nothing for the algorithm, and
    several algorithms can take turns in one process. The one thing that does not last from one
    `with` to the next is the second of two normal deviates that NumPy's legacy `randn` makes at a
    time; the algorithms adapted here do not call it.

    Args:
      seed: of all three, as Stable-Baselines3 sets it.
      device: where the algorithm learns; a CUDA device has a generator of its own.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        # Replacing NumPy's generator takes no time; copying its 624 words would.
        self._numpy: Any = np.random.MT19937()
        self._python, self._torch = random.getstate(), self._read_torch()
        with self:
            set_random_seed(seed)

    def __enter__(self) -> None:
        self._others = random.getstate(), get_bit_generator(), self._read_torch()
        random.setstate(self._python)
        set_bit_generator(self._numpy)
        self._write_torch(self._torch)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._python, self._torch = random.getstate(), self._read_torch()
        python, numpy, torch_states = self._others
        random.setstate(python)
        set_bit_generator(numpy)
        self._write_torch(torch_states)

    def state_dict(self) -> dict[str, Any]:
        """Return where the streams are."""
        version, words, gauss = self._python
        return {
            "python": {"version": version, "words": np.array(words, np.uint32), "gauss": gauss},
            "numpy": self._numpy.state,
            "torch": [state.numpy() for state in self._torch],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        python = state["python"]
        self._python = (python["version"], tuple(map(int, python["words"])), python["gauss"])
        self._numpy.state = state["numpy"]
        self._torch = [torch.from_numpy(np.array(stream)) for stream in state["torch"]]

    def _read_torch(self) -> list[torch.Tensor]:
        cuda = [torch.cuda.get_rng_state()] if self._on_cuda else []
        return [torch.get_rng_state(), *cuda]

    def _write_torch(self, states: list[torch.Tensor]) -> None:
        torch.set_rng_state(states[0])
        if self._on_cuda:
            torch.cuda.set_rng_state(states[1])
