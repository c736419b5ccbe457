"""Rules that compute the update of each element from its own gradients, and their LSTM cells."""
