"""Return and length of an episode."""

from palaestra.experience.episodes import EpisodeMetric

RETURN = EpisodeMetric(
    "return", "reward", "sum of the rewards of an episode", lambda e: e.total(e.reward)
)
LENGTH = EpisodeMetric("length", "steps", "number of steps of an episode", lambda e: e.length)
