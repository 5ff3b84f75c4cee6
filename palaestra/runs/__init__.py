"""Runs: configuration, run folders, rollouts, training, evaluation, reports, command line.

Importing this room registers the names of all rooms, so that they can be listed and used.
"""

import palaestra.agents
import palaestra.envs
import palaestra.metrics
import palaestra.policies  # noqa: F401 - importing a room registers its names
from palaestra.runs.presets import register_presets

register_presets()
