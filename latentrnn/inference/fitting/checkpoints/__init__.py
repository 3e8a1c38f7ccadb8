"""Checkpoints of a fit that is under way."""
