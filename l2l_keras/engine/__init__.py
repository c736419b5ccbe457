"""One step of update rules over the variables of a model, on any Keras backend."""
