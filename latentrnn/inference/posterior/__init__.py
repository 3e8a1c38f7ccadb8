"""A fitted posterior and what is asked of it."""
