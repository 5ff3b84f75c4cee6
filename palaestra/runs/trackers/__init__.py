"""Trackers: the metrics of a run shown by other tools; deleting what they hold loses nothing.

    from palaestra.runs.trackers import open_trackers
    for tracker in open_trackers(["tensorboard", "mlflow"], RunRecord.open("demo")):
        tracker.log({"train/loss": 0.5}, agent_steps=2048)
        tracker.close()

A tracker is always filled from the run folder, which is the source of truth: at the start of a run,
after a crash, after a resume and on demand (`palaestra track`). The packages behind the names are
imported when a tracker is opened.
"""

from palaestra.runs.trackers.base import TRACKERS, Tracker, check_trackers, require_trackers
from palaestra.runs.trackers.replay import open_trackers, replay

__all__ = [
    "TRACKERS",
    "Tracker",
    "check_trackers",
    "open_trackers",
    "replay",
    "require_trackers",
]
