"""From what users have (arrays, ragged lists, spike times, tables) to checked, padded tensors."""
