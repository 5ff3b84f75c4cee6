"""Rollouts: the collectors of a run, in this process or in Ray actors, behind one interface."""
