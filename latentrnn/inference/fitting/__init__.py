"""Stochastic variational inference: the settings of a fit, its loop and its result."""
