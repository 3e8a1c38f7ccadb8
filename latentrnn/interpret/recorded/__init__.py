"""What a fitted model did along the data: gates, states, inputs and factors."""
