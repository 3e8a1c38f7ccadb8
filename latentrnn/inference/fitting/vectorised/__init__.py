"""Several fits in one, each with random numbers of its own."""
