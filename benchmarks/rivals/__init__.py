"""The same networks as ours, written by hand: what speed is measured against."""
