"""The workers of a run in this process."""

from collections import deque
from typing import Any

from palaestra.envs.wrappers.statistics import Statistics, merge_statistics
from palaestra.experience.weights import Weights
from palaestra.runs.config import RunConfig
from palaestra.runs.rollouts.worker import Rollout, Worker


class LocalRollouts:
    """Workers in this process, one after another."""

    def __init__(self, config: RunConfig) -> None:
        self.workers = [Worker(config, i) for i in range(max(1, config.rollout.workers))]
        self._wanted: deque[tuple[int, Weights | None, int]] = deque()
        self._versions: list[int | None] = [None] * len(self.workers)

    def request(self, worker: int, weights: Weights, version: int) -> None:
        """Note what is asked for; it is collected when it is received."""
        self._wanted.append(
            (worker, None if self._versions[worker] == version else weights, version)
        )
        self._versions[worker] = version

    def receive(self) -> Rollout:
        """Return the fragment that was asked for first."""
        worker, weights, version = self._wanted.popleft()
        return self.workers[worker].collect(weights, version)

    def collect(self, weights: Weights, version: int) -> list[Rollout]:
        """Return one fragment from each worker."""
        for worker in range(len(self.workers)):
            self.request(worker, weights, version)
        return [self.receive() for _ in self.workers]

    @property
    def restores_environments(self) -> bool:
        """Whether the state holds where the environments are."""
        return all(worker.restores_environments for worker in self.workers)

    @property
    def frames_per_step(self) -> int:
        """Emulator frames of one environment step."""
        return self.workers[0].frames_per_step

    def wrapper_statistics(self) -> dict[str, Statistics]:
        """Return what normalising wrappers have gathered, of all workers together."""
        return merge_statistics([worker.wrapper_statistics() for worker in self.workers])

    def reset_environments(self) -> None:
        """Cut every episode short."""
        for worker in self.workers:
            worker.reset_environments()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every worker."""
        return {str(i): worker.state_dict() for i, worker in enumerate(self.workers)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the state of every worker."""
        for i, worker in enumerate(self.workers):
            worker.load_state_dict(state[str(i)])

    def close(self) -> None:
        """Close the environments."""
        for worker in self.workers:
            worker.close()
