"""The model card: front matter as model hubs read it, then a page for people."""

from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from palaestra.runs.config import RunConfig
from palaestra.runs.export.layout import REPLAY
from palaestra.runs.export.results import of_checkpoint
from palaestra.runs.report.format import counted, duration, listed, number

Row = dict[str, Any]

_FIGURES = ("score", "return", "regret")
_TASK = {"type": "reinforcement-learning", "name": "reinforcement-learning"}


def card(
    name: str,
    config: RunConfig,
    results: Row,
    pictures: Sequence[str],
    notes: Sequence[str],
) -> str:
    """Return the text of `README.md`.

    Args:
      name: of the export.
      config: of the run.
      results: what `results_of` returned.
      pictures: files that show the replay.
      notes: what has to be said about the replay.
    """
    front = yaml.safe_dump(_front_matter(name, config, results), sort_keys=False)
    parts = [
        f"---\n{front}---\n\n# {name}\n",
        _introduction(config, results),
        *_results(results),
        _use(name, config),
        _replay(pictures, notes),
        _training(results),
        _versions(results),
    ]
    return "\n".join(parts)


def _front_matter(name: str, config: RunConfig, results: Row) -> Row:
    tags = ["reinforcement-learning", config.env.id, config.agent["name"]]
    tags += [config.policy["name"]] if config.policy else []
    index = [entry for e in of_checkpoint(results) if e["trained"] for entry in _index(e)]
    front: Row = {
        "library_name": "palaestra",
        "pipeline_tag": "reinforcement-learning",
        "tags": list(dict.fromkeys([*tags, "palaestra"])),
    }
    # A hub refuses an index without results.
    return front | ({"model-index": [{"name": name, "results": index}]} if index else {})


def _index(evaluation: Row) -> Iterable[Row]:
    """Yield the results of one evaluation in the schema of hubs, one entry a task."""
    for task in evaluation["tasks"]:
        metrics = [
            {"type": kind, "name": title, "value": estimate["mean"]}
            for kind, title, estimate in (
                ("mean_reward", "mean return", task["metrics"].get("return")),
                ("score", "mean score", task["score"]),
            )
            if estimate is not None and estimate["mean"] is not None
        ]
        yield {
            "task": dict(_TASK),
            "dataset": {"name": task["id"], "type": task["env_id"]},
            "metrics": metrics,
        }


def _introduction(config: RunConfig, results: Row) -> str:
    policy = f" with policy `{config.policy['name']}`" if config.policy else ""
    purpose = f"\n{config.description}\n" if config.description else ""
    return (
        f"An agent trained with Palaestra: `{config.agent['name']}`{policy} on `{config.env.id}`, "
        f"{results['agent_steps']:,} agent steps, seed {config.seed}.\n{purpose}"
    )


def _results(results: Row) -> Iterable[str]:
    """Yield the section of results, one table a suite."""
    yield "## Results\n"
    found = of_checkpoint(results)
    if not found:
        yield "These weights were not evaluated; `palaestra evaluate` does it, see below.\n"
        return
    for suite in dict.fromkeys(e["suite"] for e in found):
        evaluations = [e for e in found if e["suite"] == suite]
        yield f"### {suite}\n"
        yield "\n".join(_table(sorted(evaluations, key=lambda e: not e["trained"]))) + "\n"
        yield _read_with(evaluations)


def _table(evaluations: Sequence[Row]) -> Iterable[str]:
    yield "| task | agent | mode | score | return | regret | episodes |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for evaluation in evaluations:
        agent = f"**{evaluation['agent']}**" if evaluation["trained"] else evaluation["agent"]
        seeds = len(evaluation["seeds"])
        for task in evaluation["tasks"]:
            estimates = {**task["metrics"], "score": task["score"]}
            figures = " | ".join(_figure(estimates.get(name)) for name in _FIGURES)
            played = f"{counted(seeds, 'seed')} x {task['episodes']:,}"
            yield f"| {task['id']} | {agent} | {evaluation['mode']} | {figures} | {played} |"
        if len(evaluation["tasks"]) > 1:
            iqm = _interval(*(evaluation["aggregate"]["iqm"][k] for k in ("value", "low", "high")))
            yield f"| all, IQM | {agent} | {evaluation['mode']} | {iqm} | | | |"


def _figure(estimate: Row | None) -> str:
    if estimate is None:
        return ""
    return _interval(estimate["mean"], estimate["mean_low"], estimate["mean_high"])


def _interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    text = number(value)
    known = low is not None and high is not None
    return f"{text} [{number(low)}, {number(high)}]" if known else text  # type: ignore[arg-type]


def _read_with(evaluations: Sequence[Row]) -> str:
    """Return what has to be known to read the table."""
    intervals = evaluations[0]["intervals"]
    warnings = dict.fromkeys(w for e in evaluations for w in e.get("warnings", []))
    lines = [
        f"Means with {100 * intervals['level']:.0f} % intervals over evaluation "
        f"{intervals['over']} ({intervals['method']}). One trained agent: the intervals say "
        "nothing about other training seeds. The agent in bold is this one; every agent played "
        "the same episodes.",
        f"Protocol: {evaluations[0]['protocol']}.",
    ]
    return "\n\n".join([*lines, *(f"Warning: {w}" for w in warnings)]) + "\n"


def _use(name: str, config: RunConfig) -> str:
    asked = f" --suite {config.evaluation.suite}" if config.evaluation else " --suite SUITE"
    needs = ""
    if config.plugins:
        needs = (
            f"\nThe agent needs {listed([f'`{p}`' for p in config.plugins])}, which this folder "
            "does not bring. Install what you trust, then allow it with `--allow-plugin`.\n"
        )
    return f"""## Use

    palaestra evaluate {name}{asked}

plays the agent on a suite. In Python:

```python
from pathlib import Path

import palaestra.envs
from palaestra.runs.export.read import ExportedActors

actors = ExportedActors(Path("{name}"))
config = actors.config.env
env = palaestra.envs.make_vec(config.id, 1, config.wrappers, **config.options)
actor = actors(env.single_observation_space, env.single_action_space)
```

Every file is checked against `manifest.json` first, nothing is unpickled, and no code is taken from
this folder.
{needs}"""


def _replay(pictures: Sequence[str], notes: Sequence[str]) -> str:
    shown = "".join(f"![replay]({picture})\n\n" for picture in pictures)
    said = "".join(f"{note}\n\n" for note in notes)
    return f"## Replay\n\n{shown}{said}`{REPLAY}` holds every step of some episodes.\n"


def _training(results: Row) -> str:
    training = results["training"]
    seconds = training.get("wall_seconds")
    lines = [
        f"- run `{results['run_id']}`, seed {training['seed']}",
        f"- {results['agent_steps']:,} agent steps of {training['total_steps']:,} in these weights",
        f"- status of the run: {training.get('status')}",
    ]
    if seconds is not None:
        lines.append(f"- {duration(seconds)} of training (last attempt)")
    return "## Training\n\n" + "\n".join(lines) + "\n\nEvery setting is in `config.yaml`.\n"


def _versions(results: Row) -> str:
    packages = {**(results["training"].get("packages") or {})}
    packages["python"] = results["training"].get("python")
    lines = [f"- {name} {version}" for name, version in packages.items() if version]
    return "## Versions of training\n\n" + "\n".join(lines) + "\n"
