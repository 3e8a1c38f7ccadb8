"""Posteriors of parameters by sampling: NUTS, Laplace's approximation, ensembles."""
