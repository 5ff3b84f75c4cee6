"""Palaestra: experiments with reinforcement-learning agents that have memory.

Importing this package imports nothing heavy; each room (`palaestra.envs`, `palaestra.policies`,
`palaestra.agents`, `palaestra.metrics`, `palaestra.runs`) is imported where it is needed.
"""

__version__ = "0.1.0"
