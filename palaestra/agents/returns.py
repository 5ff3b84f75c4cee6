"""Returns and advantages from fragments: pure functions on time-major arrays."""

import numpy as np

from palaestra.experience.fragment import Fragment


def generalized_advantage(
    reward: np.ndarray,
    value: np.ndarray,
    next_value: np.ndarray,
    discount: np.ndarray,
    cut: np.ndarray,
    gae_lambda: float,
) -> np.ndarray:
    """Return the generalized advantage estimate (GAE, arXiv 1506.02438), `[T, N]`.

    Args:
      reward: `[T, N]`.
      value: `[T, N]`, V(s_t).
      next_value: `[T, N]`, V of what truly follows step t: 0 after termination, the value of the
        final observation after truncation.
      discount: `[T, N]`, gamma ** duration.
      cut: bool `[T, N]`, an episode ended at step t, so that step t + 1 belongs to another.
      gae_lambda: trade-off between bias (0) and variance (1).
    """
    delta = reward + discount * next_value - value
    decay = discount * gae_lambda * ~cut
    advantage: np.ndarray = np.empty_like(delta)
    carried = np.zeros_like(delta[0])
    for t in reversed(range(len(delta))):
        carried = delta[t] + decay[t] * carried
        advantage[t] = carried
    return advantage


def fragment_advantage(
    fragment: Fragment, gamma: float, gae_lambda: float, reward_scale: float = 1.0
) -> np.ndarray:
    """Return the advantages of a fragment whose actor noted `value`; truncation bootstraps.

    They are 0 where an entry is padding.
    """
    value, valid = fragment.extras["value"], fragment.valid
    rows = np.flatnonzero(fragment.length)
    next_value = np.concatenate([value[1:], np.zeros_like(value[:1])])
    next_value[fragment.length[rows] - 1, rows] = fragment.next_extras["value"][rows]
    if fragment.truncated.any():
        final_value = np.zeros_like(value)
        final_value[fragment.final_index] = fragment.final_extras["value"]
        next_value = np.where(fragment.truncated, final_value, next_value)
    next_value = next_value * ~fragment.terminated
    discount = gamma ** fragment.duration.astype(value.dtype)
    return generalized_advantage(
        np.where(valid, reward_scale * fragment.reward, 0),
        np.where(valid, value, 0),
        np.where(valid, next_value, 0),
        discount,
        fragment.terminated | fragment.truncated | ~valid,
        gae_lambda,
    )
