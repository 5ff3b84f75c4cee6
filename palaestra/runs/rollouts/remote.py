"""Rollout workers as Ray actors, with restarts owned by this process.

Synchronous: every worker collects one fragment with the same weights, then the learner learns.
Each reply carries the worker's state after it, so a fragment lost in a crash is collected again
exactly, where the environments can give their state.
"""

import logging
import os
import socket
import traceback
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from palaestra.envs.wrappers.statistics import Statistics, merge_statistics
from palaestra.errors import NotFiniteError, RunError, UserError
from palaestra.experience.weights import Weights
from palaestra.runs.config import RunConfig
from palaestra.runs.rollouts.worker import Rollout, Worker
from palaestra.runs.store.random_state import (
    global_random_state,
    seed_globals,
    set_global_random_state,
)

START_TIMEOUT_S = 300
"""Seconds that a worker may take to start: to find a place, import and make its environments."""


INLINE_BYTES = 80_000
"""Weights up to this size are sent to each worker, larger ones are stored once for all."""


class RayRollouts:
    """Workers in Ray actors.

    Args:
      config: the run's configuration; `rollout.address` joins a cluster, else Ray starts here.

    Attributes:
      failures: one record for each restart: worker, reason, traceback.

    Raises:
      UserError: the address does not answer, or the cluster has too few CPUs.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.failures: list[dict[str, Any]] = []
        self._version: int | None = None
        self._weights: Any = None
        self._slots = [_Slot(i) for i in range(config.rollout.workers)]
        cpus = config.rollout.workers * config.rollout.threads_per_worker
        self._owns_ray = connect(config.rollout.address, cpus)
        try:
            for slot in self._slots:
                self._start(slot)
            # Wait here, so that an environment that cannot be made fails at once and by name.
            for slot in self._slots:
                self._await_start(slot)
            self.restores_environments, self.frames_per_step = ray.get(
                self._slots[0].actor.facts.remote()
            )
        except Exception:
            self.close()
            raise

    def request(self, worker: int, weights: Weights, version: int) -> None:
        """Ask a worker for its next fragment; weights travel if it does not have this version."""
        slot = self._slots[worker]
        if version != self._version:
            # Small ones travel with the call; the object store would add a millisecond at each end.
            large = sum(x.nbytes for x in weights.values()) > INLINE_BYTES
            self._version, self._weights = version, ray.put(weights) if large else weights
        slot.wanted.append((self._weights, version))
        self._call(slot, self._weights, version)

    def receive(self) -> Rollout:
        """Return the next fragment that is done; a worker that failed is started again.

        Raises:
          RunError: workers failed too often, or one cannot be brought where it was.
        """
        oldest = {slot.calls[0]: slot for slot in self._slots if slot.calls}
        done, waiting = ray.wait(list(oldest), timeout=self.config.rollout.timeout_s)
        return self._take(oldest[(done or waiting)[0]])

    def collect(self, weights: Weights, version: int) -> list[Rollout]:
        """Return one fragment from each worker, in order; failed workers are started again."""
        for slot in self._slots:
            self.request(slot.index, weights, version)
        # Fetches all of them at once; who failed or is late is found out one by one.
        calls = [slot.calls[0] for slot in self._slots]
        ray.wait(calls, num_returns=len(calls), timeout=self.config.rollout.timeout_s)
        return [self._take(slot) for slot in self._slots]

    def _call(self, slot: "_Slot", weights: Any, version: int) -> None:
        known = slot.version == version
        slot.calls.append(slot.actor.collect.remote(None if known else weights, version))
        slot.version = version

    def _take(self, slot: "_Slot") -> Rollout:
        while True:
            try:
                rollout, slot.state = ray.get(slot.calls[0], timeout=self.config.rollout.timeout_s)
                slot.calls.popleft()
                slot.wanted.popleft()
                taken: Rollout = rollout
                return taken
            except RayTaskError as error:
                if isinstance(error.cause, UserError | NotFiniteError):
                    raise _cause(error) from None
                self._restart(slot, f"{type(error.cause).__name__}: {error.cause}", str(error))
            except RayError as error:  # the process died, or was silent for too long
                self._restart(slot, type(error).__name__, traceback.format_exc())

    def _restart(self, slot: "_Slot", reason: str, trace: str) -> None:
        self.failures.append({"worker": slot.index, "reason": reason, "traceback": trace})
        if len(self.failures) > self.config.rollout.max_restarts:
            raise RunError(
                f"worker {slot.index} failed ({reason}) and rollout.max_restarts="
                f"{self.config.rollout.max_restarts} is used up. Its traceback:\n{trace}"
            )
        ray.kill(slot.actor)
        self._start(slot)
        self._await_start(slot)
        slot.calls.clear()
        for weights, version in slot.wanted:
            self._call(slot, weights, version)

    def _start(self, slot: "_Slot") -> None:
        threads = self.config.rollout.threads_per_worker
        caps = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        # Where the environments cannot be restored, the worker plays other episodes than before.
        restored = slot.state is not None and slot.state["env"] is not None
        attempt = 0 if restored or slot.state is None else slot.starts
        slot.actor = _RemoteWorker.options(  # type: ignore[attr-defined]
            num_cpus=threads, runtime_env={"env_vars": caps}, max_restarts=0, max_task_retries=0
        ).remote(self.config.model_dump(mode="json"), slot.index, attempt, threads)
        slot.starts += 1
        slot.version = None
        slot.loading = slot.actor.load_state_dict.remote(slot.state) if restored else None

    def _await_start(self, slot: "_Slot") -> None:
        try:
            ray.get(slot.actor.ready.remote(), timeout=START_TIMEOUT_S)
        except RayTaskError as error:
            raise _cause(error) from None
        except RayActorError as error:
            raise _init_cause(error) from None
        except GetTimeoutError:
            raise RunError(
                f"worker {slot.index} did not start within {START_TIMEOUT_S} s."
            ) from None
        try:
            if slot.loading is not None:
                ray.get(slot.loading)
        except RayError as error:
            reason = error.cause if isinstance(error, RayTaskError) else error
            raise RunError(
                f"worker {slot.index} was started again and cannot be brought where it was: "
                f"{reason}"
            ) from None

    def wrapper_statistics(self) -> dict[str, Statistics]:
        """Return what normalising wrappers have gathered, of all workers together.

        Raises:
          RunError: a worker died meanwhile.
        """
        if not self.config.env.wrappers:
            return {}
        calls = [slot.actor.wrapper_statistics.remote() for slot in self._slots]
        try:
            return merge_statistics(ray.get(calls))
        except RayError as error:
            raise RunError(f"a worker failed while its statistics were read: {error}") from error

    def reset_environments(self) -> None:
        """Cut every episode short.

        Raises:
          RunError: a worker died meanwhile.
        """
        try:
            states = ray.get([slot.actor.reset_environments.remote() for slot in self._slots])
        except RayError as error:
            raise RunError(f"a worker failed while its environments were reset: {error}") from error
        for slot, state in zip(self._slots, states, strict=True):
            slot.state = state

    def state_dict(self) -> dict[str, Any]:
        """Return the state of every worker."""
        for slot in self._slots:
            if slot.state is None:  # no fragment yet that could have brought it
                slot.state = ray.get(slot.actor.state_dict.remote())
        return {str(slot.index): slot.state for slot in self._slots}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the state of every worker."""
        for slot in self._slots:
            slot.state = state[str(slot.index)]
        ray.get([slot.actor.load_state_dict.remote(slot.state) for slot in self._slots])

    def close(self) -> None:
        """End the workers, and Ray where it was started here."""
        for slot in self._slots:
            if slot.actor is not None:
                ray.kill(slot.actor)
        if self._owns_ray:
            ray.shutdown()


@dataclass
class _Slot:
    """A worker's place; the actor in it may be replaced."""

    index: int
    actor: Any = None
    version: int | None = None  # of the weights that the worker has
    wanted: deque[tuple[Any, int]] = field(default_factory=deque)  # weights and version
    calls: deque[Any] = field(default_factory=deque)  # one for each that is wanted, in order
    loading: Any = None  # the call that brings a new worker where the former one was
    state: dict[str, Any] | None = None  # of the worker after its last fragment
    starts: int = 0


@ray.remote
class _RemoteWorker:
    """A `Worker` in a process of its own."""

    def __init__(self, config: dict[str, Any], index: int, attempt: int, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        from palaestra.runs.config import resolve

        resolved = resolve(config)
        seed_globals(resolved.seed, index, attempt)
        self.worker = Worker(resolved, index, attempt)

    def ready(self) -> bool:
        """Answer once the environments stand."""
        return True

    def facts(self) -> tuple[bool, int]:
        """Return whether the state holds where the environments are, and frames of a step."""
        return self.worker.restores_environments, self.worker.frames_per_step

    def collect(self, weights: Weights | None, version: int) -> tuple[Rollout, dict[str, Any]]:
        """Return the next fragment and the worker's state after it."""
        return self.worker.collect(weights, version), self.state_dict()

    def wrapper_statistics(self) -> dict[str, Statistics]:
        """Return what normalising wrappers have gathered."""
        return self.worker.wrapper_statistics()

    def reset_environments(self) -> dict[str, Any]:
        """Cut every episode short and return the worker's state."""
        self.worker.reset_environments()
        return self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return the worker's state and this process's global generators."""
        return {**self.worker.state_dict(), "random": global_random_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the worker's state."""
        self.worker.load_state_dict(state)
        # Absent where the checkpoint was made by workers in one process.
        if "random" in state:
            set_global_random_state(state["random"])


def connect(address: str | None, num_cpus: int) -> bool:
    """Connect this process to Ray and return whether it has to shut Ray down again.

    Args:
      address: host:port, ray://host:port or "auto"; None starts a local Ray of `num_cpus` CPUs.
      num_cpus: CPUs that the workers need.

    Raises:
      UserError: nothing answers at the address, or the cluster has too few CPUs.
    """
    if ray.is_initialized():
        return False
    if address is None:
        ray.init(
            address="local",  # whatever RAY_ADDRESS says: --address alone joins a cluster
            num_cpus=max(num_cpus, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        return True
    _check_address(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise UserError(
            f"Ray at {address!r} cannot be joined: {error}. If the cluster asks for a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH as on its head."
        ) from None
    offered = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    if offered < num_cpus:
        ray.shutdown()
        raise UserError(
            f"rollout.workers: {num_cpus} CPUs are needed, but {address!r} offers {offered}."
        )
    return True


def _check_address(address: str) -> None:
    """Raise unless something listens there: Ray itself waits for minutes before it gives up."""
    if address == "auto":
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if "//" in host or not colon or not port.isdigit():
        raise UserError(
            f"Ray address {address!r}: accepted are host:port, ray://host:port and auto."
        )
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(
            f"Ray at {address!r} does not answer ({error}). Start one with `ray start --head`, "
            "or leave --address out to use this machine."
        ) from None


def _cause(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, UserError | NotFiniteError):
        return cause  # Ray made it anew, without the frames of the worker
    return RunError(str(error))


def _init_cause(error: RayActorError) -> Exception:
    """Return what an actor's constructor raised; a user's error without Ray's frames."""
    inner = getattr(error, "cause", None) or error.__cause__
    if isinstance(inner, RayTaskError):
        return _cause(inner)
    text = str(error)
    marker = "palaestra.errors.UserError: "
    if marker in text:
        return UserError(text.rpartition(marker)[2].strip())
    return RunError(text)
