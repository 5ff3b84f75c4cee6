"""Decision metrics: how well, how greedily and how widely an agent chose among its actions.

Steps count from 0; `n_a(t)` is the number of pulls of arm a in the first t steps. The best arm of a
step is any whose expected reward is the best one, so contextual bandits are covered too.

Suffix failures and K * MinFrac: Krishnamurthy et al., "Can large language models explore
in-context?" (arXiv 2403.15371). Greedy share: Schmied et al. (arXiv 2504.16078).
"""

import numpy as np

from palaestra.experience.episodes import EpisodeMetric, Episodes


def pulls(episodes: Episodes) -> np.ndarray:
    """Return one-hot actions, zero in the padding, float `[E, T, K]`."""
    one_hot = episodes.action[:, :, None] == np.arange(episodes.num_actions)
    result: np.ndarray = (one_hot & episodes.valid[:, :, None]).astype(np.float64)
    return result


def on_best(episodes: Episodes) -> np.ndarray:
    """Return bool `[E, T]`: the action had the best expected reward."""
    result: np.ndarray = (episodes.info["regret"] <= 0) & episodes.valid
    return result


def regret(episodes: Episodes) -> np.ndarray:
    """Return the pseudo-regret, sum of mu* - mu_{a_t}, `[E]`."""
    return episodes.total(episodes.info["regret"])


def realised_regret(episodes: Episodes) -> np.ndarray:
    """Return the regret with the rewards that were paid, sum of mu* - r_t, `[E]`."""
    return episodes.total(episodes.info["best_expected_reward"] - episodes.reward)


def regret_curve(episodes: Episodes) -> np.ndarray:
    """Return the pseudo-regret of the first t + 1 steps, `[E, T]`."""
    return np.where(episodes.valid, episodes.info["regret"], 0).cumsum(1)


def coverage_curve(episodes: Episodes) -> np.ndarray:
    """Return the share of arms tried in the first t + 1 steps, `[E, T]`."""
    result: np.ndarray = (pulls(episodes).cumsum(1) > 0).mean(2)
    return result


def coverage(episodes: Episodes) -> np.ndarray:
    """Return the share of arms tried in the whole episode, `[E]`."""
    result: np.ndarray = (pulls(episodes).sum(1) > 0).mean(1)
    return result


def optimal_fraction(episodes: Episodes) -> np.ndarray:
    """Return the share of steps on the best arm, `[E]`."""
    result: np.ndarray = on_best(episodes).sum(1) / episodes.length
    return result


def best_arm_pulls(episodes: Episodes) -> np.ndarray:
    """Return the number of steps on the best arm, `[E]`."""
    result: np.ndarray = on_best(episodes).sum(1)
    return result


def suffix_failure(episodes: Episodes, start: int | None = None) -> np.ndarray:
    """Return 1 where the best arm was not pulled from step `start` on (default T/2), `[E]`.

    Its mean over episodes is SuffFailFreq(start).
    """
    first = episodes.length // 2 if start is None else np.full(len(episodes.length), start)
    late = np.arange(episodes.reward.shape[1]) >= first[:, None]
    return np.where((on_best(episodes) & late).any(1), 0.0, 1.0)


def k_min_fraction(episodes: Episodes, t: int | None = None) -> np.ndarray:
    """Return K * min_a n_a(t) / t, near 1 for uniform play (default t: the length), `[E]`."""
    steps = episodes.length if t is None else np.full(len(episodes.length), t)
    counted = pulls(episodes) * (np.arange(episodes.reward.shape[1]) < steps[:, None])[..., None]
    result: np.ndarray = episodes.num_actions * counted.sum(1).min(1) / steps
    return result


def greedy_fraction(episodes: Episodes, all_tried: bool | None = None) -> np.ndarray:
    """Return the share of steps t >= 1 on an arm of highest empirical mean among tried, `[E]`.

    Args:
      episodes: with discrete actions.
      all_tried: count only the steps before which every arm had been tried (true), or not yet
        (false); None counts both.

    Returns:
      Shares; nan where an episode has no such step.
    """
    counted = _counted(episodes, all_tried)
    number = counted.sum(1)
    share = (_greedy(episodes) & counted).sum(1) / np.maximum(number, 1)
    return np.where(number > 0, share, np.nan)


def greedy_steps(episodes: Episodes, all_tried: bool | None = None) -> np.ndarray:
    """Return the number of steps of which `greedy_fraction` is a share, `[E]`."""
    result: np.ndarray = _counted(episodes, all_tried).sum(1)
    return result


def _counted(episodes: Episodes, all_tried: bool | None) -> np.ndarray:
    counted = episodes.valid & (np.arange(episodes.reward.shape[1]) > 0)
    if all_tried is None:
        return counted
    result: np.ndarray = counted & ((_counts_before(episodes) > 0).all(2) == all_tried)
    return result


def _counts_before(episodes: Episodes) -> np.ndarray:
    """Return the pulls of each arm before each step, `[E, T, K]`."""
    pulled = pulls(episodes)
    result: np.ndarray = pulled.cumsum(1) - pulled
    return result


def _greedy(episodes: Episodes) -> np.ndarray:
    """Return bool `[E, T]`: no arm tried so far had a higher empirical mean than the chosen one."""
    counts = _counts_before(episodes)
    paid = pulls(episodes) * episodes.reward[:, :, None]
    # Shifted by a step: subtracting the last reward from the sum would leave rounding errors.
    sums = np.pad(paid.cumsum(1), ((0, 0), (1, 0), (0, 0)))[:, :-1]
    means = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
    arms = np.where(episodes.valid, episodes.action, 0)
    chosen = np.take_along_axis(means, arms[:, :, None], axis=2)[:, :, 0]
    result: np.ndarray = np.isfinite(chosen) & (chosen >= means.max(2))
    return result


_BEST = ("regret",)
REGRET = EpisodeMetric(
    "regret", "reward", "sum over steps of best minus chosen expected reward", regret, _BEST
)
REALISED_REGRET = EpisodeMetric(
    "realised_regret",
    "reward",
    "sum over steps of best expected minus paid reward",
    realised_regret,
    ("best_expected_reward",),
)
COVERAGE = EpisodeMetric(
    "coverage", "share", "share of the arms tried at least once", coverage, _BEST, discrete=True
)
OPTIMAL_FRACTION = EpisodeMetric(
    "optimal_fraction", "share", "share of the steps on the best arm", optimal_fraction, _BEST
)
BEST_ARM_PULLS = EpisodeMetric(
    "best_arm_pulls", "steps", "number of steps on the best arm", best_arm_pulls, _BEST
)
SUFFIX_FAILURE = EpisodeMetric(
    "suffix_failure",
    "share",
    "share of episodes that never pull the best arm in their second half",
    suffix_failure,
    _BEST,
)
K_MIN_FRACTION = EpisodeMetric(
    "k_min_fraction",
    "share",
    "K times the share of the least pulled arm; near 1 is uniform play",
    k_min_fraction,
    _BEST,
    discrete=True,
)
GREEDY_FRACTION = EpisodeMetric(
    "greedy_fraction",
    "share",
    "share of the steps on an arm of highest empirical mean among those tried",
    greedy_fraction,
    _BEST,
    discrete=True,
    weight=greedy_steps,
)
GREEDY_FRACTION_ALL_TRIED = EpisodeMetric(
    "greedy_fraction_all_tried",
    "share",
    "the same over the steps after every arm was tried",
    lambda episodes: greedy_fraction(episodes, all_tried=True),
    _BEST,
    discrete=True,
    weight=lambda episodes: greedy_steps(episodes, all_tried=True),
)
GREEDY_FRACTION_SOME_UNTRIED = EpisodeMetric(
    "greedy_fraction_some_untried",
    "share",
    "the same over the steps while some arm was untried",
    lambda episodes: greedy_fraction(episodes, all_tried=False),
    _BEST,
    discrete=True,
    weight=lambda episodes: greedy_steps(episodes, all_tried=False),
)
