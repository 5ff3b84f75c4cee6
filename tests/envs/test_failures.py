"""Environments that misbehave are named: which one, which row, which step, what was expected."""

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_cases import Walk
from gymnasium import spaces

from palaestra.envs import make_vec
from palaestra.envs.check import check_determinism, check_environment
from palaestra.envs.close import safe_close
from palaestra.envs.recorded import RowsVectorEnv
from palaestra.errors import EnvironmentFailure, RunError, UserError
from palaestra.registry import Entry, registry


class OldReset(Walk):
    """Returns what reset returned before Gym 0.26."""

    def reset(self, **given: Any) -> Any:
        return super().reset(**given)[0]


class OldStep(Walk):
    """Returns what step returned before Gym 0.26."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


class WrongShape(Walk):
    """Shows four numbers where the space says three."""

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return (np.append(observation, 1.0), *rest)


class WrongShapeAtFirst(Walk):
    """Shows four numbers where the space says three, from the start."""

    def reset(self, **given: Any) -> Any:
        observation, info = super().reset(**given)
        return np.append(observation, 1.0), info


class WrongType(Walk):
    """Shows a list."""

    def reset(self, **given: Any) -> Any:
        observation, info = super().reset(**given)
        return observation.tolist(), info


class RaisesInReset(Walk):
    """Cannot find its levels."""

    def reset(self, **given: Any) -> Any:
        raise FileNotFoundError("levels.txt")


class RaisesInStep(Walk):
    """Loses its server in the third step."""

    def step(self, action: Any) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 3:
            raise ConnectionResetError("peer")
        return super().step(action)


class RaisesInMake(Walk):
    """Cannot be made."""

    def __init__(self) -> None:
        raise OSError("no display")


class NotANumber(Walk):
    """Pays infinity in its fourth step."""

    def step(self, action: Any) -> Any:
        self.steps = getattr(self, "steps", 0) + 1
        observation, _, *rest = super().step(action)
        return (observation, np.inf if self.steps == 4 else 0.0, *rest)


class NoReward(Walk):
    """Pays nothing, not even zero."""

    def step(self, action: Any) -> Any:
        observation, _, *rest = super().step(action)
        return (observation, None, *rest)


class Blind(Walk):
    """Shows something that is not a number."""

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return (observation * np.nan, *rest)


class NoInfo(Walk):
    """Its info is no dict."""

    def step(self, action: Any) -> Any:
        return (*super().step(action)[:4], None)


class Chance(Walk):
    """Rolls dice that no seed decides."""

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return (observation, reward + float(np.random.default_rng().random()), *rest)


FAULTS = [
    (OldReset, "reset", r"reset returned ndarray; \(observation, info\) is expected"),
    (OldStep, "step", r"step returned a tuple of 4; \(observation, reward, terminated, truncated"),
    (WrongShape, "step", r"shape \(4,\); \(3,\) is expected"),
    (WrongType, "reset", r"of type list; an array is expected"),
    (RaisesInReset, "reset", r"raises FileNotFoundError: levels.txt"),
    (RaisesInStep, "step", r"raises ConnectionResetError: peer"),
    (RaisesInMake, "make", r"OSError: no display"),
    (
        NotANumber,
        "step",
        r"at step \d of an episode, the reward is inf; a finite number is",
    ),
    (NoReward, "step", r"the reward is None; a finite number is expected"),
    (Blind, "step", r"the observation is not finite: nan"),
    (NoInfo, "step", r"info of type NoneType; a dict is expected"),
]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Any:
    def register(cls: type) -> str:
        entry = Entry("env", f"test/{cls.__name__}-v0", cls, "a test")
        monkeypatch.setitem(registry._entries["env"], entry.name, entry)
        return entry.name

    return register


@pytest.mark.parametrize(("cls", "where", "said"), FAULTS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_check_names_what_is_wrong_and_what_is_expected(
    cls: type, where: str, said: str, registered: Any
) -> None:
    report = check_environment(registered(cls), steps=20)
    assert not report.ok
    assert [finding.where for finding in report.findings] == [where]
    with pytest.raises(UserError, match=said):
        report.raise_errors()
    assert any("error: " in line for line in report.lines())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("cls", [OldReset, OldStep, WrongShape, RaisesInStep])
def test_environments_of_gymnasium_are_checked_beneath_its_own_checker(
    cls: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = gymnasium.envs.registration.EnvSpec("test/Wrong-v0", cls, max_episode_steps=9)
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    said = next(text for other, _, text in FAULTS if other is cls)
    with pytest.raises(UserError, match=said):
        check_environment("test/Wrong-v0", steps=20).raise_errors()


@pytest.mark.parametrize(
    ("env_id", "options", "wrappers"),
    [
        ("CartPole-v1", {}, ()),
        ("Taxi-v4", {}, ("action-mask",)),
        ("palaestra/TicTacToe-v0", {"opponent": "minimax"}, ("action-mask", "history")),
        ("palaestra/TMaze-v0", {}, ("normalise-reward",)),
        ("Pendulum-v1", {}, ("normalise-observation", "normalise-reward")),
    ],
)
def test_nothing_is_wrong_with_environments_in_order(
    env_id: str, options: Any, wrappers: Any
) -> None:
    report = check_environment(env_id, options, wrappers, steps=40)
    assert report.findings == ()
    assert report.facts["resumes exactly"] == "yes"
    assert report.lines()[-1] == "  nothing is wrong"
    report.raise_errors()


def test_an_environment_that_no_seed_decides_can_be_trained_and_not_resumed(
    registered: Any,
) -> None:
    report = check_environment(registered(Chance), steps=20)
    assert report.ok
    assert report.facts["resumes exactly"] == "no"
    (finding,) = report.findings
    assert "rewards differ at step 1" in finding.text
    assert "env.reset_at_checkpoint=true" in finding.text
    assert check_determinism("CartPole-v1", steps=30) == []


def test_a_wrapper_that_keeps_something_is_noted_before_training(registered: Any) -> None:
    (finding,) = check_determinism(
        registered(Walk), wrappers=["gymnasium.wrappers.vector:RecordEpisodeStatistics"]
    )
    assert not finding.fatal
    assert "cannot give its state" in finding.text


def test_unknown_names_and_options_are_findings_too() -> None:
    for env_id, options, wrappers, said in (
        ("CartPole-v9", {}, (), "CartPole-v1"),
        ("CartPole-v1", {"length": 3}, (), "length: unknown option"),
        ("CartPole-v1", {}, ("histori",), "'history'"),
    ):
        (finding,) = check_environment(env_id, options, wrappers).findings
        assert finding.where == "make"
        assert said in finding.text


@pytest.mark.parametrize(
    ("cls", "doing", "error_type"),
    [
        (RaisesInStep, "step", "ConnectionResetError"),
        (RaisesInReset, "reset", "FileNotFoundError"),
        (OldReset, "reset", "wrong interface"),
        (OldStep, "step", "wrong interface"),
        (WrongShape, "step", "wrong observation"),
        (WrongShapeAtFirst, "reset", "wrong observation"),
    ],
)
def test_an_error_inside_a_row_is_told_with_environment_row_and_step(
    cls: type, doing: str, error_type: str
) -> None:
    envs = RowsVectorEnv([lambda: Walk(terminates=False), lambda: cls(terminates=False)])
    with pytest.raises(EnvironmentFailure) as caught:  # noqa: PT012
        envs.reset(seed=0)
        for _ in range(5):
            envs.step(np.zeros(2, int))
    failure = caught.value
    assert isinstance(failure, RunError)
    assert (failure.doing, failure.error_type, failure.row) == (doing, error_type, 1)
    if cls is RaisesInStep:
        assert failure.step == 2
        assert isinstance(failure.__cause__, ConnectionResetError)
        said = "environment RaisesInStep: step failed in row 1 after 2 steps of the episode"
        assert str(failure) == f"{said}: ConnectionResetError: peer"


def test_a_failure_survives_the_way_between_processes() -> None:
    failure = EnvironmentFailure("My-v0", "step", "OSError", "gone", 3, 17)
    back = pickle.loads(pickle.dumps(failure))
    assert (str(back), back.row, back.step) == (str(failure), 3, 17)


def test_an_error_of_input_stays_one() -> None:
    class Picky(Walk):
        """Refuses an action by name."""

        def step(self, action: Any) -> Any:
            raise UserError("action: 0 is not accepted")

    envs = RowsVectorEnv([Picky])
    envs.reset(seed=0)
    with pytest.raises(UserError, match="action: 0"):
        envs.step(np.zeros(1, int))


def test_an_environment_that_cannot_be_made_is_named(registered: Any) -> None:
    with pytest.raises(EnvironmentFailure, match=r"RaisesInMake-v0: make failed: OSError: no disp"):
        make_vec(registered(RaisesInMake), 1)


@pytest.mark.parametrize(
    ("env_id", "extra"),
    [("LunarLander-v3", r"gymnasium\[box2d\]"), ("HalfCheetah-v5", r"gymnasium\[mujoco\]")],
)
def test_a_missing_package_is_named_with_what_to_install(
    env_id: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for package in ("Box2D", "mujoco"):
        monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    for module in [m for m in sys.modules if m.startswith(("gymnasium.envs.box2d", "gymnasium.envs.mujoco"))]:  # fmt: skip # noqa: E501
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(UserError, match=extra):
        make_vec(env_id, 1)
    (finding,) = check_environment(env_id).findings
    assert finding.where == "make"


def test_a_close_that_raises_is_a_warning() -> None:
    class Stuck(Walk):
        """Cannot be closed."""

        def close(self) -> None:
            raise OSError("busy")

    with pytest.warns(RuntimeWarning, match="could not be closed: OSError: busy"):
        safe_close(Stuck())


def test_a_mask_that_allows_nothing_is_named_with_its_row() -> None:
    class Masked(Walk):
        """Allows all actions in even steps and none in odd ones."""

        def __init__(self, stuck: bool) -> None:
            super().__init__(terminates=False)
            self.stuck, self.t = stuck, 0

        def reset(self, **given: Any) -> Any:
            observation, info = super().reset(**given)
            return observation, info | {"action_mask": np.ones(3, np.int8)}

        def step(self, action: Any) -> Any:
            self.t += 1
            mask = np.full(3, not self.stuck or self.t % 2 == 0, np.int8)
            return (*super().step(action)[:4], {"action_mask": mask})

    from palaestra.envs.wrappers import VectorActionMask

    envs = VectorActionMask(RowsVectorEnv([lambda: Masked(False), lambda: Masked(True)]))
    envs.reset(seed=0)
    with pytest.raises(EnvironmentFailure, match=r"row 1.*: no legal action: .*at least one"):
        envs.step(np.zeros(2, int))


def test_spaces_of_every_kind_are_compared_with_what_is_shown() -> None:
    from palaestra.envs.protocol import observation_fault

    space = spaces.Dict(
        x=spaces.Box(0, 1, (2,)),
        pair=spaces.Tuple((spaces.Discrete(3), spaces.Text(3))),
    )
    good = {"x": np.zeros(2, np.float32), "pair": (np.int64(2), "ab")}
    assert observation_fault(space, good) is None
    for change, said in (
        ({"x": np.ones(2)}, "['x'] has type float64"),
        ({"x": np.full(2, 2, np.float32)}, "['x'] has a value of 2.0, outside"),
        ({"pair": (3, "ab")}, "['pair'][0] is 3"),
        ({"pair": (2, "abcd")}, "has 4 characters"),
        ({"pair": (2, "a b")}, "characters outside its space: [' ']"),
        ({"pair": (2, 1)}, "a str is expected"),
        ({"pair": 2}, "is no tuple of 2"),
        ({"more": 1}, "a dict with the keys"),
    ):
        assert said in str(observation_fault(space, good | change))
