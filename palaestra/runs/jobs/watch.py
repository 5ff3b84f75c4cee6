"""Watching a job: what it prints until it ends, and what that means for the caller."""

from typing import TextIO

from palaestra.runs.jobs.client import Cluster, Submission
from palaestra.runs.progress import say


def follow(cluster: Cluster, submission_id: str, stream: TextIO) -> tuple[Submission, int]:
    """Print what a job prints until it ends; return it with the exit code, 0 if it succeeded.

    Raises:
      KeyboardInterrupt: on Ctrl-C; the job continues, and the user is told so.
    """

    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    try:
        ended = cluster.follow(submission_id, write)
    except KeyboardInterrupt:
        say(
            f"\n{submission_id} continues without you. Follow it again: palaestra logs "
            f"{submission_id} -f; stop it: palaestra stop {submission_id} "
            f"(--address {cluster.address})"
        )
        raise
    say(f"{submission_id}: {ended.status}")
    return ended, 0 if ended.status == "SUCCEEDED" else 1
