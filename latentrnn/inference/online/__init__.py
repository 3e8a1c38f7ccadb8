"""Sequences as they come in, step by step."""
