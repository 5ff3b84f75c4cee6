"""Stable-Baselines3: its algorithms as agents, and Palaestra's encoders and backbones inside it."""
