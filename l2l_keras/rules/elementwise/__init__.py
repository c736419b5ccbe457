"""Rules that apply one network to every element, and their LSTM cells."""
