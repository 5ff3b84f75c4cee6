"""PPO's learner around its rule: optimiser, schedules, device, precision, probe, bad numbers."""

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import palaestra.envs  # noqa: F401  (registers them)
from palaestra.agents.base import build
from palaestra.agents.ppo import PPO, PPOConfig
from palaestra.agents.setup import Setup
from palaestra.envs import make_vec
from palaestra.errors import NotFiniteError, UserError
from palaestra.experience.fragment import Fragment
from palaestra.options import validate
from palaestra.policies import PolicySpec
from palaestra.runs.rollouts.collector import Collector

POLICIES = {"mlp": {"hidden_sizes": [16]}, "gru": {"hidden_size": 16}}


def agent_of(policy: str = "mlp", device: str = "cpu", **options: Any) -> PPO:
    spec = PolicySpec(policy, POLICIES[policy])
    env = gymnasium.make("CartPole-v1")
    setup = Setup(env.observation_space, env.action_space, spec, 1, 8192, device)
    agent = build("ppo", setup, {"num_epochs": 2, "minibatch_size": 32} | options)
    assert isinstance(agent, PPO)
    return agent


def played(agent: PPO, steps: int = 16) -> Fragment:
    envs = make_vec("CartPole-v1", 4)
    return Collector(envs, agent.make_actor(), np.random.default_rng(0), [0, 1, 2, 3]).collect(
        steps
    )[0]


def learned(agent: PPO, updates: int = 3) -> dict[str, np.ndarray]:
    learner, fragment = agent.make_learner(), played(agent)
    for _ in range(updates):
        learner.update([fragment])
    return learner.weights()


def test_the_epsilon_of_old_configurations_moves_to_the_optimizer() -> None:
    old = validate(PPOConfig, {"adam_eps": 1e-3})
    assert old == validate(PPOConfig, {"optimizer": {"name": "adam", "eps": 1e-3}})
    with pytest.raises(UserError, match=r"adam_eps is now optimizer\.eps"):
        validate(PPOConfig, {"adam_eps": 1e-3, "optimizer": {"name": "adam"}})


def test_a_resolved_configuration_reads_back_to_itself() -> None:
    given = {"optimizer": {"name": "sgd", "momentum": 0.9}, "entropy_schedule": "linear"}
    stored = validate(PPOConfig, given).model_dump(mode="json")
    assert stored["entropy_schedule"] == "linear"
    assert validate(PPOConfig, stored).model_dump(mode="json") == stored


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
def test_it_learns_with_every_optimizer(name: str) -> None:
    agent = agent_of(optimizer={"name": name}, learning_rate=1e-2)
    learner, fragment = agent.make_learner(), played(agent, 64)
    losses = [learner.update([fragment])["train/value_loss"] for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_step_size_follows_its_schedule() -> None:
    agent = agent_of(
        learning_rate=0.5,
        learning_rate_schedule={"name": "cosine", "warmup": 128, "final": 0.5},
        max_grad_norm=1e-6,
    )
    learner, fragment = agent.make_learner(), played(agent)
    rates = [learner.update([fragment])["train/learning_rate"] for _ in range(3)]
    assert rates == [0.0, 0.25, 0.5]
    learner.agent_steps = 8192
    assert learner.update([fragment])["train/learning_rate"] == 0.25


def test_bfloat16_learns_while_weights_and_moments_stay_float32() -> None:
    agent = agent_of(precision="bfloat16", learning_rate=1e-2)
    learner, fragment = agent.make_learner(), played(agent, 64)
    losses = [learner.update([fragment])["train/value_loss"] for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0]
    assert {w.dtype for w in learner.weights().values()} == {np.dtype(np.float32)}
    moments = learner.state_dict()["optimizer"]["exp_avg"].values()
    assert {m.dtype for m in moments} == {torch.float32}


def test_bfloat16_is_what_the_layers_compute_with() -> None:
    seen = set()
    learner = agent_of(precision="bfloat16").make_learner()
    probe = learner.probe()
    for module in probe.networks["policy"].modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda m, x, y: seen.add(y.dtype))
    probe.read(played(agent_of()))
    assert seen == {torch.bfloat16}


def test_compilation_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"agent\.compile: true needs .* 'no-such-compiler' is not"):
        agent_of(compile=True).make_learner()


@pytest.mark.slow
def test_a_compiled_learner_takes_the_same_steps() -> None:
    ours, plain = learned(agent_of(compile=True)), learned(agent_of())
    for name, weight in plain.items():
        # Sums in another order: a few units in the last place of a float32, through 12 steps.
        np.testing.assert_allclose(ours[name], weight, rtol=1e-3, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("policy", POLICIES)
def test_looking_ahead_gives_the_values_of_acting_and_draws_nothing(policy: str) -> None:
    actor = agent_of(policy).make_actor()
    observation, reset = np.random.default_rng(0).normal(size=(5, 4)), np.zeros(5, bool)
    state = actor.initial_state(5)
    before = {path: x.clone() for path, x in state.tensors().items()}
    x = observation.astype(np.float32)
    _, _, extras = actor.act(x, state, reset, np.random.default_rng(0), "sample")
    found = actor.look_ahead(x, state, reset)
    assert set(found) == {"value"}
    np.testing.assert_array_equal(found["value"], extras["value"])
    for path, tensor in state.tensors().items():
        assert torch.equal(tensor, before[path])


@pytest.mark.parametrize("policy", POLICIES)
def test_a_probe_reads_as_an_update_does_and_changes_nothing(policy: str) -> None:
    agent = agent_of(policy)
    learner, fragment = agent.make_learner(), played(agent)
    before = learner.state_dict()
    probe = learner.probe()
    values: list[torch.Tensor] = []
    probe.networks["policy"].value_head.register_forward_hook(  # type: ignore[union-attr]
        lambda module, x, y: values.append(y.detach())
    )
    probe.read(fragment)
    acted = torch.from_numpy(fragment.extras["value"])
    shown = values[0].t() if policy == "gru" else values[0].view(acted.shape)
    torch.testing.assert_close(shown, acted, rtol=0, atol=1e-5)
    assert not values[0].requires_grad
    after = learner.state_dict()
    assert after["rng"] == before["rng"]
    for name, weight in before["policy"].items():
        np.testing.assert_array_equal(weight, after["policy"][name])
    assert probe.optimizer is learner.optimizer


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("where", ["reward", "observation"])
def test_numbers_that_are_not_finite_leave_the_weights_as_they_were(
    policy: str, bad: float, where: str
) -> None:
    if (where, bad) == ("observation", 1e30):
        pytest.skip("a saturated unit is finite")
    agent = agent_of(policy, minibatch_size=64)
    learner, fragment = agent.make_learner(), played(agent)
    learner.update([fragment])
    before = learner.weights()
    getattr(fragment, where)[3, 1] = bad
    with pytest.raises(NotFiniteError, match=r"update 2: train/.*the weights are the last finite"):
        learner.update([fragment])
    for name, weight in learner.weights().items():
        np.testing.assert_array_equal(weight, before[name], err_msg=name)


def test_one_bad_minibatch_does_not_poison_the_steps_of_the_others() -> None:
    agent = agent_of(minibatch_size=8, normalize_advantage=False, gae_lambda=0.0)
    learner, fragment = agent.make_learner(), played(agent)
    before = learner.weights()
    fragment.reward[3, 1] = np.nan
    with pytest.raises(NotFiniteError, match=r"train/grad_norm is nan"):
        learner.update([fragment])
    after = learner.weights()
    assert all(np.isfinite(weight).all() for weight in after.values())
    assert any((after[name] != weight).any() for name, weight in before.items())


def test_the_metrics_of_an_update_of_one_step_are_finite() -> None:
    agent = agent_of()
    envs = make_vec("CartPole-v1", 1)
    collector = Collector(envs, agent.make_actor(), np.random.default_rng(0), [0])
    metrics = agent.make_learner().update([collector.collect(1)[0]])
    assert all(np.isfinite(value) for value in metrics.values())


def test_explained_variance_counts_valid_steps_alone() -> None:
    agent = agent_of("gru")
    learner = agent.make_learner()
    batch = learner._batch([played(agent)])
    valid = torch.ones(16, 4, dtype=torch.bool)
    valid[3, 2] = valid[5, 0] = False
    batch = replace(batch, valid=valid)
    expected = learner._summarize([{}], batch)["train/explained_variance"]
    batch.advantage[3, 2] = 1e6
    batch.target[5, 0] = -1e6
    assert learner._summarize([{}], batch)["train/explained_variance"] == expected
    advantage, target = batch.advantage[valid].numpy(), batch.target[valid].numpy()
    assert expected == pytest.approx(1 - advantage.var() / target.var(), rel=1e-4)


def test_the_learner_lives_on_the_device_of_its_setup() -> None:
    """The meta device holds no numbers: what is not sent there fails."""
    agent = agent_of(device="meta")
    learner = agent.make_learner()
    assert {p.device.type for p in learner.policy.parameters()} == {"meta"}
    batch = learner._batch([played(agent)])  # acted on the CPU
    loss, _ = learner._loss(batch, 0.01)
    loss.backward()
    learner.optimizer.step(1e-3, 0.5)
    assert loss.device.type == "meta"
