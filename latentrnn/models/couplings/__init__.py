"""Penalties that tie the heads of a model, or its states, to what is known of them."""
