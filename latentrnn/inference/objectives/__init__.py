"""Bounds on the log evidence and their terms."""
