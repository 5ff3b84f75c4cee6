"""Rollouts: the same fragments in-process and in Ray, whatever happens to the workers."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import ray
import torch

from palaestra.errors import RunError, UserError
from palaestra.runs.config import RunConfig, load_config
from palaestra.runs.rollouts.local import LocalRollouts
from palaestra.runs.rollouts.remote import RayRollouts, connect
from palaestra.runs.rollouts.worker import Rollout
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.training.train import build_learner, train

SMALL = ["env.num_envs=4", "rollout.steps=12", "threads=1", "evaluation=null", "tensorboard=false"]


def bandit(*overrides: str, workers: int = 2) -> RunConfig:
    settings = [*SMALL, "agent.minibatch_size=24", "policy.hidden_size=8", *overrides]
    return load_config("demo", settings, rollout__workers=workers)


def same(one: Rollout, other: Rollout) -> None:
    for name in ("observation", "action", "reward", "reset", "terminated"):
        np.testing.assert_array_equal(
            getattr(one.fragment, name), getattr(other.fragment, name), err_msg=name
        )
    for name, column in one.fragment.extras.items():
        np.testing.assert_array_equal(column, other.fragment.extras[name], err_msg=name)
    np.testing.assert_array_equal(one.episodes.returns, other.episodes.returns)


def test_ray_workers_collect_what_local_workers_do_also_after_one_was_killed(
    ray_cluster: None,
) -> None:
    local, remote = LocalRollouts(bandit("rollout.backend=local")), RayRollouts(bandit())
    learner = build_learner(bandit())
    for version in range(4):
        if version == 2:
            ray.kill(remote._slots[1].actor)
        pairs = [rollouts.collect(learner.weights(), version) for rollouts in (local, remote)]
        for one, other in zip(*pairs, strict=True):
            same(one, other)
            assert other.fragment.version == version
        learner.update([rollout.fragment for rollout in pairs[1]])
    remote.close()
    assert [failure["worker"] for failure in remote.failures] == [1]
    assert remote.failures[0]["traceback"]


def breaking(how: str, max_restarts: int, *overrides: str) -> RunConfig:
    return load_config(
        "cartpole",
        [
            *SMALL,
            "env.id=tests/Breaking-v0",
            f"env.options.how={how}",
            f"rollout.max_restarts={max_restarts}",
            "plugins=[tests.runs.breaking_plugin]",
            *overrides,
        ],
        rollout__workers=1,
    )


def test_restarts_are_limited_and_the_traceback_is_kept(ray_cluster: None) -> None:
    rollouts = RayRollouts(breaking("raise", 1))
    weights = build_learner(breaking("raise", 1)).weights()
    with pytest.raises(RunError, match="the emulator has crashed"):
        rollouts.collect(weights, 0)
    rollouts.close()
    assert len(rollouts.failures) == 2
    assert "RuntimeError: the emulator has crashed" in rollouts.failures[0]["traceback"]


@pytest.mark.slow
def test_a_silent_worker_counts_as_hung(ray_cluster: None) -> None:
    config = breaking("hang", 0, "rollout.timeout_s=20")
    rollouts = RayRollouts(config)
    with pytest.raises(RunError, match="GetTimeoutError"):
        rollouts.collect(build_learner(config).weights(), 0)
    rollouts.close()


def test_a_run_whose_workers_fail_keeps_what_it_has(ray_cluster: None, tmp_path: Path) -> None:
    config = breaking("raise", 0, "rollout.steps=2")
    with pytest.raises(RunError):
        train(config, "failed", root=tmp_path, quiet=True)
    folder = RunFolder.open("failed", tmp_path)
    assert folder.manifest["status"] == "failed"
    assert "the emulator has crashed" in folder.manifest["failures"][0]["traceback"]
    assert folder.manifest["agent_steps"] == 2 * 2 * 4
    assert (folder.checkpoints / "latest").is_file()


def test_bad_input_in_a_worker_is_not_tried_again(ray_cluster: None) -> None:
    rollouts = RayRollouts(breaking("user", 3))
    with pytest.raises(UserError, match="action 7: 0 to 4 are accepted"):
        rollouts.collect(build_learner(breaking("user", 3)).weights(), 0)
    rollouts.close()
    assert not rollouts.failures


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "does not answer"), ("http://127.0.0.1:8265", "accepted are host:port")],
)
def test_an_address_without_ray_is_named(
    address: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(UserError, match=message):
        connect(address, 1)


def test_local_and_ray_runs_end_in_the_same_weights(ray_cluster: None, tmp_path: Path) -> None:
    from palaestra.runs.store.checkpoints import load_checkpoint

    weights = []
    for backend in ("local", "ray"):
        config = bandit("total_steps=200", f"rollout.backend={backend}")
        folder = train(config, f"run-{backend}", root=tmp_path, quiet=True)
        weights.append(load_checkpoint(folder.checkpoints, only=("actor",))["actor"])
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[0].items():
        np.testing.assert_array_equal(weight, weights[1][name], err_msg=name)


def test_workers_go_on_exactly_where_they_were_saved() -> None:
    config = bandit("rollout.backend=local")
    one, weights = LocalRollouts(config), build_learner(config).weights()
    one.collect(weights, 0)
    other = LocalRollouts(config)
    other.load_state_dict(one.state_dict())
    for a, b in zip(one.collect(weights, 1), other.collect(weights, 1), strict=True):
        same(a, b)
        assert a.fragment.env_steps == 2 * 12


def test_an_interrupt_saves_a_checkpoint_and_marks_the_run_stopped(tmp_path: Path) -> None:
    def interrupt(folder: RunFolder, config: RunConfig, step: int) -> None:
        # Delivered once the trainer has taken over the signal.
        original = folder.begin_attempt

        def begin(step: int) -> None:
            original(step)
            signal.setitimer(signal.ITIMER_REAL, 0.2)

        folder.begin_attempt = begin  # type: ignore[method-assign]

    previous = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    try:
        config = bandit("total_steps=100000000", workers=0)
        folder = train(config, "stopped", root=tmp_path, quiet=True, begun=interrupt)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert folder.manifest["status"] == "stopped"
    assert (folder.checkpoints / "latest").is_file()
    assert 0 < folder.manifest["agent_steps"] < config.total_steps
    assert torch.get_num_threads() == 1
