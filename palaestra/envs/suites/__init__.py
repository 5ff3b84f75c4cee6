"""Suites: named lists of tasks on which agents are evaluated, as data."""

from palaestra.envs.suites.bandit import BANDIT, HORIZON
from palaestra.envs.suites.base import Suite, Task
from palaestra.envs.suites.contextual import CONTEXTUAL_BANDIT
from palaestra.envs.suites.memory import MEMORY
from palaestra.envs.suites.tictactoe import TICTACTOE

__all__ = ["BANDIT", "CONTEXTUAL_BANDIT", "HORIZON", "MEMORY", "TICTACTOE", "Suite", "Task"]
