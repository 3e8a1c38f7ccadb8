"""Saving fits and loading them: JSON and safetensors, nothing pickled."""
