"""Reference rules for bandits: actors without a learner, one file for each family."""
