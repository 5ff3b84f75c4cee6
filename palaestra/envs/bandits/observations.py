"""What a numeric agent sees of a bandit: its last pull, or the counts and means of all arms.

`rl2`     -> one-hot last action [K], last reward, t/T   (Duan et al. 2016, arXiv 1611.02779)
`summary` -> N_a/T [K], empirical means [K], t/T
"""

import numpy as np
from gymnasium.spaces import Box

FEATURES = {"rl2": lambda K: K + 2, "summary": lambda K: 2 * K + 1}
"""Number of features of each kind, given the number of arms."""


def history_space(
    kind: str, K: int, reward_range: tuple[float, float], context: tuple[np.ndarray, ...] = ()
) -> Box:
    """Return the space of observations; `context` is a pair of bounds `[d]` that come first."""
    low, high = np.zeros(FEATURES[kind](K)), np.ones(FEATURES[kind](K))
    rewards = slice(K, K + 1) if kind == "rl2" else slice(K, 2 * K)
    # An untried arm and the time before the first pull show 0, whatever the rewards are.
    low[rewards], high[rewards] = min(reward_range[0], 0.0), max(reward_range[1], 0.0)
    if context:
        low, high = np.concatenate([context[0], low]), np.concatenate([context[1], high])
    # One float32 step outwards: rounding an observation must not carry it over a bound.
    outer_low = np.nextafter(low.astype(np.float32), np.float32(-np.inf))
    outer_high = np.nextafter(high.astype(np.float32), np.float32(np.inf))
    return Box(
        np.where(low == 0, np.float32(0), outer_low),
        np.where(high == 1, np.float32(1), outer_high),
        dtype=np.float32,
    )


def rl2_rows(action: np.ndarray, reward: np.ndarray, fraction: float, K: int) -> np.ndarray:
    """Return `rl2` observations `[N, K + 2]` after actions `[N]` paid rewards `[N]`."""
    N, width = len(action), K + 2
    flat = np.zeros(N * width, np.float32)
    flat[np.arange(0, N * width, width) + action] = 1.0
    observation = flat.reshape(N, width)
    observation[:, K] = reward
    observation[:, K + 1] = fraction
    return observation


def summary_rows(pulls: np.ndarray, sums: np.ndarray, fraction: float, T: int) -> np.ndarray:
    """Return `summary` observations `[N, 2 K + 1]` of counts and sums of rewards `[N, K]`."""
    N, K = pulls.shape
    observation = np.empty((N, 2 * K + 1), np.float32)
    observation[:, :K] = pulls / T
    observation[:, K : 2 * K] = sums / np.maximum(pulls, 1)
    observation[:, 2 * K] = fraction
    return observation
