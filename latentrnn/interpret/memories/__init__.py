"""How long memories last: by gates, by Jacobians, by the linearised spectrum."""
