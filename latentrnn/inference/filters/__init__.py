"""The particle filter, what it says one step ahead, and its online form."""
