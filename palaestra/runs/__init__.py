"""Runs: configuration, run folders, rollouts, training, evaluation, reports, command line."""
