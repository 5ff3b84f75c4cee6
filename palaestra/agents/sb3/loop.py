"""The training loop of Stable-Baselines3 cut into rounds that can be stopped and resumed.

A round does what one iteration of the algorithm's `learn()` does (several, where one takes a few
steps only), so that all rounds together end in the parameters that `learn()` ends in.
"""

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from palaestra.agents.finite import check_finite
from palaestra.agents.loop import EpisodeBatch, Iteration, Loop
from palaestra.agents.sb3 import state as state_of
from palaestra.agents.sb3.environments import RecordedVecEnv
from palaestra.agents.sb3.generators import GlobalGenerators
from palaestra.agents.sb3.native_envs import NativeVecEnv
from palaestra.envs.finite import describe_fault, not_finite
from palaestra.errors import NotFiniteError
from palaestra.experience.fragment import map_tree
from palaestra.experience.weights import Weights
from palaestra.seeding import Role, integer, integers

_COUNTERS = (
    "num_timesteps",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "_current_progress_remaining",
    "exploration_rate",
)
"""Plain attributes of the algorithms that decide what they do next, where they have them."""


class SB3Loop(Loop):
    """An algorithm of Stable-Baselines3 at work.

    Args:
      algorithm: the Stable-Baselines3 object that trains.
      envs: what it trains on, as `make_envs` gives them.
      generators: the streams that it draws from, within which it was made.
      seed: of the run.
      total_steps: of the run, over all environments.
      steps: of every environment in one round, where the algorithm leaves it open.
      acting: attribute of its policy that chooses actions; the policy itself if empty.
    """

    def __init__(
        self,
        algorithm: Any,
        envs: RecordedVecEnv | NativeVecEnv,
        generators: GlobalGenerators,
        seed: int,
        total_steps: int,
        steps: int,
        acting: str = "",
    ) -> None:
        self.algorithm = algorithm
        self.generators = generators
        self.envs = envs
        self.restores_environments = envs.restores
        self.steps = steps
        self.recorder = EpisodeRecorder()
        self._seed, self._resets, self._cut = seed, 0, False
        with generators:
            algorithm.set_logger(Logger(folder=None, output_formats=[]))
            algorithm._setup_learn(total_steps, self.recorder)
            self.recorder.on_training_start({}, {})
        self._acting = getattr(algorithm.policy, acting) if acting else algorithm.policy

    def advance(self) -> Iteration:
        """Collect and learn once.

        Raises:
          NotFiniteError: a loss or a weight is infinite or not a number.
        """
        before, self._cut = self.algorithm.num_timesteps, False
        try:
            with self.generators:
                metrics, collect_s, learn_s = self._iterate()
        except ValueError:
            # torch's distributions refuse what such weights give, before a loss is recorded.
            self._check({})
            raise
        self._check(metrics)
        taken = self.algorithm.num_timesteps - before
        return Iteration(
            taken,
            taken,
            metrics,
            self.recorder.take(self.envs.sum_names),
            collect_s,
            learn_s,
        )

    @abstractmethod
    def _iterate(self) -> tuple[dict[str, float], float, float]:
        """Collect and learn; return the metrics and the seconds of both."""

    def _check(self, metrics: dict[str, float]) -> None:
        updates = self.algorithm._n_updates
        check_finite(metrics, updates, "the last checkpoint has the last finite weights")
        if not state_of.is_finite(self.algorithm.policy):
            raise NotFiniteError(
                f"update {updates}: a weight is infinite or not a number; the last checkpoint has "
                "the last finite ones. Look for rewards or observations that are infinite or very "
                "large; a smaller learning rate can help."
            )

    def weights(self) -> Weights:
        """Return a copy of the parameters and buffers that act."""
        return {name: array.copy() for name, array in state_of.weights(self._acting).items()}

    def reset_environments(self) -> None:
        """Cut every episode short and start others; the cut ones are not recorded."""
        self._resets, self._cut = self._resets + 1, True
        seeds = integers(self._seed, Role.ENV, range(self.envs.num_envs))
        self.envs._seeds = [integer(seed, Role.ENV, self._resets) for seed in seeds]
        with self.generators:
            self.algorithm._last_obs = self.algorithm.env.reset()
        self.algorithm._last_episode_starts = np.ones(len(seeds), bool)

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimiser, counters, streams and where the environments are."""
        a = self.algorithm
        return {
            "networks": state_of.weights(a.policy),
            "optimizer": state_of.optimizer_state(a.policy.optimizer, a.policy),
            "counters": {name: getattr(a, name) for name in _COUNTERS if hasattr(a, name)},
            "observation": map_tree(np.copy, a._last_obs),
            "episode_starts": a._last_episode_starts.copy(),
            "generators": self.generators.state_dict(),
            "action_spaces": [x.np_random.bit_generator.state for x in self.envs.action_spaces],
            "resets": self._resets,
            "environments": None if self._cut else self.envs.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken.

        Raises:
          UserError: the environments cannot be brought where they were.
        """
        a = self.algorithm
        state_of.load_weights(a.policy, state["networks"])
        state_of.load_optimizer_state(a.policy.optimizer, a.policy, state["optimizer"])
        for name, value in state["counters"].items():
            setattr(a, name, value)
        a._last_obs = map_tree(np.copy, state["observation"])
        a._last_episode_starts = state["episode_starts"].copy()
        self._resets = state["resets"]
        if state["environments"] is None:
            self._resets -= 1  # the run itself made this reset before it took the state
            self.reset_environments()
        else:
            with self.generators:
                self.envs.set_state(state["environments"])
        self.generators.load_state_dict(state["generators"])
        for space, stream in zip(self.envs.action_spaces, state["action_spaces"], strict=True):
            space.np_random.bit_generator.state = stream

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()


class OnPolicyLoop(SB3Loop):
    """PPO, A2C and recurrent PPO: a round is one rollout of `n_steps` and one update from it."""

    def _iterate(self) -> tuple[dict[str, float], float, float]:
        a = self.algorithm
        start = time.perf_counter()
        a.collect_rollouts(a.env, self.recorder, a.rollout_buffer, n_rollout_steps=a.n_steps)
        a._update_current_progress_remaining(a.num_timesteps, a._total_timesteps)
        collected = time.perf_counter()
        a.train()
        metrics = collect_metrics(a.logger)
        return metrics, collected - start, time.perf_counter() - collected

    def state_dict(self) -> dict[str, Any]:
        """Return the shared state and the memory of a recurrent policy."""
        state = super().state_dict()
        memory = getattr(self.algorithm, "_last_lstm_states", None)
        if memory is not None:
            state["memory"] = [[x.numpy(force=True) for x in part] for part in memory]
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        super().load_state_dict(state)
        if "memory" in state:
            a = self.algorithm
            parts = [
                tuple(torch.from_numpy(np.array(x)).to(a.device) for x in part)
                for part in state["memory"]
            ]
            a._last_lstm_states = type(a._last_lstm_states)(*parts)


class OffPolicyLoop(SB3Loop):
    """DQN and QR-DQN: a round is as many iterations as fill `steps` steps of every environment."""

    def _iterate(self) -> tuple[dict[str, float], float, float]:
        a = self.algorithm
        end = min(a.num_timesteps + self.steps * a.n_envs, a._total_timesteps)
        logs: list[dict[str, float]] = []
        collect_s = learn_s = 0.0
        while a.num_timesteps < end:
            start = time.perf_counter()
            rollout = a.collect_rollouts(
                a.env,
                train_freq=a.train_freq,
                action_noise=None,
                callback=self.recorder,
                learning_starts=a.learning_starts,
                replay_buffer=a.replay_buffer,
                log_interval=None,
            )
            collected = time.perf_counter()
            self._learn(rollout.episode_timesteps)
            logs.append(collect_metrics(a.logger))
            collect_s += collected - start
            learn_s += time.perf_counter() - collected
        return mean_metrics(logs), collect_s, learn_s

    def _learn(self, steps_taken: int) -> None:
        a = self.algorithm
        gradient_steps = a.gradient_steps if a.gradient_steps >= 0 else steps_taken
        if a.num_timesteps > a.learning_starts and gradient_steps > 0:
            a.train(batch_size=a.batch_size, gradient_steps=gradient_steps)

    def reset_environments(self) -> None:
        """Cut every episode short; the replay buffer learns that nothing follows its last step."""
        super().reset_environments()
        buffer = self.algorithm.replay_buffer
        if buffer.size():
            last = buffer.pos - 1
            buffer.timeouts[last] = np.maximum(buffer.timeouts[last], 1 - buffer.dones[last])

    def state_dict(self) -> dict[str, Any]:
        """Return the shared state and the filled part of the replay buffer."""
        replay = state_of.replay_state(self.algorithm.replay_buffer)
        return super().state_dict() | {"replay": replay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        super().load_state_dict(state)
        state_of.load_replay_state(self.algorithm.replay_buffer, state["replay"])


class EpisodeRecorder(BaseCallback):
    """Notes the episodes that end while an algorithm collects, and looks at its numbers.

    Raises:
      NotFiniteError: an observation or a reward is not finite; nothing was learned from it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ended: list[tuple[int, dict[str, Any]]] = []

    def _on_step(self) -> bool:
        dones, infos = self.locals["dones"], self.locals["infos"]
        self._look(self.locals["new_obs"], self.locals["rewards"], range(len(dones)))
        if dones.any():
            for row in np.flatnonzero(dones).tolist():
                final = map_tree(lambda x: np.asarray(x)[None], infos[row]["terminal_observation"])
                self._look(final, np.zeros(1), [row])
            self._ended += [(int(row), infos[row]["episode"]) for row in np.flatnonzero(dones)]
        return True

    def _look(self, observation: Any, reward: np.ndarray, rows: Sequence[int]) -> None:
        bad = not_finite(observation, reward)
        if bad is not None:
            index = int(np.flatnonzero(bad)[0])
            raise NotFiniteError(
                f"environment row {rows[index]}, agent step {self.num_timesteps} of the run: "
                f"{describe_fault(index, observation, reward)}; finite numbers are accepted."
            )

    def take(self, sum_names: tuple[str, ...]) -> EpisodeBatch:
        """Return the episodes since the last call."""
        rows, records = [row for row, _ in self._ended], [record for _, record in self._ended]
        self._ended = []
        return EpisodeBatch(
            np.array(rows, np.int64),
            np.array([record["r"] for record in records], np.float64),
            np.array([record["l"] for record in records], np.int64),
            {name: np.array([record[name] for record in records]) for name in sum_names},
        )


_NAMES = {"train/policy_gradient_loss": "train/policy_loss"}
"""Names of the same thing; all others are kept."""

_LATEST = ("train/learning_rate", "train/n_updates", "rollout/exploration_rate")
"""Values that describe a moment; all others are averaged over the updates of a round."""


def collect_metrics(logger: Any) -> dict[str, float]:
    """Return what an algorithm has recorded since the last call."""
    metrics = {_NAMES.get(name, name): float(value) for name, value in logger.name_to_value.items()}
    if "train/entropy_loss" in metrics:
        metrics["train/entropy"] = -metrics.pop("train/entropy_loss")
    logger.dump()  # writes nowhere and forgets the values
    return metrics


def mean_metrics(logs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the metrics of several updates as those of one; not all have to log all names."""
    columns: dict[str, list[float]] = {}
    for log in logs:
        for name, value in log.items():
            columns.setdefault(name, []).append(value)
    return {
        name: values[-1] if name in _LATEST else float(np.mean(values))
        for name, values in columns.items()
    }
