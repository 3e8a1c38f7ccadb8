"""How steps and heads answer to states, inputs and gates: Jacobians and their products."""
