"""Weights: what a learner hands to actors."""

import numpy as np

Weights = dict[str, np.ndarray]
"""Named arrays, as `Learner.weights` gives and `Actor.load_weights` takes them."""
