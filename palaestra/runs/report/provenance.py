"""What a reader needs to trust and repeat a run: versions, machine, time, commands."""

from typing import Any

from palaestra.envs.suites.file import TRAINING
from palaestra.runs.config import suite_name
from palaestra.runs.report.format import counted, duration, number
from palaestra.runs.report.read import Evaluated, Run


def provenance(run: Run) -> dict[str, str]:
    """Return name -> text, without the entries that are not known."""
    manifest = run.manifest
    found = {
        "Run": run.name,
        "Status": _status(run),
        "Environment": _environment(run),
        "Agent": ", policy ".join(name for name in (run.agent_name, run.policy_name) if name),
        "Seed": "" if run.seed is None else str(run.seed),
        "Steps": _steps(run),
        "Time": _time(manifest),
        "Speed": _speed(run),
        "Code": _code(manifest.get("code_version") or {}),
        "Versions": _versions(manifest),
        "Machine": _machine(manifest),
        "Started": _moment(manifest.get("started")),
        "Ended": _moment(manifest.get("ended")),
    }
    return {name: text for name, text in found.items() if text}


def commands(run: Run) -> list[str]:
    """Return the commands that repeat the run from its own folder."""
    sha = (run.manifest.get("code_version") or {}).get("git_sha")
    again = f"{run.name}-again"
    # Training ends with the evaluation that the configuration asks for, and with a report.
    wanted = run.config.get("evaluation")
    own_suite = suite_name(wanted.get("suite")) if wanted else ""
    others = [i for i in run.last_evaluated() if i.agent == run.agent and i.suite != own_suite]
    return [
        *([f"git checkout {sha}"] if sha else []),
        f"palaestra train runs/{run.name}/config.yaml --run-id {again}",
        *(f"palaestra evaluate {again} {_settings(item)}" for item in others),
        *([f"palaestra report {again}"] if others or not own_suite else []),
    ]


def _settings(item: Evaluated) -> str:
    """Return the options with which the agent was evaluated."""
    seeds, mode = item.summary.get("seeds", []), item.summary.get("mode")
    # A run's environment, which is no suite that has a name, is played where none is named.
    parts = [] if item.suite == TRAINING else [f"--suite {item.suite}"]
    parts += [f"--seeds {len(seeds)}"] if seeds else []
    parts += [f"--mode {mode}"] if mode in ("sample", "greedy") else []
    return " ".join(parts)


def seconds(run: Run) -> float:
    """Return the wall-clock seconds of the run so far; 0 if unknown."""
    logged = run.metrics[-1].get("t", 0) if run.metrics else 0
    return float(run.manifest.get("wall_seconds") or logged or 0)


def steps_per_second(run: Run) -> float:
    """Return agent steps per wall-clock second over the whole run; 0 if unknown."""
    return run.steps / seconds(run) if seconds(run) else 0.0


def final_return(run: Run) -> float | None:
    """Return the mean training return over the last tenth of the metrics; None if unknown."""
    logged = [row["rollout/return"] for row in run.metrics if "rollout/return" in row]
    last = logged[-max(1, len(logged) // 10) :]
    return sum(last) / len(last) if last else None


def _status(run: Run) -> str:
    attempts = run.manifest.get("attempts") or []
    many = f", {counted(len(attempts), 'attempt')}" if len(attempts) > 1 else ""
    reason = f" ({run.reason})" if run.reason else ""
    return f"{run.status}{many}{reason}"


def _environment(run: Run) -> str:
    env = run.manifest.get("env")
    version = env.get("version") if isinstance(env, dict) else None
    return f"{run.env_id} (version {version})" if version else run.env_id


def _steps(run: Run) -> str:
    total = run.config.get("total_steps")
    text = f"{run.steps:,} agent steps"
    if isinstance(total, int) and run.steps < total:
        text += f" of {total:,}"
    return f"{text}, {counted(run.num_episodes, 'episode')}" if run.num_episodes else text


def _time(manifest: dict[str, Any]) -> str:
    wall = manifest.get("wall_seconds")
    return duration(wall) if wall else ""


def _speed(run: Run) -> str:
    speed = steps_per_second(run)
    return f"{number(speed)} agent steps per second over the whole run" if speed else ""


def _code(code: dict[str, Any]) -> str:
    sha = code.get("git_sha")
    if not sha:
        return ""
    return f"{sha[:12]}, with uncommitted changes" if code.get("dirty") else sha[:12]


def _versions(manifest: dict[str, Any]) -> str:
    packages = {"python": manifest.get("python"), **(manifest.get("packages") or {})}
    return ", ".join(f"{name} {version}" for name, version in packages.items() if version)


def _machine(manifest: dict[str, Any]) -> str:
    threads = manifest.get("torch_threads")
    parts = [manifest.get("platform"), manifest.get("device")]
    parts += [counted(threads, "torch thread")] if isinstance(threads, int) else []
    return ", ".join(str(part) for part in parts if part)


def _moment(stamp: Any) -> str:
    if not isinstance(stamp, str):
        return ""
    return stamp.replace("T", " ").replace("+00:00", " UTC")
