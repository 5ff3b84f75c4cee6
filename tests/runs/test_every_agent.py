"""Every agent that learns, through the whole house: train, evaluate, report, track, export.

An agent is known by one name on the way. Whoever registers an agent finds it here.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from palaestra.agents.base import Agent
from palaestra.registry import registry
from palaestra.runs.cli.verbs import evaluate_named, train_and_report
from palaestra.runs.config import RunConfig, resolve
from palaestra.runs.export.write import write_export
from palaestra.runs.store.folder import RunFolder
from palaestra.runs.store.record import RunRecord
from palaestra.runs.trackers import TRACKERS, replay
from tests.runs.trackers.tracker_readers import READERS

BANDIT = {
    "env": {"id": "palaestra/GaussianBandit-v0", "num_envs": 4, "options": {"K": 5, "T": 10}},
    "evaluation": {"suite": "bandit", "tasks": ["k5-normal-1"]},
}
TICTACTOE = {
    "env": {
        "id": "palaestra/TicTacToe-v0",
        "num_envs": 4,
        "wrappers": ["action-mask"],
        "options": {"first": "alternate"},
    },
    "evaluation": {"suite": "tictactoe", "tasks": ["random-first"]},
}
SMALL = {
    "n_steps": 8,
    "batch_size": 16,
    "minibatch_size": 16,
    "num_epochs": 1,
    "n_epochs": 1,
    "buffer_size": 200,
    "learning_starts": 40,
    "lstm_hidden_size": 8,
    "n_quantiles": 8,
}
"""Options that make an update cheap, for the agents that have them."""


def learners() -> Iterator[tuple[str, str | None]]:
    """Yield every agent of the registry that learns, with each kind of policy where it has one."""
    for name, entry in registry.entries("agent").items():
        cls = entry.load()
        if (cls.make_learner, cls.make_loop) != (Agent.make_learner, Agent.make_loop):
            for policy in ("mlp", "gru") if cls.needs_policy else (None,):
                yield name, policy


def config_of(name: str, policy: str | None) -> RunConfig:
    where = TICTACTOE if name == "q-learning" else BANDIT
    known = registry.get("agent", name).Config.model_fields
    evaluation = {**where["evaluation"], "seeds": 2, "episodes": 3, "baselines": ["random"]}
    return resolve(
        {
            "total_steps": 320,
            "env": where["env"],
            "agent": {"name": name, **{k: v for k, v in SMALL.items() if k in known}},
            "policy": {"name": policy} if policy else None,
            "rollout": {"steps": 20},
            "evaluation": evaluation,
            "threads": 1,
            "tensorboard": False,
        }
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the runs of all agents."""
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize(("name", "policy"), list(learners()))
def test_an_agent_is_known_by_one_name_from_training_to_export(
    name: str,
    policy: str | None,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(root)
    config = config_of(name, policy)
    assert config.evaluation is not None
    suite = config.evaluation.suite
    run_id = "-".join(filter(None, (name.replace("/", "-"), policy)))
    assert train_and_report(config, run_id, as_json=True) == 0
    folder, record = RunFolder.open(run_id), RunRecord.open(run_id)
    assert record.agent == run_id
    assert record.is_complete(config)

    report = json.loads((folder.path / "report.json").read_text())
    (table,) = [table for table in report["tables"] if table["suite"] == suite]
    assert {row["agent"]: row["trained"] for row in table["rows"]} == {
        record.agent: True,
        "random": False,
    }
    page = (folder.path / "report.html").read_text()
    assert any(f"{words} random" in page for words in ("better than", "told apart from", "behind"))

    names = [tracker for tracker in TRACKERS if importlib.util.find_spec(tracker)]
    replay(record, names)
    for tracker in names:
        ((step, _),) = READERS[tracker](folder)[f"eval/{suite}/iqm"]
        assert step == record.steps

    export = write_export(folder, Path("exports") / run_id, episodes=1)
    assert export.manifest.agent == record.agent
    card = (export.path / "README.md").read_text()
    assert f"**{record.agent}**" in card
    assert "model-index" in card
    capsys.readouterr()
    evaluate_named(
        str(export.path),
        None,
        seeds=None,
        episodes=None,
        tasks=(),
        mode=None,
        checkpoint=None,
        plugins=(),
        overrides=(),
        as_json=True,
    )
    played = json.loads(capsys.readouterr().out)
    stored = {item.agent: item.summary for item in record.evaluations()}[record.agent]
    assert played["agent"] == record.agent
    assert played["tasks"] == stored["tasks"]
    assert (Path("evaluations") / suite / record.agent / "summary.json").is_file()
