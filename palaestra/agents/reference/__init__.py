"""Baselines: what an agent is compared with. Actors without a learner, one file for each family."""
