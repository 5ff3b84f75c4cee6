"""Action distributions: few tensor operations, randomness from a NumPy generator that is given.

Actions and log-probabilities have the leading dimensions of the parameters, `[B]` or `[B, T]`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMPY: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


class Distribution(ABC):
    """What a policy believes about the next action."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Tensor:
        """Return one action for each row, drawn with `rng` alone."""

    @abstractmethod
    def mode(self) -> Tensor:
        """Return the most probable action of each row."""

    @abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability (or log-density) of one action for each row, in nats."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Return the entropy of each row, in nats."""


class Categorical(Distribution):
    """A distribution over A actions.

    A masked action has probability exactly 0 and is never drawn; entropy and gradients stay finite.
    A row without any legal action (as after an episode's end) is uniform.

    Args:
      logits: `[..., A]`.
      mask: bool `[..., A]`, true where the action is legal; None allows all.
    """

    def __init__(self, logits: Tensor, mask: Tensor | None = None) -> None:
        if mask is not None:
            # The least finite number instead of -inf: its exponential is 0 too, but 0 * it is 0.
            logits = logits.masked_fill(~mask, torch.finfo(logits.dtype).min)
        self.log_probs = logits.log_softmax(-1)

    def sample(self, rng: np.random.Generator) -> Tensor:
        """Return int64 `[...]` by inverting the cumulative distribution."""
        cdf = self.log_probs.detach().exp().cumsum(-1)
        # u < 1 and u * total < total also after rounding, so the count never reaches A.
        u = rng.random((*cdf.shape[:-1], 1), dtype=_NUMPY[cdf.dtype])
        threshold = torch.from_numpy(u).to(cdf.device) * cdf[..., -1:]
        return (cdf <= threshold).sum(-1)

    def mode(self) -> Tensor:
        """Return int64 `[...]`; the first of equally probable actions."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-probability of `action`, `[...]`."""
        return self.log_probs.gather(-1, action.unsqueeze(-1).long()).squeeze(-1)

    def entropy(self) -> Tensor:
        """Return the entropy, `[...]`."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


class MultiCategorical(Distribution):
    """K independent categorical distributions, for MultiDiscrete actions `[..., K]`.

    Args:
      logits: `[..., sum(sizes)]`, one part after the other.
      sizes: number of actions of each part.
    """

    def __init__(self, logits: Tensor, sizes: Sequence[int]) -> None:
        self.parts = [Categorical(part) for part in logits.split_with_sizes(list(sizes), -1)]

    def sample(self, rng: np.random.Generator) -> Tensor:
        """Return int64 `[..., K]`."""
        return torch.stack([part.sample(rng) for part in self.parts], -1)

    def mode(self) -> Tensor:
        """Return int64 `[..., K]`."""
        return torch.stack([part.mode() for part in self.parts], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the sum of the parts' log-probabilities, `[...]`."""
        chosen = zip(self.parts, action.unbind(-1), strict=True)
        return torch.stack([part.log_prob(a) for part, a in chosen]).sum(0)

    def entropy(self) -> Tensor:
        """Return the sum of the parts' entropies, `[...]`."""
        return torch.stack([part.entropy() for part in self.parts]).sum(0)


class DiagonalGaussian(Distribution):
    """Independent normal distributions, for Box actions `[..., *shape]`.

    The distribution is unbounded: an action is clipped to its space only where it is given to the
    environment, and its density is that of the unclipped action.

    Args:
      mean: `[..., *shape]`.
      log_std: `[*shape]`, the same for all rows.
    """

    def __init__(self, mean: Tensor, log_std: Tensor) -> None:
        self.mean, self.log_std = mean, log_std
        self._rows = mean.shape[: mean.ndim - log_std.ndim]

    def sample(self, rng: np.random.Generator) -> Tensor:
        """Return mean + std * noise."""
        mean = self.mean.detach()
        noise = rng.standard_normal(tuple(mean.shape), dtype=_NUMPY[mean.dtype])
        return torch.addcmul(mean, torch.from_numpy(noise).to(mean.device), self.log_std.exp())

    def mode(self) -> Tensor:
        """Return the mean."""
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        """Return the log-density of `action`, `[...]`."""
        z = (action - self.mean) * (-self.log_std).exp()
        constant = self.log_std.sum() + 0.5 * math.log(2 * math.pi) * self.log_std.numel()
        return -0.5 * z.square().reshape(*self._rows, -1).sum(-1) - constant

    def entropy(self) -> Tensor:
        """Return the differential entropy, `[...]`."""
        constant = 0.5 * (1 + math.log(2 * math.pi)) * self.log_std.numel()
        return (self.log_std.sum() + constant).expand(self._rows)
