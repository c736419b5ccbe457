"""
Title: Mixed precision and distribution
Author: l2l_keras authors
Date created: 2026/12/01
Last modified: 2026/12/01
Description: Train with a learned optimizer in mixed precision, with smaller states, on two devices, and resume.
Accelerator: None
"""

"""
## What you will have

Four training runs of one model, which show that a learned optimizer works with what large models need:

- mixed precision, for faster steps on accelerators;
- states in bfloat16, for less memory;
- several devices that share the minibatches;
- checkpoints from which an interrupted run goes on as if nothing had happened.

In each of them you write what you would write with Adam. Everything runs on a processor here, which is enough
to see that it works, not how fast it is on an accelerator.

This took 25 seconds of processor time, and downloads nothing.

## The reference

The data are the 8 by 8 digits of scikit-learn. TensorFlow is told to divide the processor into two logical
devices, which must happen first. On a machine with two accelerators, you leave that out.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import l2l_keras

tf.get_logger().setLevel("ERROR")  # `tf.distribute` logs every sum.
processor = tf.config.list_physical_devices("CPU")[0]
halves = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(processor, halves)

x, x_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
EPOCHS = 8


def make_model(preset="general-fast", **optimizer_arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(10, dtype="float32"),
        ]
    )
    model.compile(
        optimizer=l2l_keras.LearnedOptimizer.from_preset(preset, **optimizer_arguments),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(model, epochs=EPOCHS):
    # In the same order each time, to compare runs.
    history = model.fit(x, y, batch_size=64, epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"]


def report(name, model):
    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f"{name}: training loss {runs[name][-1]:.1e}, held-out accuracy {accuracy:.1%}")


runs = {}
reference = make_model()
runs["reference"] = train(reference)
report("reference", reference)

"""
## Mixed precision

With the policy `mixed_bfloat16`, layers compute in bfloat16, and weights stay in float32. The rule computes in
float32, too: an optimizer needs the precision. The last layer is float32 by its `dtype`, as Keras advises.
"""

keras.config.set_dtype_policy("mixed_bfloat16")
mixed = make_model()
keras.config.set_dtype_policy("float32")
runs["mixed_bfloat16"] = train(mixed)
layer = mixed.layers[1]
print(f"computes in {layer.compute_dtype}, weights in {layer.kernel.dtype}")
report("mixed_bfloat16", mixed)

"""
`mixed_float16` works in the same way. Keras then wraps the optimizer into a `LossScaleOptimizer`, so that small
gradients do not vanish.

## Smaller states

What an optimizer remembers of each weight is its *state*. `general-fast` remembers three numbers, Adam two, and
the LSTMs of presets such as `digits_mlp` many more. `state_dtype="bfloat16"` halves that. Numbers are rounded
to 8 bits after each step.
"""


small = make_model(state_dtype="bfloat16")
runs["states in bfloat16"] = train(small)
report("states in bfloat16", small)

large = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(1000), keras.layers.Dense(10)])
from_preset = l2l_keras.LearnedOptimizer.from_preset
for name, optimizer in {
    "Adam": keras.optimizers.Adam(),
    "general-fast": from_preset("general-fast"),
    "general-fast, bfloat16": from_preset("general-fast", state_dtype="bfloat16"),
    "digits_mlp": from_preset("digits_mlp"),
    "digits_mlp, bfloat16": from_preset("digits_mlp", state_dtype="bfloat16"),
}.items():
    optimizer.build(large.trainable_variables)
    size = sum(variable.numpy().nbytes for variable in optimizer.variables)
    print(f"{name:23} {size / large.count_params():6.1f} bytes a weight")

"""
The 144 bytes of an LSTM matter in large models, and become half as many. With `general-fast`, which is hardly
larger than Adam, you can leave the states as they are.

## Two devices

`MirroredStrategy` keeps a copy of the model on every device. Each computes the gradients of its share of a
minibatch, and they are added up before the optimizer sees them. Make the model, optimizer included, in the
scope of the strategy.
"""

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    shared = make_model()
runs["two devices"] = train(shared)
print(f"{strategy.num_replicas_in_sync} devices")
report("two devices", shared)

"""
The rule takes the same steps as on one device, up to rounding. This is what all runs look like together:
"""

figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=80, layout="constrained")
for (name, losses), line in zip(runs.items(), ("-", "--", ":", "-."), strict=True):
    axes.plot(range(1, EPOCHS + 1), losses, line, linewidth=2, label=name)
axes.set(xlabel="epoch", ylabel="training loss", yscale="log")
axes.legend(frameon=False)
plt.show()

"""
## Interrupt and go on

`BackupAndRestore` of Keras saves model and optimizer after each epoch. If a program is stopped, the same
program goes on where it was. We let an accident happen in the sixth epoch, and start again:
"""


class Accident(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 5:
            raise RuntimeError("the power fails")


def train_with_backup(model, *callbacks):
    backup = keras.callbacks.BackupAndRestore("backup")
    return model.fit(
        x,
        y,
        batch_size=64,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[backup, *callbacks],
    )


try:
    train_with_backup(make_model(), Accident())
except RuntimeError as error:
    print("interrupted:", error)

resumed = make_model()
history = train_with_backup(resumed)
print("epochs after the interruption:", [epoch + 1 for epoch in history.epoch])
differences = [
    np.abs(a - b).max() for a, b in zip(reference.get_weights(), resumed.get_weights(), strict=True)
]
print("largest difference from the reference:", max(differences))

"""
The weights are those of the run without an accident, to the last bit: the backup holds the states of the rule,
the step and the learning rate. `model.save` and `load_model` do the same for a whole model.

## Where to go next

- On JAX (`KERAS_BACKEND=jax`), `keras.distribution.DataParallel` divides minibatches, and `ModelParallel`
  divides weights. The states of a rule are divided as the weights are.
- Gradient accumulation, clipping, moving averages and weight decay are arguments of `LearnedOptimizer`, as of
  any optimizer of Keras. See [train a model](../docs/how_to/train.md).
- With mixed precision or several devices, a guard needs a callback to see the loss:
  [safety with the guard](safety_with_the_guard.ipynb).
"""
