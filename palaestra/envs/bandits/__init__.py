"""Multi-armed bandits: families of instances, presets, a single and a native vector environment."""

from palaestra.envs.bandits.presets import BANDIT_PRESETS

__all__ = ["BANDIT_PRESETS"]
