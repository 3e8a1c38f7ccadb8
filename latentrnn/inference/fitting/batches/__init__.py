"""The batches of a fit, and the windows of long ones."""
