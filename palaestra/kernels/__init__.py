"""Sequence operators on tensors, with episode resets; they know nothing of learning algorithms."""
