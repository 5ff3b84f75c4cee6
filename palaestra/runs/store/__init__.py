"""The run folder on disk: manifest, logs, lock, checkpoints."""
