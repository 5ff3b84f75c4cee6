"""Options have the names and defaults of the adapted algorithms; wrong ones are refused."""

import inspect
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from sb3_cases import ALGORITHMS, loop_on, space_agent

from palaestra.agents.sb3.agent import _ACTIVATIONS, _load
from palaestra.errors import UserError
from palaestra.options import options_of
from palaestra.registry import registry

BOX = spaces.Box(-1, 1, (3,), np.float32)
TWO = spaces.Discrete(2)
PIXELS = spaces.Box(0, 255, (40, 40, 3), np.uint8)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_defaults_are_those_of_the_algorithm(name: str) -> None:
    agent = registry.get("agent", name)
    algorithm = _load(name, agent.algorithm)
    policy = algorithm.policy_aliases["Mlp" + agent.policy_suffix]
    theirs = {
        parameter.name: parameter.default
        for cls in (policy, algorithm)
        for parameter in inspect.signature(cls).parameters.values()
    }
    theirs["activation_fn"] = {cls: key for key, cls in _ACTIVATIONS.items()}[
        theirs["activation_fn"].__name__
    ]
    ours = {option.name: option.default for option in options_of(agent)}
    added = {"policy_class", "features", "learning_rate_schedule", "clip_range_schedule"}
    assert ours.keys() - added <= theirs.keys()
    assert {key: ours[key] for key in ours.keys() - added} == {
        key: theirs[key] for key in ours.keys() - added
    }
    assert all(option.help for option in options_of(agent))


@pytest.mark.parametrize(
    ("name", "observation", "action", "named"),
    [
        ("sb3/ppo", spaces.Text(3), TWO, "observation space Text"),
        ("sb3/ppo", spaces.Dict({"a": spaces.Dict({"b": BOX})}), TWO, "observation space Dict"),
        ("sb3/ppo", spaces.Discrete(3, start=1), TWO, "observation space Discrete"),
        ("sb3/ppo", BOX, spaces.Box(-np.inf, np.inf, (1,)), "action space Box"),
        ("sb3/ppo", BOX, spaces.Discrete(2, start=1), "action space Discrete"),
        ("sb3/dqn", BOX, BOX, "action space Box"),
        ("sb3/qrdqn", BOX, spaces.MultiDiscrete([2, 2]), "action space MultiDiscrete"),
    ],
)
def test_spaces_that_do_not_fit_are_named(
    name: str, observation: Any, action: Any, named: str
) -> None:
    with pytest.raises(UserError, match=f"{name}: {named}"):
        space_agent(name, observation, action)


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (BOX, "Mlp"),
        (PIXELS, "Cnn"),
        (spaces.Box(0, 255, (10, 10, 4), np.uint8), "Mlp"),  # too small for the convolutions
        (spaces.Box(0, 1, (40, 40, 3), np.float32), "Mlp"),
        (spaces.Dict({"a": BOX}), "MultiInput"),
    ],
)
def test_the_observation_space_decides_the_kind_of_network(observation: Any, expected: str) -> None:
    assert space_agent("sb3/ppo", observation, TWO).policy_name == f"{expected}Policy"
    recurrent = space_agent("sb3/recurrent-ppo", observation, TWO)
    assert recurrent.policy_name == f"{expected}LstmPolicy"


@pytest.mark.parametrize(
    ("observation", "policy"),
    [(BOX, "CnnPolicy"), (BOX, "MultiInputPolicy"), (spaces.Dict({"a": BOX}), "MlpPolicy")],
)
def test_a_network_that_cannot_read_the_observations_is_refused(
    observation: Any, policy: str
) -> None:
    with pytest.raises(UserError, match=r"agent.policy_class"):
        space_agent("sb3/ppo", observation, TWO, policy_class=policy)


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("sb3/ppo", {"batch_size": 1}, "agent.batch_size"),
        ("sb3/dqn", {"train_freq": [1, "episode"]}, "agent.train_freq"),
        ("sb3/dqn", {"train_freq": 0}, "agent.train_freq"),
        ("sb3/recurrent-ppo", {"shared_lstm": True}, "agent.enable_critic_lstm"),
        ("sb3/a2c", {"activation_fn": "sigmoid"}, "agent.activation_fn"),
        ("sb3/a2c", {"learning_rat": 1e-3}, "did you mean"),
    ],
)
def test_options_that_do_not_fit_are_named(name: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        loop_on("CartPole-v1", name, **options)


@pytest.mark.parametrize("name", ["sb3/qrdqn", "sb3/recurrent-ppo"])
def test_a_missing_package_is_named_with_what_installs_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    with pytest.raises(UserError, match=r"pip install 'palaestra\[peers\]'"):
        space_agent(name, BOX, TWO)


def test_describing_an_agent_loads_neither_torch_nor_the_library() -> None:
    program = (
        "import sys; from palaestra.registry import registry;"
        "from palaestra.options import options_of;"
        f"[options_of(registry.get('agent', name)) for name in {list(ALGORITHMS)}];"
        "assert not {'torch', 'stable_baselines3', 'sb3_contrib'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_layers_of_a_policy_read_the_observation() -> None:
    features = {"name": "mlp", "options": {"hidden_sizes": [8]}}
    loop = loop_on("CartPole-v1", "sb3/ppo", n_steps=16, batch_size=16, features=features)
    assert any(".encoder." in key or ".backbone." in key for key in loop.weights())
    loop.advance()


def test_schedules_have_a_warm_up_and_an_end() -> None:
    schedule = {"name": "cosine", "warmup": 0.25, "final": 0.5}
    agent = space_agent("sb3/ppo", BOX, TWO, learning_rate=4.0, learning_rate_schedule=schedule)
    rate = agent.algorithm_options["learning_rate"]  # type: ignore[attr-defined]
    assert [rate(left) for left in (1.0, 0.875, 0.75, 0.0)] == [0.0, 2.0, 4.0, 2.0]
