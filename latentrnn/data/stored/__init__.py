"""Sequences in files, which answer as those in memory do."""
