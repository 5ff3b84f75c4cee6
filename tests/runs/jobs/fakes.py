"""A Ray Jobs client in memory, with the methods and errors of Ray's."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass
class FakeClient:
    """Jobs by submission id; `rivals` are submitted by others just before our next submission."""

    jobs: dict[str, SimpleNamespace] = field(default_factory=dict)
    rivals: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    submitted: list[dict[str, Any]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    log: str = "hello\n"

    def add(self, submission_id: str, status: str, **metadata: str) -> None:
        metadata.setdefault("run_id", submission_id.rpartition("-a")[0])
        self.jobs[submission_id] = SimpleNamespace(
            submission_id=submission_id,
            status=status,
            metadata=metadata,
            start_time=1000 * len(self.jobs),
            end_time=None,
            message="",
        )

    def list_jobs(self) -> list[SimpleNamespace]:
        foreign = SimpleNamespace(submission_id=None, metadata=None)  # a driver of its own
        return [foreign, *self.jobs.values()]

    def get_job_info(self, submission_id: str) -> SimpleNamespace:
        return self.jobs[submission_id]

    def submit_job(self, *, submission_id: str, **job: Any) -> str:
        if self.rivals:
            rival, metadata = self.rivals.pop(0)
            self.add(rival, "PENDING", **metadata)
        if submission_id in self.jobs:
            raise RuntimeError(f"Job with submission_id {submission_id} already exists.")
        self.submitted.append({"submission_id": submission_id, **job})
        self.add(submission_id, "PENDING", **job["metadata"])
        return submission_id

    def stop_job(self, submission_id: str) -> bool:
        self.stopped.append(submission_id)
        return self.jobs[submission_id].status == "RUNNING"

    def get_job_logs(self, submission_id: str) -> str:
        return self.log

    async def tail_job_logs(self, submission_id: str) -> AsyncIterator[str]:
        """Break off once in the middle; the next connection starts again and sees the end."""
        first = self.jobs[submission_id].status == "PENDING"
        self.jobs[submission_id].status = "RUNNING" if first else "SUCCEEDED"
        for line in self.log.splitlines(keepends=True)[: 1 if first else None]:
            yield line
        if first:
            raise OSError("connection lost")
