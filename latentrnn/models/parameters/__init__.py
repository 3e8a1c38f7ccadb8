"""What a component declares of its numbers, and how they are known, learned or inferred."""
