"""Submission: a run becomes a job, and submitting it again attaches to it or resumes it.

A Ray job is one try. Its id is the run's with the number of the attempt, `<run-id>-a<n>`, so that
whoever submits the same run finds what there is: an active attempt, a run that is complete,
or one that the next attempt resumes from its last checkpoint.
"""

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from palaestra.errors import RunError, UserError
from palaestra.runs.config import (
    RunConfig,
    config_difference,
    config_hash,
    default_run_id,
    dump_yaml,
)
from palaestra.runs.jobs.client import Cluster, Submission, connect
from palaestra.runs.jobs.package import Upload, make_upload
from palaestra.runs.jobs.watch import follow
from palaestra.runs.progress import say
from palaestra.runs.store.folder import RunFolder, check_run_id
from palaestra.runs.store.record import RunRecord

STOP_WAIT_S = 600
"""Seconds that a job has to save a checkpoint once it is asked to stop."""

_TRIES = 3  # submitters of one run that may come first


@dataclass(frozen=True)
class Job:
    """A run, ready to be submitted.

    Attributes:
      config: the resolved configuration.
      run_id: name of the run.
      storage: absolute path of the runs directory on all nodes.
      upload: what the cluster lacks.
      cpus: CPUs reserved for the process that learns; 0 reserves none.
    """

    config: RunConfig
    run_id: str
    storage: Path
    upload: Upload
    cpus: float = 0

    @property
    def entrypoint(self) -> str:
        """The command that the job runs in its working directory."""
        train = ["python", "-m", "palaestra", "train", "config.yaml"]
        return shlex.join([*train, "--run-id", self.run_id, "--resume", "auto"])

    @property
    def metadata(self) -> dict[str, str]:
        """What the cluster stores beside the job."""
        return {
            "run_id": self.run_id,
            "experiment": self.config.experiment,
            "config_hash": config_hash(self.config),
            "storage": str(self.storage),
        }

    def environment(self, submission_id: str) -> dict[str, str]:
        """Return the environment variables of the job and its workers."""
        variables = {
            "PALAESTRA_RUNS": str(self.storage),
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
            "RAY_JOB_SUBMISSION_ID": submission_id,
        }
        if sys.prefix != sys.base_prefix:
            # A head that was started without activating its virtual environment would find the
            # system's python. Nodes that lack this folder find theirs. Ray fills in ${PATH}.
            variables["PATH"] = f"{Path(sys.prefix) / 'bin'}:${{PATH}}"
        return variables


@dataclass(frozen=True)
class Decision:
    """What submitting a run comes to: attach to `submission_id`, submit it, or nothing."""

    what: Literal["attach", "submit", "done"]
    submission_id: str | None = None


def prepare(
    config: RunConfig,
    run_id: str | None = None,
    *,
    storage: Path,
    include: Sequence[Path] = (),
    cpus: float = 0,
) -> Job:
    """Return a run as a job; nothing is written or sent.

    Args:
      config: the resolved configuration.
      run_id: name of the run; None derives it from the configuration.
      storage: the runs directory, which all nodes have to see.
      include: files and folders of the working directory that the run needs.
      cpus: CPUs reserved for the process that learns.

    Raises:
      UserError: a bad run id, an upload that cannot be made, or a run of another configuration.
    """
    run_id = check_run_id(run_id or default_run_id(config))
    storage = storage.absolute()
    check_same_configuration(config, storage / run_id)
    text = dump_yaml(_on_cluster(config))
    return Job(config, run_id, storage, make_upload(text, config.plugins, include, storage), cpus)


def submit(cluster: Cluster, job: Job) -> Decision:
    """Submit a run where that is needed, and return what was done.

    Raises:
      UserError: an attempt with another configuration is active.
      RunError: the cluster does not take the job.
    """
    for _ in range(_TRIES):
        earlier = cluster.submissions(job.run_id)
        decision = decide(job.run_id, earlier, is_complete(job.config, job.storage / job.run_id))
        if decision.what == "attach":
            _check_same_hash(job, next(s for s in earlier if s.id == decision.submission_id))
        if decision.what != "submit" or _send(cluster, job, decision.submission_id or ""):
            return decision
        # Another submitter was faster: look again, and attach to its job.
    raise RunError(
        f"{decision.submission_id!r} is taken on {cluster.address} by a job that is not a run's "
        "attempt; choose another --run-id."
    )


def decide(run_id: str, earlier: Sequence[Submission], complete: bool) -> Decision:
    """Return what submitting a run comes to.

    Args:
      run_id: name of the run.
      earlier: its submissions on the cluster.
      complete: whether its folder says that nothing is left to do.
    """
    active = [s for s in earlier if s.active]
    if active:
        return Decision("attach", max(active, key=lambda s: s.attempt).id)
    if complete:
        return Decision("done")
    attempt = 1 + max((s.attempt for s in earlier), default=0)
    return Decision("submit", f"{run_id}-a{attempt}")


def is_complete(config: RunConfig, folder: Path) -> bool:
    """Whether a run folder, where it can be seen, says that nothing is left to do."""
    return (folder / "manifest.json").is_file() and RunRecord.open(folder).is_complete(config)


def check_same_configuration(config: RunConfig, folder: Path) -> None:
    """Check that a run folder, if there is one, is of this configuration.

    Raises:
      UserError: it is not; the keys that differ are listed.
    """
    if not (folder / "manifest.json").is_file():
        return
    differences = config_difference(
        RunFolder.open(folder, allow_plugins=config.plugins).config(), config
    )
    if differences:
        raise UserError(
            f"run {folder.name!r} exists in {folder.parent} with another configuration; choose "
            "another --run-id, or the same values (there -> here):\n  " + "\n  ".join(differences)
        )


def submit_and_show(
    job: Job, address: str, *, follow_job: bool = False, as_json: bool = False
) -> int:
    """Submit a run, say what was done and return the exit code.

    Raises:
      UserError: the address does not answer, or the run cannot be submitted.
    """
    cluster = connect(address)
    decision = submit(cluster, job)
    result = {
        "run_id": job.run_id,
        "submission_id": decision.submission_id,
        "result": {"attach": "attached", "submit": "submitted", "done": "succeeded"}[decision.what],
        "address": address,
        "storage": str(job.storage),
    }
    say(_explain(job, decision, address))
    code = 0
    if follow_job and decision.submission_id is not None:
        ended, code = follow(cluster, decision.submission_id, sys.stderr if as_json else sys.stdout)
        result["status"] = ended.status
    if as_json:
        print(json.dumps(result))
    elif not follow_job:
        print(decision.submission_id or job.run_id)
    return code


def show_plan(job: Job, as_json: bool) -> None:
    """Print what would be submitted."""
    files = sorted(job.upload.files)
    packages = sorted({name.partition("/")[0] for name in files})
    facts = {
        "run_id": job.run_id,
        "entrypoint": job.entrypoint,
        "storage": str(job.storage),
        "upload_files": len(files),
        "upload_bytes": job.upload.size,
        "upload_top": packages,
    }
    if as_json:
        print(json.dumps({**facts, "config": job.config.model_dump(mode="json")}))
        return
    print(dump_yaml(_on_cluster(job.config)), end="")
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"# {name}: {shown:,}" if isinstance(shown, int) else f"# {name}: {shown}")


def _send(cluster: Cluster, job: Job, submission_id: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="palaestra-upload-") as folder:
        job.upload.write(Path(folder))
        return cluster.submit(
            submission_id,
            entrypoint=job.entrypoint,
            runtime_env={"working_dir": folder, "env_vars": job.environment(submission_id)},
            metadata=job.metadata,
            entrypoint_num_cpus=job.cpus or None,
        )


def _on_cluster(config: RunConfig) -> RunConfig:
    """Return the configuration with its Ray workers in the job's cluster."""
    workers = config.rollout.workers and config.rollout.backend == "ray"
    rollout = config.rollout.model_copy(update={"address": "auto" if workers else None})
    return config.model_copy(update={"rollout": rollout})


def _check_same_hash(job: Job, running: Submission) -> None:
    here, there = job.metadata["config_hash"], running.metadata.get("config_hash")
    if here != there:
        raise UserError(
            f"{running.id} is active with another configuration (hash {there}, here {here}); "
            f"choose another --run-id, or stop it: palaestra stop {running.id}"
        )


def _explain(job: Job, decision: Decision, address: str) -> str:
    if decision.what == "done":
        return (
            f"run {job.run_id} has succeeded already; nothing was submitted. "
            f"Its folder: {job.storage / job.run_id}"
        )
    done = "submitted" if decision.what == "submit" else "active already; attached to it"
    return (
        f"{decision.submission_id}: {done}. Run folder, on all nodes: {job.storage / job.run_id}\n"
        f"  palaestra logs {job.run_id} -f --address {address}\n"
        f"  palaestra stop {job.run_id} --address {address}"
    )
