"""A stack of LSTM layers with global averaging cells in NumPy, in float64, and inputs for tests."""

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def log_sign(x):
    """The paper's preprocessing of numbers `[n]`, to `[2, n]`."""
    small = np.abs(x) < np.exp(-10)
    magnitude = np.where(small, -1.0, np.log(np.where(small, 1.0, np.abs(x))) / 10)
    return np.array([magnitude, np.where(small, np.exp(10) * x, np.sign(x))])


PREPROCESSING = {"log_sign": log_sign, "none": lambda x: x[None]}


def step(weights, averaged_units, inputs, state):
    """Outputs `[outputs, n]` and the next state, from inputs `[inputs, n]`."""
    *layers, output_kernel, output_bias = [w.astype("float64") for w in weights]
    new_state = []
    for layer in range(len(layers) // 3):
        kernel, recurrent_kernel, bias = layers[3 * layer : 3 * layer + 3]
        h, c = state[2 * layer : 2 * layer + 2]
        gates = kernel @ inputs + recurrent_kernel @ h + bias[:, None]
        i, f, g, o = np.split(gates, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        h[:averaged_units] = h[:averaged_units].mean(axis=1, keepdims=True)
        new_state += [h, c]
        inputs = h
    return output_kernel @ inputs + output_bias[:, None], new_state


def randomize(rule, seed=0):
    """Gives every weight a value that reveals errors in a formula, as zeros could not."""
    random = np.random.default_rng(seed)
    rule.set_weights([random.normal(size=w.shape).astype("float32") for w in rule.weights])
    return rule


def some_gradients(steps, n, seed=0):
    """Gradients with magnitudes over many decades, zeros for the first element, `[steps, n]`."""
    random = np.random.default_rng(seed)
    gradients = random.normal(size=(steps, n)) * 10.0 ** random.uniform(-7, 1, (steps, n))
    gradients[:, 0] = 0.0
    return gradients.astype("float32")
