"""Agents: learning algorithms and baselines, registered under the kind "agent"."""

import importlib
from typing import Any

from palaestra.registry import register_builtin

_EXPORTS = {
    "Actor": "palaestra.agents.base",
    "Agent": "palaestra.agents.base",
    "Learner": "palaestra.agents.base",
    "make": "palaestra.agents.base",
    "Fragment": "palaestra.experience.fragment",
}

_BASELINES = {
    "random": ("random:Random", "uniform play on any action space"),
    "greedy-locked": ("greedy:GreedyLocked", "a uniform first pull, never left again"),
    "try-all-greedy": ("greedy:TryAllGreedy", "every arm once, then the best empirical mean"),
    "epsilon-greedy": ("greedy:EpsilonGreedy", "the best empirical mean with uniform noise"),
    "ucb": ("ucb:UCB", "empirical mean plus an exploration bonus"),
    "thompson-beta": ("thompson:ThompsonBeta", "posterior sampling for rewards 0 and 1"),
    "thompson-gauss": ("thompson:ThompsonGauss", "posterior sampling for normal rewards"),
    "lin-ucb": ("lin_ucb:LinUCB", "a ridge regression per arm plus a bonus, for contexts"),
    "exp3": ("exp3:Exp3", "exponential weights, for adversarial rewards"),
}

for _name, (_target, _summary) in _BASELINES.items():
    register_builtin("agent", _name, f"palaestra.agents.reference.{_target}", _summary)

register_builtin(
    "agent", "ppo", "palaestra.agents.ppo:PPO", "proximal policy optimisation with memory"
)

register_builtin(
    "agent", "minimax", "palaestra.agents.reference.tictactoe:Minimax", "perfect Tic-tac-toe"
)
register_builtin(
    "agent",
    "mcts",
    "palaestra.agents.reference.tictactoe:MCTS",
    "Tic-tac-toe by Monte-Carlo tree search",
)
register_builtin(
    "agent",
    "q-learning",
    "palaestra.agents.q_learning:QLearning",
    "tabular Q-learning for discrete observations",
)

_OPTIMIZERS = {
    "adam": ("flat_adam:FlatAdam", "adaptive moments"),
    "adamw": ("flat_adam:FlatAdamW", "adaptive moments with decoupled weight decay"),
    "sgd": ("flat_sgd:FlatSGD", "gradient descent, with momentum or Nesterov's"),
    "rmsprop": ("flat_rmsprop:FlatRMSprop", "gradients divided by their root mean square"),
}

for _name, (_target, _summary) in _OPTIMIZERS.items():
    register_builtin("optimizer", _name, f"palaestra.agents.optimizers.{_target}", _summary)

_SB3 = {
    "ppo": ("PPO", "proximal policy optimisation of Stable-Baselines3"),
    "a2c": ("A2C", "advantage actor-critic of Stable-Baselines3"),
    "dqn": ("DQN", "deep Q-learning of Stable-Baselines3"),
    "qrdqn": ("QRDQN", "quantile-regression deep Q-learning of sb3-contrib"),
    "recurrent-ppo": ("RecurrentPPO", "PPO with an LSTM, of sb3-contrib"),
}

for _name, (_target, _summary) in _SB3.items():
    register_builtin(
        "agent", f"sb3/{_name}", f"palaestra.agents.sb3.algorithms:{_target}", _summary
    )


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
