"""
Title: Train with a learned optimizer
Author: l2l_keras authors
Date created: 2026/11/24
Last modified: 2026/11/30
Description: Train a Keras model with a learned optimizer, then meta-train one for a model of your own.
Accelerator: None
"""

"""
## Introduction

An optimizer turns gradients into updates. Adam uses a formula that people designed. Here, a small LSTM
computes the updates, and its weights were trained: it optimized many small models, and was adjusted so
that their losses fall faster. Andrychowicz et al. (2016) called this
["Learning to learn by gradient descent by gradient descent"](https://arxiv.org/abs/1606.04474).

This tutorial has two parts:

1. Train a Keras model with an optimizer that comes with `l2l_keras`, beside Adam.
2. Train an optimizer for a model of your own, and find out whether it pays.

This takes about three minutes on two processor cores, and downloads nothing.

## Setup
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import l2l_keras
from l2l_keras import evaluation, meta, rules, tasks

digits = load_digits()
images = (digits.images[..., np.newaxis] / 16.0).astype("float32")
labels = digits.target.astype("int32")
order = np.random.default_rng(0).permutation(len(images))
images, labels = images[order], labels[order]
print(f"{len(images):,} images of {images.shape[1]} by {images.shape[2]} pixels")

"""
# Part 1: use a learned optimizer

The package ships learned optimizers as *presets*. Each has a card that says what it was trained on, by
which command, and with what results:
"""

cards = l2l_keras.list_presets()
for name, card in cards.items():
    print(f"{name}: {card['description']}")

card = cards["digits_mlp"]
print(f"\ndigits_mlp was made by `{card['command']}` in {card['wall_seconds']} seconds.")
for what, losses in card["results"].items():
    print(what, {name: float(f"{value:.2g}") for name, value in losses.items()}, sep="\n  ")

"""
`digits_mlp` was trained on runs of 100 steps of one architecture, with 20 sigmoid units between 8 by 8
pixels and 10 classes. We train such a network in Keras with three optimizers: the learned one, Adam with
its default learning rate, and Adam with the best of six learning rates. The last one is the one to beat.
It costs six runs; the learned optimizer has no learning rate to tune.
"""

TRAIN = 1408  # 11 minibatches of 128; the other 389 images are held out.
EPOCHS = 9  # 99 steps.


def make_mlp(activation):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(20, activation),
            layers.Dense(10),
        ]
    )


def train(optimizer, activation):
    keras.utils.set_random_seed(0)  # The same first weights and minibatches for all.
    model = make_mlp(activation)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        images[:TRAIN],
        labels[:TRAIN],
        validation_data=(images[TRAIN:], labels[TRAIN:]),
        batch_size=128,
        epochs=EPOCHS,
        verbose=0,
    )
    return history.history


def train_adam(activation):
    by_rate = {
        rate: train(keras.optimizers.Adam(rate), activation)
        for rate in evaluation.half_decades(-3, -0.5)  # 0.001, 0.00316, ... 0.316
    }
    best = min(by_rate, key=lambda rate: by_rate[rate]["loss"][-1])
    return {
        "Adam, Keras' default (0.001)": by_rate[0.001],
        f"Adam, tuned ({best:.3g})": by_rate[best],
    }


def show(runs, title):
    figure, axes = plt.subplots(figsize=(6.4, 3.8), dpi=100, layout="constrained")
    for name, history in runs.items():
        style = ":" if "default" in name else "--" if name.startswith("Adam") else "-"
        axes.plot(range(1, EPOCHS + 1), history["loss"], style, linewidth=2, label=name)
    axes.set(yscale="log", xlabel="epoch", ylabel="training loss", title=title)
    axes.legend(frameon=False)
    plt.show()
    print(f"{'optimizer':30}training loss  held-out loss  held-out accuracy")
    for name, history in runs.items():
        loss, held_out_loss = history["loss"][-1], history["val_loss"][-1]
        accuracy = history["val_accuracy"][-1]
        print(f"{name:30}{loss:13.3f}  {held_out_loss:13.3f}  {accuracy:17.1%}")


from_preset = l2l_keras.LearnedOptimizer.from_preset
learned = {"digits_mlp": train(from_preset("digits_mlp"), "sigmoid")}
show(learned | train_adam("sigmoid"), "20 sigmoid units")

"""
The line with `from_preset` is all that a learned optimizer needs. Everything else is plain Keras:
callbacks, schedules, `weight_decay`, `clipnorm`, `model.save` and `load_model` work as with any
optimizer.

Without any tuning, the learned optimizer ends far below Adam with its best rate, on the training images
and here also on the held-out ones. It was meta-trained on networks that saw 599 images each; this one
sees 1,408.

(This is a single run of each. Part 2 shows how to compare properly.)

## Where it does not pay

We change one word, `sigmoid` to `relu`. The preset has never seen such a network:
"""

learned = {"digits_mlp": train(from_preset("digits_mlp"), "relu")}
adam = train_adam("relu")
show(learned | adam, "20 ReLU units")

"""
The network learns nothing at all. This can happen if a problem differs from those that the optimizer was
trained on: other layers, inputs of another scale, runs several times as long. Only the loss shows it. Two
things help.

## A guard, and presets for many models

With a *guard*, the optimizer keeps Adam ready. If the loss rises, or falls more slowly than Adam's
steps promise, Adam gets a trial from an earlier copy of the weights. From then on, the one that reached
lower losses leads.

The presets `general` and `general-fast` were trained on about fifty combinations of models, losses and
data: perceptrons of all depths, convolutions, recurrent networks, attention, regressions. Networks
for these digits are among them, so what follows does not show how well they do on unseen problems. That
was measured on 17 held-out problems, from 100 to 10,000 steps; the results are on their cards. `general`
is better on most of them; a step of `general-fast` takes three to five times as long as one of Adam.
"""

others = {
    "digits_mlp, guarded": from_preset("digits_mlp", guard=l2l_keras.Guard()),
    "general": from_preset("general"),
    "general-fast": from_preset("general-fast"),
}
learned = {name: train(optimizer, "relu") for name, optimizer in others.items()}
show(learned | adam, "20 ReLU units, with other optimizers")
for what, value in others["digits_mlp, guarded"].guard_report.items():
    print(f"{what}: {value}")

"""
With the guard, `digits_mlp` does no harm: Adam took over within the first epochs, with its default rate.
The general presets, untuned, end far below Adam with its best rate. So:

- For models and runs like those on a preset's card, try that preset.
- For others, try `general` or `general-fast`, with a guard if you do not watch the loss.
- If you train similar models again and again, train an optimizer for just these, as follows.

# Part 2: train an optimizer for your own model

Meta-training pays where you train similar models again and again: on every night's data, for every
customer, for every candidate in a search. Some terms first:

| term | meaning |
| --- | --- |
| *rule* | computes the updates: a small LSTM, the same one for every weight of the model |
| *optimizee* | the model that is optimized, with fresh initial weights |
| *inner step* | one update of the optimizee by the rule |
| *episode* | one training run of an optimizee, from its initial weights |
| *horizon* | number of inner steps in an episode |
| *window* | a part of an episode, through which gradients for the rule are back-propagated |
| *unroll* | number of inner steps in a window |
| *meta-loss* | what meta-training minimizes: the mean loss of the optimizee in a window |

Meta-training runs a window, differentiates its meta-loss with respect to the rule's weights, updates
these with Adam, and continues with the next window. After the last window of an episode, it draws a
fresh optimizee.

## What is optimized

You provide two things: a function that returns the model with fresh weights, and the data. Our
example is a small convolutional network with batch normalization and dropout.
"""


def model_fn():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, strides=2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10),
        ]
    )


loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
splits = ("train", "validation", "test")
data = {split: (images[k::3], labels[k::3]) for k, split in enumerate(splits)}
task = tasks.KerasTask(model_fn, loss, data, batch_size=64, name="digits_cnn")
print(f"{task.size} weights, {len(data['train'][0])} images in each split")

"""
The rule is trained on optimizees that see the `"train"` images, selected on optimizees that see the
`"validation"` images, and tested on optimizees that see the `"test"` images. The splits have the same size
for a reason: fewer images are easier to memorize, and we want to test the rule on problems as hard as
those that it will be used for. (Given just `(images, labels)`, `KerasTask` trains on 70 % of them, and holds the
others out: comparisons are then of the loss on images that no optimizer has trained on.)

## Meta-training

The rule is an `RNNprop` ([Lv et al., 2017](https://arxiv.org/abs/1703.03633)): an LSTM that sees
gradients relative to their RMS and takes no step longer than 0.1. It learns fast. (`CoordinatewiseLSTM` is
the rule of Andrychowicz et al. `MomentumLSTM`, which sets the step sizes of Nesterov's momentum and Adam,
is the rule of the preset above. It learns most with second derivatives over whole episodes, which batch
normalization rules out here.)

A `MetaModel` is a Keras model that you compile and fit. By default, a window has 20 inner steps. The
validation loss of meta-training fluctuates: `KeepBest` restores the weights that did best on validation
optimizees. `Progress` prints a line for each epoch, with the remaining time.
"""

HORIZON = 100
META_EPOCHS, WINDOWS = 10, 50  # 500 windows of 20 inner steps: 100 episodes.

rule = rules.RNNprop(seed=0)
meta_model = meta.MetaModel(rule, task, horizon=HORIZON)
schedule = keras.optimizers.schedules.CosineDecay(1e-2, META_EPOCHS * WINDOWS, alpha=0.01)
meta_model.compile(keras.optimizers.Adam(schedule, global_clipnorm=1.0))
history = meta_model.fit(
    epochs=META_EPOCHS,
    windows=WINDOWS,
    validation_episodes=10,
    verbose=0,
    callbacks=[meta.KeepBest(), meta.Progress()],
)

"""
"Mean loss" is the mean over whole validation episodes, "final loss" the mean over their last tenth.

## Does it pay?

A fair comparison gives the baselines their best learning rates. For each of Adam, RMSprop, Nesterov
momentum (NAG) and SGD, `compare` tries a grid of learning rates on validation optimizees. Then all
optimizers run on the same fresh test optimizees, with the same minibatches.
"""

comparison = evaluation.compare(
    task, {"RNNprop": rule}, steps=HORIZON, seeds=range(10), tuning_seeds=range(3)
)
print(evaluation.table(comparison))
evaluation.figure(comparison)

"""
"Ratio" is the final loss divided by that of the best tuned optimizer: below 1, the rule has won. "Seconds"
is the cost: a step of the LSTM takes longer than one of Adam, which matters if the model's own step is as
cheap as here. It pays if steps or tuning are expensive: Adam's rate alone took 27 runs.

Some optimizees are harder than others, which widens the intervals in the table. But all optimizers had
the same optimizees, so we can compare them run by run:
"""

best = comparison.best_baseline
differences = comparison["RNNprop"].final - best.final
mean, half_width = evaluation.mean_and_interval(differences)
print(f"final loss, RNNprop minus {best.name}: {mean:.3f} ± {half_width:.3f}")
print(f"RNNprop is ahead in {np.sum(differences < 0)} of {len(differences)} runs")

"""
The rule was trained on 100 steps. What happens in longer runs?
"""

longer = evaluation.compare(
    task,
    {"RNNprop": rule},
    steps=3 * HORIZON,
    seeds=range(10),
    tuning_seeds=range(3),
    baselines={"Adam": evaluation.BASELINES["Adam"]},
)
print(evaluation.table(longer))

"""
This worked, but that is not guaranteed: a rule is not trained for what comes after its horizon.

## Save it and use it

A rule is saved as a preset: a folder with its configuration, its weights and a card for what you will
want to know in a year.
"""

l2l_keras.LearnedOptimizer(rule).save_to_preset(
    "digits_cnn_rule",
    card={
        "name": "digits_cnn_rule",
        "description": "RNNprop for a small convolutional network, 599 digits, 100 steps",
        "results": {result.name: result.mean_final for result in comparison.results},
    },
)

"""
`from_preset` takes a folder as well as a name. We train the network in Keras on the first third of the
images and evaluate it on the last, beside Adam with the learning rate that `compare` found:
"""

adam_rate = comparison["Adam"].learning_rate
optimizers = {
    "digits_cnn_rule": l2l_keras.LearnedOptimizer.from_preset("digits_cnn_rule"),
    f"Adam ({adam_rate:.3g})": keras.optimizers.Adam(adam_rate),
}
for name, optimizer in optimizers.items():
    keras.utils.set_random_seed(0)
    model = model_fn()
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    model.fit(*data["train"], batch_size=64, epochs=10, verbose=0)
    held_out_loss, accuracy = model.evaluate(*data["test"], verbose=0)
    print(f"{name:15}  held-out loss {held_out_loss:.3f}, accuracy {accuracy:.1%}")

"""
The rule is better at what it was trained for, the training loss. On unseen images, that makes little
difference here: as with any optimizer, measure what you care about.

## The same in one command

Define the task in a file:

```python
# my_task.py
import keras
import sklearn.datasets

import l2l_keras


def model_fn():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(20, "relu"), keras.layers.Dense(10)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def make_task():
    images, labels = sklearn.datasets.load_digits(return_X_y=True)
    return l2l_keras.tasks.KerasTask(model_fn, dataset=(images / 16.0, labels), batch_size=64)
```

Then

```sh
l2l-meta-train --task=my_task.py:make_task --rule=rnnprop --output_dir=my_rule
```

meta-trains, keeps the best weights, compares them with tuned baselines, and writes the preset
(`my_rule/preset`), the table and the figure. `--resume` continues an interrupted run.

## What to remember

- `LearnedOptimizer.from_preset(...)` in `model.compile` is all you need.
- A learned optimizer is for models, data and run lengths like those that it was trained on. The
  general presets were trained on many. Elsewhere, measure before you trust it: use `l2l-evaluate`, or a
  guard, which keeps Adam ready.
- It has no learning rate to tune, but takes memory and time: 36 to 84 numbers a weight, where Adam
  keeps two, and thousands of operations. Such rules are for small models that are trained often.
  `general-fast` keeps 3 numbers a weight, and a step takes three to five times as long as Adam's;
  `general` keeps 5, and takes longer, especially with large matrices.
"""
