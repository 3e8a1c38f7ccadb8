"""The Kalman filter behind `LinearGaussian`: its recursions, their evidence, and heads as information on a state."""
