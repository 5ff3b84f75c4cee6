"""Training a run: from its beginning, or on from its last checkpoint."""

from palaestra.runs.training.train import Resume, build_learner, build_loop, train

__all__ = ["Resume", "build_learner", "build_loop", "train"]
