"""Trajectories of shipped presets: what `trajectories_test.py` compares, and how it was recorded.

`KERAS_BACKEND=jax python -m tests.presets.trajectories` records them again for one backend. Do so
only if a preset is meant to step in another way, and say why in CHANGELOG.md.

Processors round differently, and some rules magnify that from step to step. So it is recorded, too,
how far apart trajectories come whose gradients differ by a rounding error.
"""

import math
from pathlib import Path

import keras
import numpy as np
from keras import ops

from l2l_keras import LearnedOptimizer, list_presets

RECORDED_STEPS = (1, 2, 5, 10, 20)
# Paths let groups tell the layers apart. The large kernel is one of which rules sample elements.
SMALL = {"conv/kernel": (3, 2, 2, 4), "conv/bias": (4,), "dense/kernel": (4, 3), "dense/bias": (3,)}
LARGE = {"conv/kernel": (160, 96), "conv/bias": (96,), "dense/kernel": (96, 3), "dense/bias": (3,)}
GENERAL = ("general", "general-fast")
ROUNDING, DRAWS = 1e-7, 3


def cases() -> list[tuple[str, str]]:
    """All presets on the small model, and those for models of any size on the large one."""
    return [(name, "small") for name in list_presets()] + [(name, "large") for name in GENERAL]


def trajectory(preset: str, size: str, draw: int | None = None) -> np.ndarray:
    """Returns parameters (some of those of a large model) after each of `RECORDED_STEPS`.

    With a `draw`, every gradient has a rounding error drawn at random.
    """
    shapes = {"small": SMALL, "large": LARGE}[size]
    random = np.random.default_rng(0)
    variables = [
        _variable(path, random.normal(0.0, 1.0 / math.sqrt(math.prod(shape[:-1])), shape))
        for path, shape in shapes.items()
    ]
    inputs = random.normal(size=(16, math.prod(shapes["conv/kernel"][:-1])))
    targets = random.normal(size=(16, 3))
    errors = np.random.default_rng(draw)
    optimizer = LearnedOptimizer.from_preset(preset)
    optimizer.build(variables)
    recorded = []
    for step in range(1, RECORDED_STEPS[-1] + 1):
        gradients = _gradients([_numpy(v) for v in variables], inputs, targets)
        if draw is not None:
            gradients = [g * (1.0 + ROUNDING * errors.normal(size=g.shape)) for g in gradients]
        optimizer.apply([ops.convert_to_tensor(g.astype("float32")) for g in gradients], variables)
        if step in RECORDED_STEPS:
            flat = np.concatenate([_numpy(v).ravel() for v in variables])
            recorded.append(flat[:: max(1, flat.size // 256)].astype("float32"))
    return np.stack(recorded)


def tolerance(preset: str, size: str) -> np.ndarray:
    """Returns how far rounding moves any parameter by each of `RECORDED_STEPS`, `[steps, 1]`."""
    own = trajectory(preset, size)
    moved = [np.abs(trajectory(preset, size, draw) - own) for draw in range(DRAWS)]
    return np.max(moved, axis=(0, 2))[:, np.newaxis]


def recording(backend: str) -> Path:
    """Returns the file with what was recorded on a backend."""
    return Path(__file__).with_name(f"trajectories_{backend}.npz")


def _variable(path: str, value: np.ndarray) -> keras.Variable:
    scope, _, name = path.partition("/")
    with keras.name_scope(scope):
        return keras.Variable(value.astype("float32"), name=name)


def _numpy(variable: keras.Variable) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable), "float64")


def _gradients(
    parameters: list[np.ndarray], inputs: np.ndarray, targets: np.ndarray
) -> list[np.ndarray]:
    """Differentiates a tenth of the mean squared error of a network with one hidden layer."""
    kernel, bias, out_kernel, out_bias = parameters
    hidden = np.tanh(inputs @ kernel.reshape(inputs.shape[1], -1) + bias)
    error = hidden @ out_kernel + out_bias - targets
    d_out = 0.2 * error / error.size
    d_hidden = (d_out @ out_kernel.T) * (1.0 - hidden**2)
    return [
        (inputs.T @ d_hidden).reshape(kernel.shape),
        d_hidden.sum(axis=0),
        hidden.T @ d_out,
        d_out.sum(axis=0),
    ]


def _record() -> None:
    arrays = {}
    for case in cases():
        name = "/".join(case)
        arrays |= {name: trajectory(*case), f"{name}/tolerance": tolerance(*case)}
    np.savez_compressed(recording(keras.backend.backend()), **arrays)


if __name__ == "__main__":
    _record()
