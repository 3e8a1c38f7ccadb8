"""The guide, its families and its encoders."""
