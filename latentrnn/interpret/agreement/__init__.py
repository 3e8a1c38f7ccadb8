"""What of the state matters, and what other fits show too."""
