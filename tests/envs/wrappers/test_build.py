"""Wrappers by name: options, order, plug-ins, Gymnasium's own by import path, states of all."""

import copy
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_cases import Walk
from gymnasium.vector import VectorWrapper
from pydantic import Field

from palaestra.envs import make_vec
from palaestra.envs.make import named_modules
from palaestra.envs.recorded import RowsVectorEnv
from palaestra.envs.state import get_state, is_restorable, set_state
from palaestra.envs.trees import equal_trees
from palaestra.envs.wrappers import VectorActionMask, VectorHistory, VectorNormaliseReward
from palaestra.errors import UserError
from palaestra.options import Options
from palaestra.registry import Entry, registry

TICTACTOE = "palaestra/TicTacToe-v0"


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> str:
    entry = Entry("env", "test/Walk-v0", Walk, "a test")
    monkeypatch.setitem(registry._entries["env"], entry.name, entry)
    return entry.name


def play(envs: Any, steps: int, start: int = 0) -> list[Any]:
    actions = [np.full(envs.num_envs, (start + t) % 2) for t in range(steps)]
    return [copy.deepcopy(envs.step(action)) for action in actions]


def test_names_alone_and_names_with_options_build_the_same_wrappers() -> None:
    names = make_vec(TICTACTOE, 2, ("action-mask", "history"))
    mappings = make_vec(TICTACTOE, 2, [{"name": "action-mask"}, {"name": "history", "length": 16}])
    assert names.single_observation_space == mappings.single_observation_space
    assert isinstance(names, VectorHistory)
    assert isinstance(names.env, VectorActionMask)


def test_every_built_in_wrapper_is_listed_and_described() -> None:
    from palaestra.runs.cli.describe import describe_entry

    names = set(registry.entries("wrapper"))
    assert names >= {
        "action-mask",
        "frame-stack",
        "history",
        "normalise-observation",
        "normalise-reward",
        "reward-clip",
        "time-limit",
    }
    for name in sorted(names):
        shown = describe_entry(registry.entry("wrapper", name))
        assert shown["documentation"]
    options = describe_entry(registry.entry("wrapper", "frame-stack"))["options"]
    assert [option["name"] for option in options] == ["frames"]


@pytest.mark.parametrize(
    ("wrappers", "said"),
    [
        (["action_mask"], r"wrappers\[0\]: unknown wrapper 'action_mask'.*'action-mask'"),
        (["history", {"name": "frame-stack", "frame": 3}], r"\[1\].frame-stack.frame: .*frames"),
        ([{"name": "frame-stack", "frames": 0}], r"wrappers\[0\].frame-stack.frames: 0"),
        ([{"name": "time-limit"}], r"time-limit.steps: required"),
        ([{"name": "reward-clip", "low": 2}], r"reward-clip.*low has to be below high"),
        ([{"frames": 3}], r"wrappers\[0\].*a mapping with the key `name`"),
        ([3], r"wrappers\[0\]: 3"),
        ("action-mask", "a list of wrappers is"),
        (["reward-clip", {"name": "time-limit", "steps": 3}], r"\[1\]: time-limit .* before"),
        (["no_such_module:Wrapper"], r"module 'no_such_module' cannot be imported"),
        (["os:system"], r"os:system is not accepted: a subclass of gymnasium.Wrapper"),
        (["os;path:join"], r"'os;path' is no module"),
        (["gymnasium.wrappers:ClipRewards"], r"no 'ClipRewards'; did you mean 'ClipReward'"),
        ([{"name": "gymnasium.wrappers:TimeLimit", "steps": 3}], r"steps: unknown option"),
        (["gymnasium.wrappers:TimeLimit"], r"max_episode_steps: required but not given"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_the_wrapper_and_the_option(wrappers: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_vec(TICTACTOE, 2, wrappers)


def test_a_time_limit_stands_in_each_row_of_an_environment_that_has_a_native_version() -> None:
    envs = make_vec("palaestra/GaussianBandit-v0", 2, [{"name": "time-limit", "steps": 3}], T=9)
    assert isinstance(envs.unwrapped, RowsVectorEnv)
    envs.reset(seed=0)
    cut = [envs.step(np.zeros(2, int))[3].all() for _ in range(6)]
    assert cut == [False, False, True] * 2
    assert is_restorable(envs)


@pytest.mark.parametrize("given", [None, 0.5])
def test_the_discount_of_the_run_reaches_a_wrapper_that_is_not_given_its_own(
    walks: str, given: float | None
) -> None:
    own = {} if given is None else {"discount": given}
    envs = make_vec(walks, 2, [{"name": "normalise-reward", **own}], discount=0.7)
    assert isinstance(envs, VectorNormaliseReward)
    assert envs.options.discount == (given or 0.7)


def test_clipped_rewards_keep_the_raw_ones_in_the_infos_through_further_wrappers(
    walks: str,
) -> None:
    bare = make_vec(walks, 3)
    envs = make_vec(walks, 3, [{"name": "reward-clip", "low": 0, "high": 2}, "normalise-reward"])
    bare.reset(seed=0)
    envs.reset(seed=0)
    for plain, wrapped in zip(play(bare, 30), play(envs, 30), strict=True):
        assert (wrapped[4]["raw_reward"] == plain[1]).all()
    clipped = make_vec(walks, 3, [{"name": "reward-clip", "low": 0, "high": 2}])
    clipped.reset(seed=0)
    rewards = np.stack([step[1] for step in play(clipped, 30)])
    assert rewards.min() == 0
    assert rewards.max() == 2


@pytest.mark.parametrize(
    "wrappers",
    [
        (),
        ("action-mask",),
        ({"name": "history", "length": 4},),
        ({"name": "frame-stack", "frames": 3},),
        ("normalise-observation", "normalise-reward"),
        ({"name": "time-limit", "steps": 5}, "normalise-reward", "history"),
        ({"name": "time-limit", "steps": 5}, "gymnasium.wrappers:TimeAwareObservation"),
        ({"name": "gymnasium.wrappers:FrameStackObservation", "stack_size": 3}, "reward-clip"),
    ],
    ids=str,
)
def test_an_environment_with_its_wrappers_continues_bit_for_bit(walks: str, wrappers: Any) -> None:
    name = TICTACTOE if "action-mask" in wrappers else walks
    options = {"illegal_action": "random"} if name == TICTACTOE else {}
    envs, fresh = (make_vec(name, 3, wrappers, **options) for _ in range(2))
    assert is_restorable(envs)
    envs.reset(seed=5)
    play(envs, 23)
    state = copy.deepcopy(get_state(envs))
    straight = play(envs, 20)
    for _ in range(2):  # the second time into a copy that has been used
        set_state(fresh, state)
        assert equal_trees(play(fresh, 20), straight)


def test_a_state_without_wrappers_that_keep_something_is_the_environments_own() -> None:
    bare, masked = make_vec(TICTACTOE, 2), make_vec(TICTACTOE, 2, ["action-mask"])
    bare.reset(seed=1)
    masked.reset(seed=1)
    assert equal_trees(get_state(masked), get_state(bare))


class Total(VectorWrapper):
    """Keeps a running total, and gives it to nobody."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.total = 0.0

    def step(self, actions: Any) -> Any:
        result = self.env.step(actions)
        self.total += float(result[1].sum())
        result[4]["total"] = np.full(self.num_envs, self.total)
        return result


class ToldTotal(Total):
    """Gives it."""

    class Config(Options):
        """Options of the total."""

        start: float = Field(0.0, description="what it starts from")

    def __init__(self, env: Any, start: float = 0.0) -> None:
        super().__init__(env)
        self.total = start

    def get_state(self) -> dict[str, Any]:
        return {"total": self.total}

    def set_state(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


class RowTotal(gymnasium.Wrapper):
    """Adds up the rewards of all episodes of a row."""

    total = 0.0

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.total += float(reward)
        return observation, reward, terminated, truncated, info | {"total": self.total}


class ToldRowTotal(RowTotal):
    """The same, with a state."""

    def get_state(self) -> dict[str, Any]:
        return {"total": self.total}

    def set_state(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


class EpisodeTotal(RowTotal):
    """Adds up the rewards of an episode, which a replay does as well."""

    def reset(self, **given: Any) -> Any:
        self.total = 0.0
        return self.env.reset(**given)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    for cls in (Total, ToldTotal, RowTotal, ToldRowTotal, EpisodeTotal):
        entry = Entry("wrapper", cls.__name__, cls, "a test")
        monkeypatch.setitem(registry._entries["wrapper"], entry.name, entry)


@pytest.mark.parametrize(
    ("name", "restorable"),
    [
        ("Total", False),
        ("ToldTotal", True),
        ("RowTotal", False),
        ("ToldRowTotal", True),
        ("EpisodeTotal", True),
    ],
)
def test_a_wrapper_that_keeps_something_is_restored_or_makes_the_whole_not_restorable(
    walks: str, plugins: None, name: str, restorable: bool
) -> None:
    envs, fresh = (make_vec(walks, 2, [name]) for _ in range(2))
    assert is_restorable(envs) == restorable
    envs.reset(seed=0)
    play(envs, 20)
    if restorable:
        set_state(fresh, copy.deepcopy(get_state(envs)))
        assert equal_trees(play(fresh, 20), play(envs, 20))


def test_a_row_wrapper_that_a_replay_leaves_other_than_it_was_is_refused_by_name(
    walks: str, plugins: None
) -> None:
    envs, fresh = (make_vec(walks, 2, ["RowTotal"]) for _ in range(2))
    envs.reset(seed=0)
    play(envs, 20)
    with pytest.raises(UserError, match="wrapper RowTotal of Walk keeps something"):
        set_state(fresh, get_state(envs))


def test_options_of_a_plug_in_are_checked_by_its_model(walks: str, plugins: None) -> None:
    envs = make_vec(walks, 2, [{"name": "ToldTotal", "start": 18.08}])
    assert envs.total == 18.08  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"ToldTotal\.start: 'much'"):
        make_vec(walks, 2, [{"name": "ToldTotal", "start": "much"}])


def test_a_wrapper_by_import_path_is_the_users_own_module(
    walks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_of_test.py").write_text(
        "import gymnasium\n"
        "class Scale(gymnasium.RewardWrapper):\n"
        "    def __init__(self, env, by=1.0):\n"
        "        super().__init__(env)\n"
        "        self.by = by\n"
        "    def reward(self, reward):\n"
        "        return self.by * reward\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    wrappers = [{"name": "mine_of_test:Scale", "by": 2.0}]
    assert named_modules("other:CartPole-v1", wrappers) == ("other", "mine_of_test")
    assert named_modules("CartPole-v1", ["history"]) == ()
    envs, bare = make_vec(walks, 2, wrappers), make_vec(walks, 2)
    envs.reset(seed=0)
    bare.reset(seed=0)
    for wrapped, plain in zip(play(envs, 10), play(bare, 10), strict=True):
        assert (wrapped[1] == 2 * plain[1]).all()
    sys.modules.pop("mine_of_test")


def test_gymnasiums_vector_wrappers_count_as_keeping_something(walks: str) -> None:
    name = "gymnasium.wrappers.vector:RecordEpisodeStatistics"
    envs = make_vec(walks, 2, [name])
    envs.reset(seed=0)
    assert not is_restorable(envs)
