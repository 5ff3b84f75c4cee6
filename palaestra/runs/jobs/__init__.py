"""Runs as jobs on a Ray cluster: upload, submission, and what became of them."""
