"""What protects training from wild gradients and bad rules, and what records how it goes."""
