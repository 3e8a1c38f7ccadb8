"""What heads ask of the weights they share, and what predictions owe to each channel."""
