"""Which spaces are read and acted in, how, and which are refused by name."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import Space, spaces

from palaestra.errors import UserError
from palaestra.policies.distributions import Categorical, DiagonalGaussian, MultiCategorical
from palaestra.policies.encoders import NatureCNN, make_encoder
from palaestra.policies.heads import ValueHead, make_action_head


def test_discrete_observations_become_one_hot_vectors() -> None:
    encoder = make_encoder(spaces.Discrete(4, start=2))
    assert encoder(torch.tensor([2, 5])).int().tolist() == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert encoder(torch.full((3, 5), 4)).shape == (3, 5, encoder.out_features)


def test_multi_discrete_observations_become_one_hot_vectors_side_by_side() -> None:
    encoder = make_encoder(spaces.MultiDiscrete([2, 3]))
    assert encoder(torch.tensor([[1, 0]])).int().tolist() == [[0, 1, 1, 0, 0]]
    square = make_encoder(spaces.MultiDiscrete([[2, 3], [3, 2]]))
    assert square.out_features == 10
    assert square(torch.zeros(4, 5, 2, 2, dtype=torch.int8)).shape == (4, 5, 10)


def test_boxes_are_flattened_in_order() -> None:
    encoder = make_encoder(spaces.Box(-1, 1, (2, 3)))
    assert encoder(torch.arange(12).view(2, 2, 3)).tolist() == [[0, 1, 2, 3, 4, 5], [*range(6, 12)]]
    assert make_encoder(spaces.Box(-1, 1, ())).out_features == 1


def test_a_dict_is_concatenated_without_its_action_mask() -> None:
    space = spaces.Dict(
        place=spaces.Discrete(3), action_mask=spaces.MultiBinary(4), flags=spaces.MultiBinary(2)
    )
    encoder = make_encoder(space)
    observation = {
        "place": torch.tensor([2]),
        "action_mask": torch.ones(1, 4),
        "flags": torch.tensor([[1, 0]], dtype=torch.int8),
    }
    expected = {"flags": [1, 0], "place": [0, 0, 1]}
    in_order = [x for key in space if key in expected for x in expected[key]]
    assert encoder(observation).int().tolist() == [in_order]
    assert encoder.out_features == 5


@pytest.mark.parametrize("shape", [(4, 84, 84), (84, 84, 4), (36, 50, 3), (1, 36, 36)])
def test_images_are_read_in_both_layouts(shape: tuple[int, ...]) -> None:
    space = spaces.Box(0, 255, shape, np.uint8)
    encoder = make_encoder(space)
    assert isinstance(encoder, NatureCNN)
    images = torch.from_numpy(np.stack([space.sample() for _ in range(6)]))
    features = encoder(images)
    assert features.shape == (6, 512)
    torch.testing.assert_close(encoder(images.view(2, 3, *shape)).view(6, 512), features)


def test_channels_last_is_channels_first_moved() -> None:
    first = NatureCNN(spaces.Box(0, 255, (3, 40, 50), np.uint8))
    last = NatureCNN(spaces.Box(0, 255, (40, 50, 3), np.uint8))
    last.load_state_dict(first.state_dict())
    image = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    torch.testing.assert_close(last(image.movedim(1, 3)), first(image))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0, 255, (35, 84, 3), np.uint8), "35 x 84 pixels are too small.*36 x 36"),
        (spaces.Text(5), "observation_space: Text.* has no encoder; accepted: Box"),
        (spaces.Tuple([spaces.Discrete(2)]), "observation_space: Tuple"),
        (spaces.Dict(action_mask=spaces.MultiBinary(3)), "observation_space: Dict"),
        (spaces.Dict(a=spaces.Dict(b=spaces.Text(3))), "observation_space: Text"),
    ],
)
def test_spaces_without_an_encoder_are_refused_by_name(space: Space[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_encoder(space)


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiBinary(3),
        spaces.Discrete(3, start=1),
        spaces.MultiDiscrete([[2, 2], [2, 2]]),
        spaces.Box(0, 9, (2,), np.int64),
        spaces.Tuple([spaces.Discrete(2)]),
    ],
)
def test_spaces_without_an_action_head_are_refused_by_name(space: Space[Any]) -> None:
    with pytest.raises(
        UserError, match=r"(?s)action_space: .* has no action head; accepted: Discrete"
    ):
        make_action_head(8, space)


def test_a_mask_for_other_than_discrete_actions_is_refused() -> None:
    with pytest.raises(UserError, match=r"action_space: .* takes no action mask; accepted: Discr"):
        make_action_head(8, spaces.MultiDiscrete([2, 2]), masked=True)


@pytest.mark.parametrize(
    ("space", "kind"),
    [
        (spaces.Discrete(3), Categorical),
        (spaces.MultiDiscrete([2, 3]), MultiCategorical),
        (spaces.Box(-1, 1, (2,)), DiagonalGaussian),
        (spaces.Box(-1, 1, (2, 3)), DiagonalGaussian),
    ],
)
def test_every_head_acts_in_its_space(space: Space[Any], kind: type) -> None:
    head = make_action_head(8, space)
    for leading in ((5,), (5, 3)):
        distribution = head(torch.randn(*leading, 8))
        assert isinstance(distribution, kind)
        action = distribution.sample(np.random.default_rng(0))
        assert action.shape == (*leading, *(space.shape or ()))
        assert distribution.log_prob(action).shape == leading
        assert distribution.entropy().shape == leading


def test_heads_start_orthogonal_with_gains_001_and_1() -> None:
    head, value = make_action_head(8, spaces.Discrete(3)), ValueHead(8)
    for layer, gain in ((head.linear, 0.01), (value.linear, 1.0)):
        gram = layer.weight @ layer.weight.T / gain**2
        torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0, atol=1e-6)
        assert not layer.bias.any()


def test_convolutions_start_orthogonal_with_gain_root_two() -> None:
    cnn = NatureCNN(spaces.Box(0, 255, (4, 84, 84), np.uint8))
    weight = cnn.linear.weight
    torch.testing.assert_close(
        weight @ weight.T, math.sqrt(2) ** 2 * torch.eye(512), rtol=0, atol=1e-5
    )


def test_a_time_major_view_gives_the_same_outputs() -> None:
    value = ValueHead(8).double()
    x = torch.randn(5, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(value(x.transpose(0, 1)), value(x.transpose(0, 1).contiguous()))
