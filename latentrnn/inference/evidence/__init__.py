"""The marginal likelihood by several estimators, with their Monte Carlo errors."""
