"""
Title: Safety with the guard
Author: l2l_keras authors
Date created: 2026/11/30
Last modified: 2026/11/30
Description: Let Adam take over when a learned optimizer fails, and let bad minibatches change nothing.
Accelerator: None
"""

"""
## What you will have

A training run that survives two accidents:

- a learned optimizer that meets a model unlike those it was trained on, and fails;
- a minibatch with broken values.

A learned optimizer is trained on some models. On very different ones it may do harm, and nothing in its
update rule says so. `LearnedOptimizer` therefore has safeguards. You will see each of them at work.

This took 50 seconds of processor time, and downloads nothing.

## Setup

The data are the 8 by 8 digits of scikit-learn. The model is a small network.
"""

import warnings

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import l2l_keras

x, x_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
x, x_test = x.astype("float32") / 16, x_test.astype("float32") / 16
print(f"{len(x):,} images to train on, {len(x_test)} held out")


def train(optimizer, activation, images=x, callbacks=()):
    keras.utils.set_random_seed(0)  # The same first weights and minibatches for all.
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(20, activation), keras.layers.Dense(10)]
    )
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        images,
        y,
        batch_size=64,
        epochs=20,
        verbose=0,
        validation_data=(x_test, y_test),
        callbacks=list(callbacks),
    )
    return history.history


def show(runs, title):
    figure, axes = plt.subplots(figsize=(6.4, 3.4), dpi=80, layout="constrained")
    for (name, history), line in zip(runs.items(), ("-", "--", ":", "-."), strict=False):
        axes.plot(range(1, 21), history["loss"], line, linewidth=2, label=name)
    axes.set(yscale="log", xlabel="epoch", ylabel="training loss", title=title)
    axes.set_xticks(range(0, 21, 5))
    axes.legend(frameon=False)
    plt.show()
    for name, history in runs.items():
        print(
            f"{name:22} training loss {history['loss'][-1]:8.2g}, "
            f"held-out accuracy {history['val_accuracy'][-1]:.1%}"
        )


from_preset = l2l_keras.LearnedOptimizer.from_preset

"""
## A preset where it belongs, and where it does not

The preset `digits_mlp` was trained on exactly this network, with sigmoid units. Its card says where it is
known to fail:
"""

for failure in l2l_keras.list_presets()["digits_mlp"]["fails_on"]:
    print("-", failure)

"""
We train with sigmoid units, then with ReLU units:
"""

runs = {
    "sigmoid units": train(from_preset("digits_mlp"), "sigmoid"),
    "ReLU units": train(from_preset("digits_mlp"), "relu"),
}
show(runs, "digits_mlp without a guard")

"""
With ReLU units, the network learns nothing. One in ten digits is right, which is guessing.

## The guard

`guard=True` keeps Adam ready. The optimizer watches the loss. If it runs away, the weights are restored
from a copy, and Adam takes over. If it falls more slowly than Adam's steps promise, Adam gets a trial from
the same weights. The one with the lower losses leads from then on.
"""

guarded = from_preset("digits_mlp", guard=True)
runs = {
    "digits_mlp": runs["ReLU units"],
    "digits_mlp, guarded": train(guarded, "relu"),
    "Adam": train(keras.optimizers.Adam(), "relu"),
}
show(runs, "ReLU units")

"""
The guarded run ends at least as low as Adam's does, although it began with a rule that fails.

## What the guard did

`guard_report` counts what happened:
"""

for what, value in guarded.guard_report.items():
    print(f"{what}: {value}")

"""
*Rescues* are restored copies of the weights, and *trials* are Adam's. At the end, Adam leads: the preset
is the wrong one for this model. If you see this, take another preset. `general-fast` was trained on many
models, ReLU networks among them:
"""

runs["general-fast, guarded"] = train(from_preset("general-fast", guard=True), "relu")
show(runs, "ReLU units")

"""
## What the guard costs

Where the rule works, the guard should stay out of the way. We go back to sigmoid units:
"""

unguarded, guarded = from_preset("digits_mlp"), from_preset("digits_mlp", guard=True)
show(
    {
        "digits_mlp": train(unguarded, "sigmoid"),
        "digits_mlp, guarded": train(guarded, "sigmoid"),
        "Adam": train(keras.optimizers.Adam(), "sigmoid"),
    },
    "sigmoid units",
)
print(guarded.guard_report)

"""
Besides, a guard keeps three more numbers for each weight, and takes about as much time as Adam.

## Broken minibatches

The other accident: one image has a value that is not a number. Its gradients are not numbers either, and
one step with them ruins every weight. `LearnedOptimizer` skips such steps, with or without a guard. A
skipped step changes no weight and no state. So it is with gradients that are suddenly a thousand times
larger than before (`runaway_factor`). The callback `SkippedSteps` counts them for each epoch:
"""

broken = x.copy()
broken[7, 30] = np.nan

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    runs = {
        "general-fast": train(
            from_preset("general-fast"), "relu", broken, [l2l_keras.SkippedSteps()]
        ),
        "Adam": train(keras.optimizers.Adam(), "relu", broken),
    }

print("skipped steps:", runs["general-fast"]["skipped_steps"])
print("warning:", next(str(w.message) for w in caught if "skipped" in str(w.message)))
for name, history in runs.items():
    print(f"{name:13} held-out accuracy {history['val_accuracy'][-1]:.1%}")

"""
One step of every epoch is skipped, the one whose minibatch has the broken image. Adam takes that step,
and all its weights are lost. (The training loss that Keras prints is still not a number, since it is the
mean over all minibatches. The skipped steps tell you why: find the image, and remove it.)

## Where to go next

- Use a guard if the model is unlike those on a preset's card, or if nobody watches the loss.
- If the guard's report says that Adam leads, take another preset, or
  [specialise one](specialise_a_preset.ipynb) for your model.
- `l2l_keras.Guard(learning_rate=3e-4)` instead of `True` sets Adam's learning rate.
- With JAX, mixed precision, `tf.distribute` or your own training loop, the guard does not see the loss by
  itself: add the callback `l2l_keras.ObserveLoss()`, or call `optimizer.observe_loss(loss)`.
- [Open the black box](open_the_black_box.ipynb) shows what a rule does with gradients.
"""
