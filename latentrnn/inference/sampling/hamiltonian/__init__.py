"""Hamiltonian Monte Carlo: densities of flat vectors, trajectories, their adaptation, and several chains at once."""
