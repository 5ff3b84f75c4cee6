"""Contextual bandits: a step shows a user, an arm is a film, a reward is the user's rating."""
