"""Laws of the action distributions."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from palaestra.policies.distributions import Categorical, DiagonalGaussian, MultiCategorical


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> float:
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("leading", [(5,), (5, 3)])
def test_categorical_is_the_softmax(leading: tuple[int, ...]) -> None:
    logits = normal(*leading, 4)
    distribution, p = Categorical(logits), logits.softmax(-1)
    action = distribution.sample(np.random.default_rng(0))
    assert action.shape == leading
    assert action.dtype == torch.int64
    expected = p.gather(-1, action[..., None])[..., 0].log()
    torch.testing.assert_close(distribution.log_prob(action), expected)
    torch.testing.assert_close(distribution.entropy(), -(p * p.log()).sum(-1))
    assert torch.equal(distribution.mode(), logits.argmax(-1))


def test_categorical_draws_with_its_probabilities() -> None:
    p = torch.tensor([0.05, 0.4, 0.0, 0.25, 0.3])
    mask = torch.tensor([True, True, False, True, True])
    distribution = Categorical(p.log().expand(20_000, 5), mask.expand(20_000, 5))
    counts = np.bincount(distribution.sample(np.random.default_rng(0)), minlength=5)
    assert counts[2] == 0
    # 16.27 is the 0.999 quantile of chi-square with 3 degrees of freedom.
    assert chi_square(counts[[0, 1, 3, 4]], p[[0, 1, 3, 4]].numpy()) < 16.27


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_actions_have_probability_zero_and_are_never_drawn(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 10 * torch.randn(3000, 7, dtype=dtype, generator=generator)
    mask = torch.rand(3000, 7, generator=generator) < 0.4
    mask[torch.arange(3000), torch.randint(7, (3000,), generator=generator)] = True
    distribution = Categorical(logits, mask)
    assert not distribution.log_probs.exp()[~mask].any()
    rows = torch.arange(3000)
    assert mask[rows, distribution.sample(np.random.default_rng(0))].all()
    assert mask[rows, distribution.mode()].all()


def test_extreme_uniforms_stay_on_legal_actions() -> None:
    class Edge:
        def __init__(self, value: float) -> None:
            self.value = value

        def random(self, size: tuple[int, ...], dtype: type) -> np.ndarray:
            return np.full(size, self.value, dtype)

    logits = torch.randn(1000, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([False, True, False, True, True, False]).expand(1000, 6)
    distribution = Categorical(logits, mask)
    largest = float(np.nextafter(np.float32(1), np.float32(0)))
    assert (distribution.sample(Edge(0.0)) == 1).all()  # type: ignore[arg-type]
    assert (distribution.sample(Edge(largest)) == 4).all()  # type: ignore[arg-type]


def test_masked_entropy_and_gradients_are_those_of_the_legal_actions() -> None:
    logits = normal(4, 6).requires_grad_()
    mask = torch.tensor([1, 0, 1, 1, 0, 0], dtype=torch.bool).expand(4, 6)
    masked, small = Categorical(logits, mask), Categorical(logits[:, [0, 2, 3]])
    torch.testing.assert_close(masked.entropy(), small.entropy())
    action = torch.tensor([0, 2, 3, 0])
    loss = masked.log_prob(action) + masked.entropy()
    small_loss = small.log_prob(torch.tensor([0, 1, 2, 0])) + small.entropy()
    torch.testing.assert_close(loss, small_loss)
    (ours,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
    (theirs,) = torch.autograd.grad(small_loss.sum(), logits)
    torch.testing.assert_close(ours, theirs)
    assert not ours[~mask].any()


def test_one_legal_action_is_certain() -> None:
    distribution = Categorical(normal(3, 4), torch.eye(4, dtype=torch.bool)[:3])
    assert distribution.sample(np.random.default_rng(0)).tolist() == [0, 1, 2]
    assert not distribution.entropy().any()
    assert not distribution.log_prob(torch.tensor([0, 1, 2])).any()


def test_a_row_without_legal_actions_stays_finite() -> None:
    logits = normal(2, 4).requires_grad_()
    distribution = Categorical(logits, torch.zeros(2, 4, dtype=torch.bool))
    torch.testing.assert_close(distribution.entropy(), torch.full((2,), math.log(4)).double())
    (gradient,) = torch.autograd.grad(distribution.entropy().sum(), logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("leading", [(5,), (5, 3)])
def test_multi_categorical_is_the_product_of_its_parts(leading: tuple[int, ...]) -> None:
    logits = normal(*leading, 9)
    joint, sizes = MultiCategorical(logits, [2, 4, 3]), [2, 4, 3]
    parts = [Categorical(part) for part in logits.split(sizes, -1)]
    action = joint.sample(np.random.default_rng(0))
    assert action.shape == (*leading, 3)
    log_prob = sum(part.log_prob(action[..., i]) for i, part in enumerate(parts))
    torch.testing.assert_close(joint.log_prob(action), log_prob)
    torch.testing.assert_close(joint.entropy(), sum(part.entropy() for part in parts))
    assert torch.equal(joint.mode(), torch.stack([part.mode() for part in parts], -1))


@pytest.mark.parametrize("shape", [(3,), (2, 2), ()])
def test_gaussian_density_and_entropy_are_the_closed_forms(shape: tuple[int, ...]) -> None:
    mean, log_std, action = normal(5, *shape), normal(*shape, seed=1), normal(5, *shape, seed=2)
    distribution = DiagonalGaussian(mean, log_std)
    std = log_std.exp()
    density = ((-0.5 * ((action - mean) / std) ** 2).exp() / (std * math.sqrt(2 * math.pi))).log()
    torch.testing.assert_close(distribution.log_prob(action), density.reshape(5, -1).sum(-1))
    entropy = 0.5 * (2 * math.pi * math.e * std**2).log().sum()
    torch.testing.assert_close(distribution.entropy(), entropy.expand(5))
    assert distribution.mode() is mean


def test_gaussian_draws_with_its_mean_and_deviation() -> None:
    n, mean, log_std = 20_000, torch.tensor([1.0, -2.0]), torch.tensor([0.5, -1.0])
    draws = DiagonalGaussian(mean.expand(n, 2), log_std).sample(np.random.default_rng(0))
    std = log_std.exp()
    # Four standard errors of a mean and of a standard deviation.
    assert ((draws.mean(0) - mean).abs() < 4 * std / math.sqrt(n)).all()
    assert ((draws.std(0) - std).abs() < 4 * std / math.sqrt(2 * n)).all()


def test_the_given_generator_alone_decides() -> None:
    for distribution in (
        Categorical(normal(50, 9)),
        MultiCategorical(normal(50, 9), [4, 5]),
        DiagonalGaussian(normal(50, 3), normal(3)),
    ):
        torch.manual_seed(0)
        one = distribution.sample(np.random.default_rng(3))
        torch.manual_seed(1)
        assert torch.equal(one, distribution.sample(np.random.default_rng(3)))
        assert not torch.equal(one, distribution.sample(np.random.default_rng(4)))
