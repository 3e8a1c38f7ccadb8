"""A fit by several processes that draw the same random numbers."""
