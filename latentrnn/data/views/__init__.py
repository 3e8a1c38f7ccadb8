"""What is taken of a data set: batches, time slices, windows, splits, selections and sessions."""
