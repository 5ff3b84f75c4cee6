"""The laws of packed fragments, for random episodes, durations, cuts and both autoreset modes."""

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.agents.returns import fragment_advantage
from palaestra.experience.fragment import Fragment
from palaestra.runs.rollouts.collector import Collector
from tests.runs.rollouts.lockstep import GAMMA, Deciding, Lockstep, by_hand, paid, unpacked

LENGTHS = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), min_size=1, max_size=4)
CUTS = st.lists(st.integers(1, 13), min_size=1, max_size=6)


def collect(env: Lockstep, cuts: list[int]) -> list[Fragment]:
    collector = collector_of(env)
    return [collector.collect(steps)[0] for steps in cuts]


def collector_of(env: Lockstep) -> Collector:
    seeds = list(range(env.num_envs))
    return Collector(env, Deciding(), np.random.default_rng(0), seeds, infos=("pay",))


def check(env: Lockstep, fragments: list[Fragment], steps: int) -> None:
    for row in range(env.num_envs):
        assert unpacked(fragments, row) == by_hand(env, row, steps), f"row {row}"


@settings(deadline=None)
@given(LENGTHS, CUTS, st.booleans(), st.booleans())
def test_any_cut_gives_the_decisions_of_rows_played_by_hand(
    lengths: Any, cuts: list[int], next_step: bool, tells: bool
) -> None:
    env = Lockstep(len(lengths), lengths, next_step, tells_duration=tells)
    check(env, collect(env, cuts), sum(cuts))


@settings(deadline=None)
@given(LENGTHS, CUTS, st.booleans())
def test_where_every_step_decides_nothing_is_padding(
    lengths: Any, cuts: list[int], next_step: bool
) -> None:
    env = Lockstep(len(lengths), lengths, next_step, lasting=False)
    fragments = collect(env, cuts)
    check(env, fragments, sum(cuts))
    assert all((f.duration[f.valid] == 1).all() for f in fragments)
    if not next_step:
        assert all((f.length == steps).all() for f, steps in zip(fragments, cuts, strict=True))
        assert all(
            f.reset.shape == (steps, len(lengths)) for f, steps in zip(fragments, cuts, strict=True)
        )


@settings(deadline=None)
@given(LENGTHS, st.booleans())
def test_both_kinds_of_autoreset_give_the_same_transitions(lengths: Any, lasting: bool) -> None:
    one, other = (
        collect(Lockstep(len(lengths), lengths, next_step, lasting), [40])
        for next_step in (False, True)
    )
    for row in range(len(lengths)):
        fewer = unpacked(other, row)
        assert fewer == unpacked(one, row)[: len(fewer)]
        assert len(fewer) >= 4


@settings(deadline=None)
@given(LENGTHS, st.lists(st.integers(1, 7), min_size=2, max_size=5), st.booleans())
def test_a_checkpoint_within_a_running_action_changes_nothing(
    lengths: Any, cuts: list[int], next_step: bool
) -> None:
    env = Lockstep(len(lengths), lengths, next_step)
    collector = collector_of(env)
    fragments = []
    for steps in cuts:
        fragments.append(collector.collect(steps)[0])
        state = copy.deepcopy(collector.state_dict())
        collector.collect(3)  # what is restored does not depend on what came after
        collector = collector_of(Lockstep(len(lengths), lengths, next_step))
        collector.load_state_dict(state)
    check(env, fragments, sum(cuts))


@settings(deadline=None)
@given(LENGTHS, st.integers(5, 40), st.floats(0, 1))
def test_advantages_of_packed_rows_are_those_of_rows_by_hand(
    lengths: Any, steps: int, lam: float
) -> None:
    env = Lockstep(len(lengths), lengths)
    (fragment,) = collect(env, [steps])
    packed = fragment_advantage(fragment, GAMMA, lam)
    for row in range(env.num_envs):
        entries = by_hand(env, row, steps)
        expected, carried = np.zeros(len(fragment.reward)), 0.0
        for t, entry in reversed(list(enumerate(entries))):
            discount = GAMMA**entry.duration
            ended = entry.terminated or entry.truncated
            carried = 0.0 if ended else carried
            delta = entry.reward + discount * entry.next_value - entry.value
            expected[t] = carried = delta + discount * lam * carried
        np.testing.assert_allclose(packed[:, row], expected, rtol=1e-5, atol=1e-3)


def test_episodes_are_counted_in_environment_steps_with_raw_returns() -> None:
    env = Lockstep(2, ((4,), (6, 3)))
    _, episodes = collector_of(env).collect(12)
    np.testing.assert_array_equal(episodes.length, [4, 6, 4, 3, 4])
    assert (
        episodes.sums["pay"].sum() > episodes.returns.sum()
    )  # these are discounted within actions


@pytest.mark.parametrize("lasting", [True, False])
def test_a_record_of_an_episode_holds_the_sum_or_the_last_of_an_info(lasting: bool) -> None:
    found = {}
    for how in ("sum", "last"):
        env = Lockstep(1, ((4,),), lasting=lasting)
        env.metadata = {**env.metadata, "episode_infos": {"pay": how}}
        found[how] = collector_of(env).collect(4)[1].sums["pay"].tolist()
    assert found == {"sum": [sum(paid(0, 0, t) for t in range(1, 5))], "last": [paid(0, 0, 4)]}


def drop_what_is_carried_over(fragments: list[Fragment]) -> None:
    second = fragments[1]
    second.observation = second.observation[1:]
    for name in ("action", "reward", "terminated", "truncated", "reset", "duration"):
        setattr(second, name, getattr(second, name)[1:])
    second.extras = {name: x[1:] for name, x in second.extras.items()}
    second.info = {name: x[1:] for name, x in second.info.items()}
    second.length = np.maximum(second.length - 1, 0)


def count_decisions_as_steps(fragments: list[Fragment]) -> None:
    for fragment in fragments:
        fragment.duration[:] = 1


def bootstrap_from_the_next_episode(fragments: list[Fragment]) -> None:
    for fragment in fragments:
        fragment.final_extras["value"][:] = 0


@pytest.mark.parametrize(
    "spoil",
    [drop_what_is_carried_over, count_decisions_as_steps, bootstrap_from_the_next_episode],
)
def test_a_wrong_packing_is_caught(spoil: Any) -> None:
    env = Lockstep()
    fragments = collect(env, [7, 9])
    check(env, fragments, 16)
    spoil(fragments)
    with pytest.raises((AssertionError, KeyError)):
        check(env, fragments, 16)
