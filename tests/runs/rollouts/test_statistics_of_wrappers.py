"""Statistics of normalising wrappers go wherever the weights go."""

from pathlib import Path

import numpy as np

from palaestra.envs import make_vec
from palaestra.envs.state import load_statistics, wrapper_statistics
from palaestra.runs.config import RunConfig, find_suite, load_config
from palaestra.runs.evaluation.actors import RunActors
from palaestra.runs.evaluation.evaluate import evaluate
from palaestra.runs.export.read import ExportedActors
from palaestra.runs.export.write import write_export
from palaestra.runs.rollouts.statistics import pack, unpack
from palaestra.runs.training import build_loop, train
from tests.runs.survival import SMALL_PPO

WRAPPERS = "env.wrappers=[normalise-observation, {name: normalise-reward, clip: 5}]"


def config(*overrides: str, workers: int = 0) -> RunConfig:
    return load_config(
        "cartpole",
        [*SMALL_PPO, WRAPPERS, "total_steps=640", *overrides],
        rollout__workers=workers,
    )


def test_weights_and_statistics_come_apart_as_they_were_put_together() -> None:
    env = make_vec("CartPole-v1", 3, ["normalise-observation", "normalise-reward"])
    env.reset(seed=1)
    for _ in range(5):
        env.step(env.action_space.sample())
    statistics = wrapper_statistics(env)
    weights = {"a.b": np.arange(3.0), "wrapper": np.zeros(2, np.float32)}
    found, again = unpack(pack(weights, statistics))
    assert found.keys() == weights.keys()
    other = make_vec("CartPole-v1", 2, ["normalise-observation", "normalise-reward"])
    load_statistics(other, again)
    for wrapper, leaves in wrapper_statistics(other).items():
        for leaf, values in leaves.items():
            for name, value in values.items():
                np.testing.assert_array_equal(value, statistics[wrapper][leaf][name])


def test_two_workers_have_seen_together_what_one_has() -> None:
    one, two = (
        build_loop(config(*o, workers=w)) for o, w in (([], 0), (["rollout.backend=local"], 2))
    )
    for loop in (one, two):
        loop.advance()
    seen = [loop.wrapper_statistics()["normalise-observation"] for loop in (one, two)]
    (leaf,) = seen[0]
    # Each worker starts from a prior of 1e-4 samples; the actions differ, the resets do not.
    assert abs(seen[0][leaf]["count"] - seen[1][leaf]["count"]) < 1e-3 + 16


def test_an_evaluation_and_an_export_act_on_frozen_statistics_of_training(tmp_path: Path) -> None:
    folder = train(config(), "run", root=tmp_path, quiet=True)
    actors = RunActors(folder)
    assert set(actors.statistics) == {"normalise-observation", "normalise-reward"}
    assert not any(name.startswith("wrappers/") for name in actors.weights)
    write_export(folder, tmp_path / "export")
    exported = ExportedActors(tmp_path / "export")
    suite = find_suite(None, actors.config.env)
    found = [
        evaluate(
            factory,
            suite,
            seeds=2,
            episodes=4,
            statistics_of_wrappers=factory.statistics,
            wrappers=actors.config.env.wrappers,
            repetitions=100,
        )
        for factory in (actors, exported)
    ]
    assert found[0].rows == found[1].rows
    without = evaluate(
        actors,
        suite,
        seeds=2,
        episodes=4,
        wrappers=actors.config.env.wrappers,
        repetitions=100,
    )
    assert without.rows != found[0].rows
