"""Every preset has the prior, noise and gap of its source, and play on it costs what it must."""

import math
from typing import Any

import numpy as np
import pytest

from palaestra.envs import BANDIT_PRESETS, make_vec, noise
from palaestra.envs.bandits.families import BernoulliFamily, Family, GaussianFamily
from palaestra.errors import UserError

FAMILIES: dict[str, type[Family]] = {"gaussian": GaussianFamily, "bernoulli": BernoulliFamily}
IDS = {"gaussian": "palaestra/GaussianBandit-v0", "bernoulli": "palaestra/BernoulliBandit-v0"}
MAX_OF_NORMALS = {5: 1.16298, 10: 1.53879, 20: 1.86754}

every_preset = pytest.mark.parametrize("preset", BANDIT_PRESETS)


def family_of(preset: str, **options: Any) -> Family:
    return FAMILIES[BANDIT_PRESETS[preset]["family"]].from_options({"preset": preset, **options})


def means_of(family: Family, count: int) -> np.ndarray:
    return family.means(noise.instance_keys(np.zeros(count, np.int64), np.arange(count)))


@every_preset
def test_the_name_of_a_preset_gives_its_task(preset: str) -> None:
    family = family_of(preset)
    for option, value in BANDIT_PRESETS[preset].items():
        if option != "family":
            assert getattr(family, option) == value


def test_the_sources_presets_are_all_there() -> None:
    levels = ("low", "medium", "high")
    names = {
        f"paper-{kind}-{level}" for kind in ("text", "figure", "bernoulli") for level in levels
    }
    names |= {"paper-bernoulli", "banditbench-gaussian-low", "banditbench-gaussian-high"}
    names |= {
        f"{s}-{level}"
        for s in ("banditbench-bernoulli", "krishnamurthy")
        for level in ("easy", "hard")
    }
    assert set(BANDIT_PRESETS) == names


@every_preset
def test_explicit_options_override_a_preset(preset: str) -> None:
    family = family_of(preset, K=7, T=11)
    assert (family.K, family.T, family.preset) == (7, 11, preset)


@pytest.mark.parametrize("K", [5, 10, 20])
@every_preset
def test_uniform_play_costs_its_exact_regret(preset: str, K: int) -> None:
    family = family_of(preset, K=K, T=50)
    N, T = 20_000, 50
    if isinstance(family, BernoulliFamily):
        exact = T * family.gap * (K - 1) / K
    elif isinstance(family, GaussianFamily) and family.mean_prior == "uniform01":
        exact = T * family.prior_scale * (K / (K + 1) - 1 / 2)
    else:
        exact = T * family.prior_scale * MAX_OF_NORMALS[K]  # type: ignore[attr-defined]
    means = means_of(family, N)
    regret = T * (means.max(axis=1) - means.mean(axis=1))
    # The constants have six digits.
    assert abs(regret.mean() - exact) <= 4 * regret.std() / math.sqrt(N) + 1e-5 * exact


@pytest.mark.parametrize("K", [5, 20])
def test_the_best_bernoulli_arm_is_equally_often_in_each_place(K: int) -> None:
    N = 20_000
    means = means_of(family_of("banditbench-bernoulli-hard", K=K), N)
    assert set(np.unique(means).round(12)) == {0.4, 0.6}
    assert ((means > 0.5).sum(axis=1) == 1).all()
    counts = np.bincount(means.argmax(axis=1), minlength=K)
    assert np.abs(counts - N / K).max() < 4.5 * math.sqrt(N / K)


def ucb_regret(env_id: str, N: int, **options: Any) -> np.ndarray:
    """Return the regrets of mean + sqrt(1/n), untried arms first in order."""
    envs = make_vec(env_id, N, observation="summary", **options)
    x, infos = envs.reset(seed=0)
    K, T = envs.single_action_space.n, 50
    total = np.zeros(N)
    for _ in range(T):
        n = x[:, :K].astype(np.float64) * T
        with np.errstate(divide="ignore"):
            bound = np.where(n < 0.5, np.inf, x[:, K : 2 * K] + np.sqrt(1 / n))
        x, _, done, _, infos = envs.step(bound.argmax(axis=1))
        total += (infos["final_info"] if done.all() else infos)["regret"]
    return total


@pytest.mark.parametrize(
    ("preset", "K", "published"),
    [
        ("paper-text-low", 5, 4.98),
        ("paper-text-medium", 10, 13.26),
        ("paper-figure-medium", 5, 11.55),
        ("paper-bernoulli-high", 20, 9.15),
        ("paper-bernoulli-low", 5, 6.99),
    ],
)
def test_ucb_has_its_reference_regret(preset: str, K: int, published: float) -> None:
    N = 40_000
    regret = ucb_regret(IDS[BANDIT_PRESETS[preset]["family"]], N, preset=preset, K=K)
    # Both sides come from 40,000 instances, and the published one is rounded to 0.01.
    assert abs(regret.mean() - published) < 4 * regret.std() * math.sqrt(2 / N) + 0.005


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"preset": "paper-txt-low"}, "paper-text-low"),
        ({"preset": "krishnamurthy-easy"}, "preset"),
        ({"K": 1}, "K"),
        ({"T": 0}, "T"),
        ({"sigma": -1.0}, "sigma"),
        ({"mean_prior": "cauchy"}, "mean_prior"),
        ({"tape": "none"}, "tape"),
        ({"sigm": 1.0}, "sigma"),
    ],
)
def test_an_option_that_is_not_accepted_is_named(options: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=name):
        GaussianFamily.from_options(options)


def test_rewards_stay_within_their_range() -> None:
    for preset in BANDIT_PRESETS:
        family = family_of(preset)
        keys = noise.instance_keys(np.arange(2000), np.zeros(2000, np.int64))
        rewards = family.rewards(family.means(keys), noise.bits(keys, np.uint64(9))[:, None])
        low, high = family.reward_range
        assert low <= rewards.min()
        assert rewards.max() <= high
