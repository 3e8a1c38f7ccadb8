"""Where the state goes by itself: fixed points, attractors, exponents, trajectories."""
