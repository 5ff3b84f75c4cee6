"""Gymnasium environments: importing this package registers them, by name and lazily.

env = gymnasium.make("palaestra/GaussianBandit-v0", K=10)
envs = palaestra.envs.make_vec("palaestra/GaussianBandit-v0", 64, K=10)
"""

import gymnasium

from palaestra.envs.bandits.presets import BANDIT_PRESETS
from palaestra.envs.make import make_vec
from palaestra.registry import register_builtin

__all__ = ["BANDIT_PRESETS", "make_vec"]


def _register(env_id: str, single: str, vector: str, summary: str) -> None:
    """Register an environment, "module:Class", with Gymnasium and with Palaestra."""
    gymnasium.register(env_id, entry_point=single, vector_entry_point=vector)
    register_builtin("env", env_id, single, summary)


# Bandits.
_register(
    "palaestra/GaussianBandit-v0",
    "palaestra.envs.bandits.env:GaussianBanditEnv",
    "palaestra.envs.bandits.vector:GaussianBanditVectorEnv",
    "K-armed bandit with Gaussian rewards",
)
_register(
    "palaestra/BernoulliBandit-v0",
    "palaestra.envs.bandits.env:BernoulliBanditEnv",
    "palaestra.envs.bandits.vector:BernoulliBanditVectorEnv",
    "K-armed bandit that pays 0 or 1",
)

# Contextual bandits.
_register(
    "palaestra/SyntheticMovies-v0",
    "palaestra.envs.contextual.synthetic:SyntheticMoviesEnv",
    "palaestra.envs.contextual.synthetic:SyntheticMoviesVectorEnv",
    "contextual bandit: invented films and users with low-rank ratings",
)
_register(
    "palaestra/MovieLensBandit-v0",
    "palaestra.envs.contextual.movielens:MovieLensBanditEnv",
    "palaestra.envs.contextual.movielens:MovieLensBanditVectorEnv",
    "contextual bandit: the films of MovieLens-100k, which the user brings",
)

# Board games.
_register(
    "palaestra/TicTacToe-v0",
    "palaestra.envs.tictactoe.env:TicTacToeEnv",
    "palaestra.envs.tictactoe.vector:TicTacToeVectorEnv",
    "Tic-tac-toe against a scripted opponent",
)

# Memory.
for _class, _module, _summary in (
    ("Recall", "recall", "name the cue that was shown before a long wait"),
    ("TMaze", "tmaze", "a sign at the start says where to turn at the end of a corridor"),
    ("RepeatPrevious", "repeat_previous", "name the symbol of k steps ago"),
    ("CountRecall", "count_recall", "say how often a symbol has been shown"),
):
    _register(
        f"palaestra/{_class}-v0",
        f"palaestra.envs.memory.{_module}:{_class}Env",
        f"palaestra.envs.memory.{_module}:{_class}VectorEnv",
        _summary,
    )

# Wrappers.
for _name, _target, _summary in (
    ("action-mask", "action_mask:VectorActionMask", "legal actions beside the observation"),
    ("history", "history:VectorHistory", "the last observations of the episode, with its start"),
    ("frame-stack", "frame_stack:VectorFrameStack", "the last observations in one array"),
    ("time-limit", "time_limit:TimeLimit", "truncates episodes after a number of steps"),
    ("reward-clip", "reward_clip:VectorRewardClip", "rewards between two bounds"),
    (
        "normalise-observation",
        "normalise:VectorNormaliseObservation",
        "observations with mean 0 and variance 1, by running statistics",
    ),
    (
        "normalise-reward",
        "normalise:VectorNormaliseReward",
        "rewards in units of the running deviation of the discounted return",
    ),
):
    register_builtin("wrapper", _name, f"palaestra.envs.wrappers.{_target}", _summary)

# Suites.
for _name, _target, _summary in (
    ("bandit", "BANDIT", "Gaussian and Bernoulli bandits with 5, 10 and 20 arms"),
    ("contextual-bandit", "CONTEXTUAL_BANDIT", "recommending invented films, 5, 10 and 20 of them"),
    ("tictactoe", "TICTACTOE", "Tic-tac-toe against random and perfect play"),
    ("memory", "MEMORY", "recall, T-mazes, repeating, counting, bandits: chance without memory"),
):
    register_builtin("suite", _name, f"palaestra.envs.suites:{_target}", _summary)
