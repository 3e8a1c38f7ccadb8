"""What would have been: interventions, what they change, and responses read off them."""
