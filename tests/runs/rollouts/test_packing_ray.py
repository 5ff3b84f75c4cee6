"""Packed fragments through Ray: the same as in this process, whatever happens to a worker."""

import numpy as np
import pytest
import ray

from palaestra.errors import RunError
from palaestra.runs.config import RunConfig, load_config
from palaestra.runs.rollouts.local import LocalRollouts
from palaestra.runs.rollouts.remote import RayRollouts
from palaestra.runs.rollouts.worker import Rollout
from palaestra.runs.training.train import build_learner

FIELDS = ("observation", "action", "reward", "terminated", "truncated", "reset", "duration")


def config(*overrides: str) -> RunConfig:
    return load_config(
        "cartpole",
        [
            "plugins=[tests.runs.rollouts.lockstep]",
            "env.id=tests/Lockstep-v0",
            "env.num_envs=4",
            "policy={name: gru, hidden_size: 8}",
            "rollout.steps=5",
            "agent.minibatch_size=16",
            "agent.num_epochs=1",
            "threads=1",
            *overrides,
        ],
        rollout__workers=2,
    )


def same(one: Rollout, other: Rollout) -> None:
    a, b = one.fragment, other.fragment
    np.testing.assert_array_equal(a.length, b.length)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    for name in a.extras:
        np.testing.assert_array_equal(a.extras[name], b.extras[name], err_msg=name)
        if name in a.next_extras:
            np.testing.assert_array_equal(a.next_extras[name], b.next_extras[name], err_msg=name)
    for x, y in zip(a.state.tensors().values(), b.state.tensors().values(), strict=True):
        np.testing.assert_array_equal(x, y)


def test_actions_that_last_are_packed_in_ray_as_here_also_after_a_worker_was_killed(
    ray_cluster: None,
) -> None:
    local, remote = LocalRollouts(config("rollout.backend=local")), RayRollouts(config())
    learner = build_learner(config())
    partial = False
    for version in range(6):
        if version == 3:
            assert any(r.collector.stepper.running is not None for r in local.workers)
            ray.kill(remote._slots[1].actor)
        pairs = [rollouts.collect(learner.weights(), version) for rollouts in (local, remote)]
        for one, other in zip(*pairs, strict=True):
            same(one, other)
            partial |= len(set(one.fragment.length)) > 1
        learner.update([r.fragment for r in pairs[1] if r.fragment.decisions])
    assert partial
    assert len(remote.failures) == 1
    remote.close()


def test_fragments_can_be_asked_for_and_taken_as_they_are_done(ray_cluster: None) -> None:
    local, remote = LocalRollouts(config("rollout.backend=local")), RayRollouts(config())
    weights = build_learner(config()).weights()
    found: dict[int, list[Rollout]] = {0: [], 1: []}
    for rollouts in (local, remote):
        taken: dict[int, list[Rollout]] = {0: [], 1: []}
        for worker in (0, 1, 0):
            rollouts.request(worker, weights, 7)
        for _ in range(3):
            rollout = rollouts.receive()
            assert rollout.fragment.version == 7
            taken[rollout.worker].append(rollout)
        assert [len(taken[w]) for w in (0, 1)] == [2, 1]
        for worker, more in taken.items():
            for one, other in zip(found[worker], more, strict=False):
                same(one, other)
        found = taken
    remote.close()


def test_a_worker_that_cannot_be_brought_where_it_was_is_an_error(ray_cluster: None) -> None:
    remote = RayRollouts(config("rollout.max_restarts=3"))
    weights = build_learner(config()).weights()
    remote.collect(weights, 0)
    slot = remote._slots[0]
    assert slot.state is not None
    slot.state = {**slot.state, "rng": {"bit_generator": "PCG64", "state": "lost"}}
    ray.kill(slot.actor)
    with pytest.raises(RunError, match="worker 0 was started again and cannot be brought where"):
        remote.collect(weights, 1)
    remote.close()
