"""Tests of `LearnedOptimizer` on several devices: TensorFlow's replicas, JAX's meshes.

In processes of their own, since a processor is split into devices before its first use only.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

RULES = """
from l2l_keras import LearnedOptimizer
from l2l_keras.rules import CoordinatewiseLSTM, MomentumLSTM, RNNprop
from tests.contract.harness import regression_data, regression_model
RULES = {
    "coordinatewise_lstm": lambda: CoordinatewiseLSTM((3,), output_scale=1.0, seed=0),
    "rnnprop": lambda: RNNprop((3,), output_scale=0.5, seed=0),
    "momentum_lstm": lambda: MomentumLSTM((3,), rate=0.1, adaptive_rate=0.1, seed=0),
}
"""

# Unequal shares of the gradients on two replicas against all of them on one: weights, states and
# counts agree, and are the same on both replicas; a bad gradient on one of them skips the step.
TENSORFLOW = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
{rules}
for name, make in RULES.items():
    results = []
    for shares in ({{"CPU:0": 1.0}}, {{"CPU:0": 0.25, "CPU:1": 0.75}}):
        strategy = tf.distribute.MirroredStrategy(list(shares))
        with strategy.scope():
            variables = [
                keras.Variable(np.ones((5, 2)), name="table"),
                keras.Variable(np.ones(3), name="kernel"),
                keras.Variable(np.ones(2), name="bias"),
            ]
            groups = {{"bias": keras.optimizers.Adam(0.1), ".*": make()}}
            optimizer = LearnedOptimizer(groups, weight_decay=0.01)
            optimizer.build(variables)

        def replica(bad):
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            share = tf.constant(list(shares.values()))[index]
            rows = share * [[1.0, -2.0], [3.0, 0.5], [-0.9, 2.0]]
            sparse = tf.IndexedSlices(rows, tf.constant([1, 3, 1]), tf.constant([5, 2]))
            wrong = tf.where(bad & (index == 0), np.nan, 0.0)
            dense = share * [1.0, 2.0, -3.0] + wrong
            optimizer.apply([sparse, dense, share * [1.0, -1.0]], variables)

        step = tf.function(lambda bad: strategy.run(replica, args=(bad,)))
        for bad in (False, True, False):
            step(tf.constant(bad))
        assert optimizer.skipped_steps == 1
        results.append([])
        for v in variables + optimizer.variables:
            copies = [np.asarray(copy) for copy in v.value.values]
            assert len(copies) == len(shares), v.path
            for copy in copies:
                np.testing.assert_array_equal(copy, copies[0], v.path)
            results[-1].append(copies[0])
    assert not np.allclose(results[0][0], 1.0)
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)

"""

# `fit` on two replicas against `fit` on one device. (Not in the process above: TensorFlow takes the
# sums of strategies with other devices for each other.)
TENSORFLOW_FIT = """
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
{rules}
x, y = regression_data()
for name, make in RULES.items():
    one = regression_model(LearnedOptimizer(make()))
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        two = regression_model(LearnedOptimizer(make()))
    start = one.get_weights()
    for model in (one, two):
        model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    assert not np.allclose(one.get_weights()[0], start[0])
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
"""

# A model over two devices against one over one, and the state split like the weights.
JAX = """
import jax, keras, numpy as np
from keras import distribution
{rules}
devices = distribution.list_devices()
assert len(devices) == 2

def train(make):
    model = regression_model(LearnedOptimizer({{"bias": keras.optimizers.Adam(0.1), ".*": make()}}))
    x, y = regression_data()
    model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
    states = [model.optimizer.state_of(v) for v in model.trainable_variables[::2]]
    return model, [np.asarray(value) for value in [*model.get_weights(), *states]]

for name, make in RULES.items():
    model, expected = train(make)

    distribution.set_distribution(distribution.DataParallel(devices=devices))
    model, actual = train(make)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6)
    for v in model.optimizer.variables:
        assert len(v.value.sharding.device_set) == 2, v.path
        assert v.value.sharding.is_fully_replicated, v.path

    mesh = distribution.DeviceMesh((1, 2), ("batch", "model"), devices)
    layout = distribution.LayoutMap(mesh)
    layout[".*dense/kernel"] = (None, "model")
    layout[".*dense_1/kernel"] = ("model", None)
    parallel = distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    keras.backend.clear_session()  # Layers are named anew, as the layout has them.
    distribution.set_distribution(parallel)
    model, actual = train(make)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-6)
    kernel = model.trainable_variables[0]
    assert kernel.value.addressable_shards[0].data.shape == (3, 2)
    sharded = [v for v in model.optimizer.variables if not v.value.sharding.is_fully_replicated]
    rows = sum(model.optimizer.rule[".*"].state_rows)
    shapes = [tuple(v.value.addressable_shards[0].data.shape) for v in sharded]
    assert shapes == [(rows, 3, 2), (rows, 2, 1)], shapes
    distribution.set_distribution(None)
    keras.backend.clear_session()
"""


def run(program, **environment):
    finished = subprocess.run(
        [sys.executable, "-c", program.format(rules=RULES)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert finished.returncode == 0, finished.stderr[-4000:]


@pytest.mark.parametrize("program", [TENSORFLOW, TENSORFLOW_FIT], ids=["step", "fit"])
def test_two_replicas_take_the_step_of_one(program):
    run(program, KERAS_BACKEND="tensorflow")


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="Needs JAX.")
def test_two_devices_of_a_mesh_train_as_one():
    run(JAX, KERAS_BACKEND="jax", XLA_FLAGS="--xla_force_host_platform_device_count=2")


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
