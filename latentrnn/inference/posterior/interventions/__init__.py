"""Gates held and covariates changed: what would have happened."""
