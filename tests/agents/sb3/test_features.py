"""PolicyFeatures: the policy's own hidden output, inside Stable-Baselines3."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import Tensor, nn

import palaestra.policies as policies
from palaestra.agents.sb3.features import PolicyFeatures, extractor_kwargs
from palaestra.envs.wrappers.history import HistoryObservation
from palaestra.errors import UserError
from palaestra.options import Options
from palaestra.policies.mlp import MLP
from palaestra.policies.sequence import SequenceConfig, SequencePolicy
from palaestra.registry import Entry, registry

ACTIONS = spaces.Discrete(3)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("mlp", {"hidden_sizes": (16, 8)}),
    ("gru", {"hidden_size": 16, "num_layers": 2}),
    ("attention", {"width": 16, "heads": 2, "context": 4}),
    ("attention", {"width": 16, "heads": 2, "layers": 1, "context": 64}),
]
MEMORIES = [case for case in CASES if case[0] != "mlp"]


class Recall(gymnasium.Env[np.ndarray, int]):
    """A cue at the first of T steps, noise at the others; repeating it at the last one pays 1."""

    action_space = ACTIONS
    observation_space = spaces.Box(-1, 1, (4,))

    def __init__(self, T: int = 4) -> None:
        self.T = T

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.t, self.cue = 0, int(self.np_random.integers(3))
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        over = self.t == self.T - 1
        reward = float(over and int(action) == self.cue)
        self.t += 1
        return self._observation(), reward, over, False, {}

    def _observation(self) -> np.ndarray:
        x = np.zeros(4, np.float32)
        x[:3] = np.eye(3)[self.cue] if self.t == 0 else self.np_random.uniform(-1, 1, 3)
        x[3] = min(self.t / self.T, 1)
        return x


def tensors(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: tensors([o[key] for o in observations]) for key in observations[0]}
    return torch.as_tensor(np.stack(observations))


def batched(observations: list[Any], space: spaces.Space) -> Any:
    """Observations as Stable-Baselines3 hands them to an extractor, in double precision."""
    return double(preprocess_obs(tensors(observations), space))


def double(observation: Any) -> Any:
    if isinstance(observation, dict):
        return {key: value.double() for key, value in observation.items()}
    return observation.double()


def pair(
    name: str, options: dict[str, Any], seen: spaces.Space, bare: spaces.Space
) -> tuple[PolicyFeatures, SequencePolicy]:
    """The extractor and the whole policy with the same weights, in double precision."""
    torch.manual_seed(0)
    features = PolicyFeatures(seen, name, **options).double()
    policy = policies.make(name, bare, ACTIONS, seed=1, separate_critic=False, **options).double()
    assert isinstance(policy, SequencePolicy)
    missing, heads = features.load_state_dict(policy.state_dict(), strict=False)
    assert not missing
    assert all(path.startswith(("action_head.", "value_head.")) for path in heads)
    return features, policy


def episodes(env: gymnasium.Env, count: int) -> Iterator[tuple[Any, bool]]:
    """Every observation of `count` episodes and whether it is the first of its episode."""
    for seed in range(count):
        observation, _ = env.reset(seed=seed)
        yield observation, True
        over = False
        while not over:
            observation, _, over, _, _ = env.step(0)
            yield observation, False


@torch.no_grad()
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_history_gives_what_the_policy_computes_step_by_step(
    name: str, options: dict[str, Any]
) -> None:
    env = HistoryObservation(Recall(T=5), 6)
    features, policy = pair(name, options, env.observation_space, Recall.observation_space)
    stepped = policy.backbone.initial_state(1)
    for observation, first in episodes(env, 4):
        x = torch.as_tensor(observation["history"][-1:]).double()
        y, stepped = policy.backbone.step(policy.encoder(x), stepped, torch.tensor([first]))
        ours = features(batched([observation], env.observation_space))
        torch.testing.assert_close(ours, y, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_window_that_starts_later_is_read_from_the_empty_state(
    name: str, options: dict[str, Any]
) -> None:
    env = HistoryObservation(Recall(T=9), 4)
    features, policy = pair(name, options, env.observation_space, Recall.observation_space)
    for observation, _ in episodes(env, 2):
        begin = int(observation["first"].argmax())
        x = policy.encoder(torch.as_tensor(observation["history"])[None, begin:].double())
        state, none = policy.backbone.initial_state(1), torch.zeros(x.shape[:2], dtype=torch.bool)
        y, _ = policy.backbone(x, state, none)
        ours = features(batched([observation], env.observation_space))
        torch.testing.assert_close(ours, y[:, -1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_what_precedes_the_episode_has_no_influence_and_no_gradient(
    name: str, options: dict[str, Any]
) -> None:
    T = 6
    space = HistoryObservation(Recall(), T).observation_space
    torch.manual_seed(0)
    features = PolicyFeatures(space, name, **options)
    first = torch.eye(T)
    history, other = torch.randn(2, T, T, 4).unbind(0)
    padding = (torch.arange(T) < torch.arange(T)[:, None])[..., None]
    other = torch.where(padding, 1e3 * other, history).requires_grad_()
    one = features({"history": history, "first": first})
    two = features({"history": other, "first": first})
    assert torch.equal(one, two)
    two.square().sum().backward()
    assert other.grad is not None
    assert not other.grad[padding.expand_as(other)].any()
    assert other.grad[:, -1].any(-1).all()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradients_reach_every_parameter(name: str, options: dict[str, Any]) -> None:
    space = HistoryObservation(Recall(), 4).observation_space
    torch.manual_seed(0)
    features = PolicyFeatures(space, name, **options)
    first = torch.zeros(8, 4)
    first[:4, 0] = 1
    y = features({"history": torch.randn(8, 4, 4), "first": first})
    assert y.shape == (8, features.features_dim)
    # A projection, so that no direction is left out.
    (y @ torch.randn(features.features_dim)).sum().backward()
    for parameter_name, parameter in features.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.any(), parameter_name


@torch.no_grad()
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-2, 2, (3,)),
        spaces.Box(-2, 2, (3, 2)),
        spaces.Discrete(5),
        spaces.MultiDiscrete([2, 3, 4]),
        spaces.MultiBinary(4),
        spaces.Box(0, 255, (40, 44, 3), np.uint8),
        spaces.Dict(
            z=spaces.Box(-1, 1, (2,)),
            image=spaces.Box(0, 255, (3, 36, 36), np.uint8),
            a=spaces.Discrete(3),
        ),
    ],
    ids=str,
)
def test_without_history_features_equal_the_policys_for_every_space(space: spaces.Space) -> None:
    features, policy = pair("mlp", {}, space, space)
    space.seed(0)
    observations = [space.sample() for _ in range(6)]
    none = torch.zeros(6, dtype=torch.bool)
    x = policy.encoder(tensors(observations)).double()
    y, _ = policy.backbone.step(x, policy.backbone.initial_state(6), none)
    ours = features(batched(observations, space))
    assert torch.equal(ours, y)


@torch.no_grad()
def test_a_history_of_images_is_read_by_the_convolutions() -> None:
    frame = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    space = spaces.Dict(
        history=spaces.Box(0, 255, (2, 3, 36, 36), np.uint8), first=spaces.MultiBinary(2)
    )
    features, policy = pair("gru", {"hidden_size": 8}, space, frame)
    space.seed(0)
    observation = space.sample() | {"first": np.array([1, 0], np.int8)}
    x = policy.encoder(torch.as_tensor(observation["history"])[None])
    y, _ = policy.backbone(x, policy.backbone.initial_state(1), torch.tensor([[True, False]]))
    ours = features(batched([observation], space))
    assert torch.equal(ours, y[:, -1])


def recall_model(name: str = "gru", seed: int = 0, **options: Any) -> PPO:
    env = DummyVecEnv([lambda: HistoryObservation(Recall(), 4)] * 8)
    kwargs = extractor_kwargs(name, options) | {"net_arch": []}
    return PPO(
        "MultiInputPolicy",
        env,
        n_steps=32,
        batch_size=128,
        n_epochs=4,
        learning_rate=5e-3,
        policy_kwargs=kwargs,
        seed=seed,
        device="cpu",
    )


def weights(model: Any) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.policy.state_dict().items()}


def assert_equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_ppo_trains_with_it_and_a_seed_decides_everything(
    name: str, options: dict[str, Any]
) -> None:
    model = recall_model(name, 5, **options)
    start = weights(model)
    end = weights(model.learn(2 * 32 * 8))
    assert any(
        not torch.equal(end[key], start[key]) for key in start if key.startswith("features_extr")
    )
    # One after the other: the algorithms share torch's global generator.
    again = recall_model(name, 5, **options)
    assert_equal(weights(again), start)
    assert_equal(weights(again.learn(2 * 32 * 8)), end)
    other = weights(recall_model(name, 6, **options))
    key = next(key for key in start if key.startswith("features_extractor.backbone."))
    assert not torch.equal(other[key], start[key])


def test_ppo_trains_on_single_observations_with_the_perceptron() -> None:
    kwargs = extractor_kwargs("mlp", {"hidden_sizes": [16]}) | {"share_features_extractor": False}
    model = PPO(
        "MlpPolicy", "CartPole-v1", n_steps=64, seed=0, device="cpu", policy_kwargs=kwargs
    ).learn(128)
    assert model.policy.pi_features_extractor is not model.policy.vf_features_extractor


def test_dqn_trains_with_it_from_a_replay_buffer() -> None:
    model = DQN(
        "MultiInputPolicy",
        HistoryObservation(Recall(), 4),
        policy_kwargs=extractor_kwargs("gru", {"hidden_size": 8}),
        learning_starts=16,
        buffer_size=100,
        seed=0,
        device="cpu",
    )
    start = weights(model)
    end = weights(model.learn(64))
    key = "q_net.features_extractor.backbone.layers.0.w_hh"
    assert not torch.equal(end[key], start[key])


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_saved_model_is_loaded_with_its_features(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = recall_model(name, **options)
    model.learn(256)
    model.save(tmp_path / "model")
    loaded = PPO.load(tmp_path / "model", device="cpu")
    assert_equal(weights(model), weights(loaded))
    observation = model.env.reset()
    one, two = (m.predict(observation, deterministic=True)[0] for m in (model, loaded))
    assert (one == two).all()


def test_initial_weights_are_the_policys_own() -> None:
    model = recall_model("attention", width=16, heads=2)
    linear = model.policy.features_extractor.backbone.blocks[0].mlp.gate_up
    gram = linear.weight.T @ linear.weight
    assert not torch.allclose(gram, 2 * torch.eye(16), atol=1e-3)
    # Stable-Baselines3's rule holds for its own heads, and others may apply what they like.
    assert model.policy.action_net.weight.norm() < 0.1
    model.policy.apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.Linear) else None)
    assert not linear.weight.any()


@pytest.mark.filterwarnings("ignore:Your observation history has an unconventional shape")
def test_stable_baselines_accepts_the_history_environment() -> None:
    check_env(HistoryObservation(Recall(), 4))


def success(act: Callable[[Any], int], count: int = 200) -> float:
    env, wins = HistoryObservation(Recall(), 4), 0.0
    for seed in range(count):
        observation, _ = env.reset(seed=10_000 + seed)
        over = False
        while not over:
            observation, reward, over, _, _ = env.step(act(observation))
            wins += reward
    return wins / count


def test_a_recurrent_backbone_recalls_what_the_last_observation_does_not_tell() -> None:
    model = recall_model("gru", hidden_size=16)
    model.learn(24 * 256)
    score = success(lambda x: int(model.predict(x, deterministic=True)[0]))
    assert score > 0.9  # chance is 1 / 3
    # The perceptron reads the last step alone: the cue cannot reach its action.
    space = model.observation_space
    blind = PolicyFeatures(space, "mlp")
    history = torch.randn(3, 4, 4)
    history[1:, -1], first = history[0, -1], torch.eye(4)[[0, 0, 0]]
    assert (blind({"history": history, "first": first}).diff(dim=0) == 0).all()


class NoBackbone(policies.Policy):  # type: ignore[misc,name-defined]
    """A policy that is not made of encoder and backbone."""

    Config = Options


class Plugged(SequencePolicy):
    """A plug-in with a backbone of its own."""

    class Config(SequenceConfig):
        """Options of the plug-in."""

        width: int = 7

    def make_backbone(self, in_features: int) -> MLP:
        return MLP(in_features, (self.config.width,), "relu")


@pytest.fixture
def plug_ins() -> Iterator[None]:
    names = {"plugged": Plugged, "no-backbone": NoBackbone}
    for name, cls in names.items():
        registry.add(Entry("policy", name, cls, "a test"))
    yield
    for name in names:
        del registry._entries["policy"][name]


@pytest.mark.usefixtures("plug_ins")
def test_a_plug_in_with_a_backbone_works_by_its_name() -> None:
    features = PolicyFeatures(spaces.Box(-1, 1, (3,)), **{"name": "plugged", "width": 5})
    assert features(torch.zeros(2, 3)).shape == (2, 5)


@pytest.mark.usefixtures("plug_ins")
def test_a_policy_without_a_backbone_is_refused() -> None:
    with pytest.raises(UserError, match=r"'no-backbone'.*SequencePolicy"):
        extractor_kwargs("no-backbone", {})


def test_kwargs_hold_the_name_and_the_options_alone() -> None:
    assert extractor_kwargs("gru", {"hidden_size": 32}) == {
        "features_extractor_class": PolicyFeatures,
        "features_extractor_kwargs": {"name": "gru", "hidden_size": 32},
    }
    assert extractor_kwargs("mlp", {})["features_extractor_kwargs"] == {"name": "mlp"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gruu", {}, "did you mean 'gru'"),
        ("gru", {"hidden": 32}, r"features\.hidden: unknown key; did you mean 'hidden_size'"),
        ("gru", {"hidden_size": 0}, r"features\.hidden_size: 0 is not accepted"),
        ("mlp", {"separate_critic": True}, r"features\.separate_critic.*share_features_extractor"),
    ],
)
def test_bad_names_and_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        extractor_kwargs(name, options)
    with pytest.raises(UserError, match=message):
        PolicyFeatures(spaces.Box(-1, 1, (3,)), name, **options)


@pytest.mark.parametrize(("name", "options"), MEMORIES)
def test_memory_without_a_history_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="HistoryObservation"):
        PolicyFeatures(spaces.Box(-1, 1, (3,)), name, **options)
