"""Proximal policy optimisation with memory (PPO, arXiv 1707.06347).

Works with every registered policy: those with memory learn on whole fragments as sequences, whose
resets are handled inside the policy (no padding), those without on single steps. The page
docs/algorithms/ppo.md lists what differs from the paper.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import mse_loss

from palaestra.agents import optimizers
from palaestra.agents.base import Agent, Learner
from palaestra.agents.device import send
from palaestra.agents.finite import check_finite
from palaestra.agents.policy_actor import PolicyActor, load_weights
from palaestra.agents.returns import fragment_advantage
from palaestra.agents.schedules import ScheduleOptions, make_schedule, remaining, schedule_field
from palaestra.agents.setup import Setup
from palaestra.agents.torch_options import TorchOptions, compiled, mixed_precision
from palaestra.experience.fragment import Fragment, map_tree
from palaestra.experience.state import State, concatenate
from palaestra.experience.weights import Weights
from palaestra.options import Options
from palaestra.policies.base import PolicyOutput
from palaestra.seeding import Role, generator, integer


class PPOConfig(TorchOptions):
    """Options of PPO; defaults follow Stable-Baselines3."""

    learning_rate: float = Field(3e-4, gt=0, description="the optimiser's step size")
    learning_rate_schedule: ScheduleOptions = schedule_field("the learning rate")
    gamma: float = Field(0.99, ge=0, le=1, description="discount of one environment step")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="bias-variance trade-off of GAE")
    reward_scale: float = Field(
        1.0, gt=0, description="factor of every reward, so that returns are of the order of 1 to 10"
    )
    num_epochs: int = Field(10, ge=1, description="passes over the data of one update")
    minibatch_size: int = Field(
        64, ge=1, description="agent steps in a minibatch; with memory, whole sequences of them"
    )
    clip_range: float = Field(0.2, gt=0, description="clip of the probability ratio")
    entropy_coef: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    entropy_schedule: ScheduleOptions = schedule_field("the entropy bonus")
    value_coef: float = Field(0.5, ge=0, description="weight of the value loss")
    max_grad_norm: float = Field(0.5, gt=0, description="clip of the gradient's norm")
    normalize_advantage: bool = Field(
        True, description="zero mean and unit variance within each minibatch"
    )
    target_kl: float | None = Field(
        None, gt=0, description="end an update early above 1.5 times this divergence, in nats"
    )

    @model_validator(mode="before")
    @classmethod
    def _epsilon_moves_to_the_optimizer(cls, given: Any) -> Any:
        """Read configurations from before optimisers had names; the numbers are the same."""
        if not isinstance(given, Mapping) or "adam_eps" not in given:
            return given
        rest = {key: value for key, value in given.items() if key != "adam_eps"}
        if "optimizer" in rest:
            raise ValueError("adam_eps is now optimizer.eps; leave adam_eps out")
        return rest | {"optimizer": {"name": "adam", "eps": given["adam_eps"]}}


class PPO(Agent):
    """Proximal policy optimisation for policies with or without memory."""

    Config: ClassVar[type[Options]] = PPOConfig
    needs_policy: ClassVar[bool] = True

    def make_actor(self, worker: int = 0, workers: int = 1) -> PolicyActor:
        """Return an actor with the initial weights."""
        setup = self.setup
        assert setup.policy is not None  # needs_policy
        return PolicyActor(
            setup.policy,
            setup.observation_space,
            setup.action_space,
            integer(setup.seed, Role.INIT),
            setup.device if self.config.actor_device == "learner" else "cpu",
        )

    def make_learner(self) -> "PPOLearner":
        """Return the learner."""
        return PPOLearner(self.config, self.setup)


@dataclass(frozen=True)
class Batch:
    """Tensors to learn from: time-major `[T, N, ...]`, batch-first `[N, T, ...]` or flat.

    Attributes:
      observation, action, log_prob, advantage, target, reset: one entry for each step.
      valid: steps that count, or None if all do.
      state: the actor's state before the first step of each sequence.
    """

    observation: Any
    action: Tensor
    log_prob: Tensor
    advantage: Tensor
    target: Tensor
    reset: Tensor
    valid: Tensor | None
    state: State

    def map(self, function: Callable[[Tensor], Tensor], state: State) -> "Batch":
        """Return the batch with `function` applied to every tensor of steps."""
        return Batch(
            map_tree(function, self.observation),
            function(self.action),
            function(self.log_prob),
            function(self.advantage),
            function(self.target),
            function(self.reset),
            None if self.valid is None else function(self.valid),
            state,
        )

    def sequences(self, rows: Tensor) -> "Batch":
        """Return the given environments of a time-major batch as batch-first sequences."""
        return self.map(lambda x: x.index_select(1, rows).transpose(0, 1), self.state.rows(rows))

    def flatten(self) -> "Batch":
        """Return the valid steps of a time-major batch one by one."""
        flat = self.map(lambda x: x.flatten(0, 1), self.state)
        return flat.steps(flat.valid.nonzero()[:, 0]) if flat.valid is not None else flat

    def steps(self, rows: Tensor) -> "Batch":
        """Return the given steps of a flat batch."""
        return replace(self, valid=None).map(lambda x: x.index_select(0, rows), self.state)


def join_fragments(fragments: Sequence[Fragment], config: PPOConfig) -> Batch:
    """Return the fragments side by side as one time-major batch, with their advantages.

    Rows without an entry are left out; shorter ones are padded to the longest.
    """
    longest = max(len(f.reward) for f in fragments)
    length = np.concatenate([f.length for f in fragments])
    filled = np.flatnonzero(length)
    dense = bool((length == longest).all())

    def join(*arrays: np.ndarray) -> Tensor:
        # A copy even of one: what came through Ray is not writable, which torch warns about.
        whole = np.concatenate([_padded(x, longest) for x in arrays], 1)
        return torch.from_numpy(whole if dense else whole[:, filled])

    gamma, gae_lambda, scale = config.gamma, config.gae_lambda, config.reward_scale
    advantage = [fragment_advantage(f, gamma, gae_lambda, scale) for f in fragments]
    pairs = zip(advantage, fragments, strict=True)
    return Batch(
        map_tree(join, *(f.observation for f in fragments)),
        join(*(f.action for f in fragments)),
        join(*(f.extras["log_prob"] for f in fragments)),
        join(*advantage),
        join(*(a + f.extras["value"] for a, f in pairs)),
        join(*(f.reset for f in fragments)),
        None if dense else join(*(f.valid for f in fragments)),
        # Leaves inference mode: tensors made there cannot take part in a backward pass.
        concatenate([f.state for f in fragments], torch.cat).map(
            torch.clone if dense else lambda x: x[torch.from_numpy(filled)].clone()
        ),
    )


def _padded(x: np.ndarray, longest: int) -> np.ndarray:
    return np.pad(x, [(0, longest - len(x)), *[(0, 0)] * (x.ndim - 1)]) if len(x) < longest else x


def ppo_loss(
    output: PolicyOutput, batch: Batch, config: PPOConfig, entropy_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss to descend and what to log of it.

    Entries that are not `valid` are padding and have no part in any mean.
    """
    log_prob = output.distribution.log_prob(batch.action)
    with torch.set_grad_enabled(entropy_coef > 0):
        entropy = output.distribution.entropy()
    steps = (log_prob, entropy, output.value, batch.log_prob, batch.advantage, batch.target)
    if batch.valid is not None:
        steps = tuple(x[batch.valid] for x in steps)  # type: ignore[assignment]
    log_prob, entropy, value, old_log_prob, advantage, target = steps
    if config.normalize_advantage and advantage.numel() > 1:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - config.clip_range, 1 + config.clip_range)
    policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
    value_loss = mse_loss(value, target)
    mean_entropy = entropy.mean()
    loss = policy_loss + config.value_coef * value_loss - entropy_coef * mean_entropy
    with torch.no_grad():
        logs = {
            "train/policy_loss": policy_loss.detach(),
            "train/value_loss": value_loss.detach(),
            "train/entropy": mean_entropy.detach(),
            # The low-variance estimator of KL(old || new), http://joschu.net/blog/kl-approx.html
            "train/approx_kl": (ratio - 1 - log_ratio).mean(),
            "train/clip_fraction": (ratio != clipped).float().mean(),
        }
    return loss, logs


class PPOLearner(Learner):
    """Holds the policy that learns, its optimiser and the minibatch order.

    Args:
      config: PPO's options.
      setup: policy and spaces; its seed decides the initial weights and the order of minibatches,
        its device is where the policy learns.

    Raises:
      UserError: `compile` without a compiler.
    """

    def __init__(
        self,
        config: PPOConfig,
        setup: Setup,
    ) -> None:
        self.config = config
        self.total_steps = setup.total_steps
        self.device = torch.device(setup.device)
        assert setup.policy is not None  # needs_policy
        # Made on the CPU, so that the initial weights are the same on every device.
        self.policy = setup.policy.build(
            setup.observation_space, setup.action_space, integer(setup.seed, Role.INIT)
        ).to(self.device)
        self.optimizer = optimizers.make(config.optimizer, self.policy)
        self._loss = compiled(self._compute_loss, config)
        self._learning_rate = make_schedule(config.learning_rate_schedule, setup.total_steps)
        self._entropy = make_schedule(config.entropy_schedule, setup.total_steps)
        self.rng = generator(setup.seed, Role.DATA_ORDER)
        self.agent_steps = 0
        self.updates = 0

    def update(self, fragments: Sequence[Fragment]) -> dict[str, float]:
        """Run `num_epochs` passes of clipped policy-gradient steps over the fragments.

        Raises:
          NotFiniteError: a loss or a gradient is not finite; such steps were not taken.
        """
        config = self.config
        batch = self._batch(fragments)
        left = remaining(self.agent_steps, self.total_steps)
        entropy_coef = config.entropy_coef * self._entropy(left)
        learning_rate = config.learning_rate * self._learning_rate(left)
        logs: list[dict[str, Tensor]] = []
        for _ in range(config.num_epochs):
            for minibatch in self._minibatches(batch):
                loss, log = self._loss(minibatch, entropy_coef)
                logs.append(log)
                if self._diverged(log):
                    break
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                log["train/grad_norm"] = self.optimizer.step(learning_rate, config.max_grad_norm)
            if self._diverged(logs[-1]):
                break
        self.agent_steps += sum(fragment.env_steps for fragment in fragments)
        self.updates += 1
        metrics = self._summarize(logs, batch) | {"train/learning_rate": learning_rate}
        check_finite(metrics, self.updates, "the weights are the last finite ones")
        return metrics

    def _batch(self, fragments: Sequence[Fragment]) -> Batch:
        """Return what to learn from, on the device: single steps for a policy without memory."""
        batch = join_fragments(fragments, self.config)
        if self.device.type != "cpu":
            state = batch.state.map(self._send)
            batch = batch.map(self._send, state)
        return batch if self.policy.has_memory else batch.flatten()

    def _send(self, tensor: Tensor) -> Tensor:
        return send(tensor, self.device)

    def _summarize(self, logs: list[dict[str, Tensor]], batch: Batch) -> dict[str, float]:
        """Return means over the minibatches and the explained variance of the whole batch."""
        values = {
            name: torch.stack([log[name] for log in logs if name in log]).mean() for name in logs[0]
        }
        advantage, target = batch.advantage, batch.target
        if batch.valid is not None:
            advantage, target = advantage[batch.valid], target[batch.valid]
        # All at once: each number alone would wait for the device.
        correction = int(target.numel() > 1)  # a single entry has a variance of 0
        spread = advantage.var(correction=correction), target.var(correction=correction)
        numbers = torch.stack([*values.values(), *spread]).tolist()
        *means, residual, total = numbers
        explained = 1 - residual / max(total, 1e-12)
        return dict(zip(values, means, strict=True)) | {"train/explained_variance": explained}

    def _diverged(self, log: dict[str, Tensor]) -> bool:
        limit = self.config.target_kl
        return limit is not None and float(log["train/approx_kl"]) > 1.5 * limit

    def _minibatches(self, batch: Batch) -> Iterator[Batch]:
        """Yield the batch once in random order: sequences with memory, single steps without."""
        if self.policy.has_memory:
            steps, envs = batch.reset.shape
            take, length, size = batch.sequences, envs, self.config.minibatch_size / steps
        else:
            take, length, size = batch.steps, len(batch.reset), self.config.minibatch_size
        count = min(length, max(1, round(length / size)))
        for rows in np.array_split(self.rng.permutation(length), count):
            yield take(self._send(torch.from_numpy(rows)))

    def _compute_loss(self, batch: Batch, entropy_coef: float) -> tuple[Tensor, dict[str, Tensor]]:
        with mixed_precision(self.config, self.device):
            return ppo_loss(self._evaluate(batch), batch, self.config, entropy_coef)

    def _evaluate(self, batch: Batch) -> PolicyOutput:
        read = self.policy.forward if self.policy.has_memory else self.policy.step
        return read(batch.observation, batch.state, batch.reset)[0]

    def probe(self) -> "PPOProbe":
        """Return the policy, its optimiser and the forward pass of an update."""
        return PPOProbe(self)

    def read(self, fragment: Fragment) -> None:
        """Run the forward pass of an update over a whole fragment, without gradients."""
        batch = self._batch([fragment])
        if self.policy.has_memory:
            batch = batch.sequences(self._send(torch.arange(batch.reset.shape[1])))
        with torch.no_grad(), mixed_precision(self.config, self.device):
            self._evaluate(batch)

    def weights(self) -> Weights:
        """Return a copy of the policy's parameters and buffers, on the CPU."""
        return {name: x.numpy(force=True).copy() for name, x in self.policy.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimiser moments by parameter name, counters and the order's stream."""
        return {
            "policy": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "rng": self.rng.bit_generator.state,
            "agent_steps": self.agent_steps,
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        load_weights(self.policy, state["policy"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.rng.bit_generator.state = state["rng"]
        self.agent_steps, self.updates = state["agent_steps"], state["updates"]


class PPOProbe:
    """What diagnostics may look into: the policy, as "policy", its optimiser and its reading.

    Args:
      learner: whose networks they are.
    """

    def __init__(self, learner: PPOLearner) -> None:
        self.networks = {"policy": learner.policy}
        self.optimizer = learner.optimizer
        self.read = learner.read
