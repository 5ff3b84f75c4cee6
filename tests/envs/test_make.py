import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers import TimeLimit

from palaestra.envs import make_vec
from palaestra.envs.bandits.vector import GaussianBanditVectorEnv
from palaestra.envs.recorded import RowsVectorEnv
from palaestra.errors import UserError
from palaestra.registry import Entry, registry


class Corridor(gymnasium.Env[np.ndarray, Any]):
    """Pays 1 at its end; a plug-in's environment."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}  # type: ignore[misc]

    def __init__(self, length: int = 3) -> None:
        self.length, self.place = length, 0
        self.observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.place += 1
        x = np.array([self.place / self.length], np.float32)
        return x, float(self.place == self.length), self.place == self.length, False, {}


def test_a_native_vector_environment_is_used_where_there_is_one() -> None:
    envs = make_vec("palaestra/GaussianBandit-v0", 3, K=4)
    assert isinstance(envs, GaussianBanditVectorEnv)
    assert (envs.num_envs, envs.single_action_space.n) == (3, 4)
    assert envs.spec is not None
    assert envs.spec.id == "palaestra/GaussianBandit-v0"


def test_any_other_environment_is_stepped_row_by_row_with_autoreset_in_the_same_step() -> None:
    envs = make_vec("MountainCar-v0", 2, max_episode_steps=5)
    assert isinstance(envs, RowsVectorEnv)
    assert envs.spec is not None
    assert envs.spec.max_episode_steps == 5
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    envs.reset(seed=0)
    infos = [envs.step(np.zeros(2, int))[4] for _ in range(5)][-1]
    assert "final_obs" in infos


def test_a_native_vector_environment_that_gives_no_state_is_used_only_where_there_is_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cartpole = make_vec("CartPole-v1", 2, sutton_barto_reward=True)
    assert isinstance(cartpole, RowsVectorEnv)
    assert isinstance(cartpole.envs[0].env, TimeLimit)  # type: ignore[attr-defined]

    class Corridors(VectorEnv[Any, Any, Any]):
        metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}  # type: ignore[misc]
        single_observation_space = gymnasium.spaces.Discrete(2)

        def __init__(self, num_envs: int) -> None:
            self.num_envs = num_envs

    name = "test/Corridors-v0"
    spec = gymnasium.envs.registration.EnvSpec(name, vector_entry_point=Corridors)
    monkeypatch.setitem(gymnasium.registry, name, spec)
    assert isinstance(make_vec(name, 2), Corridors)
    spec.entry_point = Corridor
    assert isinstance(make_vec(name, 2), RowsVectorEnv)


def test_a_class_in_our_registry_needs_no_registration_with_gymnasium(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = Entry("env", "test/Corridor-v0", Corridor, "a test")
    monkeypatch.setitem(registry._entries["env"], entry.name, entry)
    envs = make_vec("test/Corridor-v0", 2, length=2)
    envs.reset(seed=0)
    envs.step(np.zeros(2, int))
    observation, rewards, terminated, *_ = envs.step(np.zeros(2, int))
    assert terminated.all()
    assert (rewards == 1).all()
    assert not observation.any()
    with pytest.raises(UserError, match=r"lenght.*length"):
        make_vec("test/Corridor-v0", 2, lenght=2)


@pytest.mark.parametrize(
    ("env_id", "near"),
    [
        ("palaestra/GausianBandit-v0", "palaestra/GaussianBandit-v0"),
        ("palaestra/TicTacToe-v1", "palaestra/TicTacToe-v0"),
        ("CartPole-v9", "CartPole-v1"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_ones(env_id: str, near: str) -> None:
    with pytest.raises(UserError, match=near):
        make_vec(env_id, 1)


@pytest.mark.parametrize(
    ("env_id", "option", "near"),
    [
        ("palaestra/GaussianBandit-v0", "sigm", "sigma"),
        ("palaestra/BernoulliBandit-v0", "gapp", "gap"),
        ("palaestra/SyntheticMovies-v0", "observations", "observation"),
        ("CartPole-v1", "sutton_barto_rewards", "sutton_barto_reward"),
    ],
)
def test_an_unknown_option_is_answered_with_what_is_accepted(
    env_id: str, option: str, near: str
) -> None:
    with pytest.raises(UserError, match=f"{option}.*{near}"):
        make_vec(env_id, 1, **{option: 1})


def test_an_unknown_wrapper_is_named() -> None:
    with pytest.raises(UserError, match=r"action_mask.*action-mask"):
        make_vec("palaestra/GaussianBandit-v0", 1, ("action_mask",))


def test_no_environment_is_not_a_vector_of_environments() -> None:
    for env_id in ("palaestra/GaussianBandit-v0", "MountainCar-v0", "CartPole-v1"):
        with pytest.raises(UserError, match="num_envs"):
            make_vec(env_id, 0)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the name of a module that registers an environment with Gymnasium when imported."""
    (tmp_path / "package_of_test.py").write_text(
        "import gymnasium\n"
        "from test_make import Corridor\n"
        "gymnasium.register('Corridor-v3', Corridor, max_episode_steps=9)\n"
        "gymnasium.register('broken/Corridor-v0', 'nowhere:Corridor')\n"
    )
    (tmp_path / "failing_of_test.py").write_text("raise OSError('no display')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "package_of_test"
    for name in ("package_of_test", "failing_of_test"):
        sys.modules.pop(name, None)
    for name in ("Corridor-v3", "broken/Corridor-v0"):
        gymnasium.registry.pop(name, None)


def test_a_name_after_a_module_imports_the_module_first(package: str) -> None:
    envs = make_vec(f"{package}:Corridor-v3", 2, length=2)
    assert envs.spec is not None
    assert envs.spec.id == "Corridor-v3"
    envs.reset(seed=0)
    assert make_vec("Corridor-v3", 1).num_envs == 1  # now it is registered


def test_what_is_wrong_with_a_name_after_a_module_is_said(package: str) -> None:
    for env_id, said in (
        ("no_such_module:Corridor-v3", "module 'no_such_module' cannot be imported"),
        ("failing_of_test:Corridor-v3", "'failing_of_test' fails at import: OSError: no display"),
        (f"{package}:Coridor-v3", r"unknown env 'package_of_test:Coridor-v3'.*'Corridor-v3'"),
        ("not a module:Corridor-v3", "'not a module' is no module"),
        (f"{package}:broken/Corridor-v0", "needs a package that is not installed.*nowhere"),
    ):
        with pytest.raises(UserError, match=said):
            make_vec(env_id, 1)
