"""Tic-tac-toe against scripted opponents: rules, exact solution, single and vector environments."""
