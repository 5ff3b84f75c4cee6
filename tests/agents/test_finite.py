"""A loss that is not finite is an error that says where."""

import pytest

from palaestra.agents.finite import check_finite
from palaestra.errors import NotFiniteError, RunError


def test_finite_losses_pass_whatever_else_is_not() -> None:
    check_finite({"train/value_loss": 1e30, "train/explained_variance": float("nan")}, 1, "")


@pytest.mark.parametrize("name", ["train/loss", "train/policy_loss", "train/grad_norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_error_names_metric_update_and_weights(name: str, value: float) -> None:
    with pytest.raises(NotFiniteError, match=rf"update 7: {name} is {value}; the weights are old"):
        check_finite({name: value, "train/value_loss": 1.0}, 7, "the weights are old")
    assert issubclass(NotFiniteError, RunError)
