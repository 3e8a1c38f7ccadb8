"""What is found, labelled: names, dimensions, coordinates, and intervals over draws."""
