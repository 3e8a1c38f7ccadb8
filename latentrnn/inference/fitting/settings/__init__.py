"""The settings of a fit: one concept a file, plain descriptions without state."""
