"""Uncertainty of functions of what was learned, without a prior."""
