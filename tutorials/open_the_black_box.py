"""
Title: Open the black box
Author: l2l_keras authors
Date created: 2026/11/30
Last modified: 2026/11/30
Description: See what a learned optimizer does with gradients, by experiment and in a training run.
Accelerator: None
"""

"""
## What you will have

Figures that show what a learned optimizer does, beside Adam:

- the update as a function of the gradient;
- for how long a gradient has an effect;
- the step sizes that it chooses when gradients agree, and when they are noise;
- the step size and the direction of every variable, while your model trains.

A rule is a function. You need not read its weights to understand it: show it gradients, and see what it
answers.

This took 40 seconds of processor time, and downloads nothing.

## One update by hand

A preset holds a *rule*. Its method `step` takes the gradients of some weights and what the rule remembers
of each, the *state*. It returns the updates and the next state. The rule of `digits_mlp` is an LSTM that
looks at each weight by itself.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from sklearn.datasets import load_digits

import l2l_keras
from l2l_keras.evaluation import rule_response

rule, card = l2l_keras.presets.load_preset("digits_mlp")
print(card["description"])

state = rule.initial_state(3)  # Of three weights.
for _ in range(3):
    updates, state = rule.step(ops.array([0.01, 0.0, -0.01]), state)
    print("updates:", ops.convert_to_numpy(updates))

"""
The weights move against their gradients. The updates grow, although the gradients stay the same: the rule
gathers momentum. The second weight, whose gradient is zero, does not move.

## The update map

We repeat this for many gradients, after several histories. `update_map` does it for 121 gradients at once,
from -3 to 3 times a typical one.
"""

SCALE = 0.01  # A typical gradient.
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
subjects = {"digits_mlp": rule, "Adam, 0.001": rule_response.Adam()}


def draw(axes, points, lines, **settings):
    for (name, values), line in zip(lines.items(), LINES, strict=False):
        axes.plot(points, values, linestyle=line, linewidth=1.8, label=name)
    axes.set(**settings)


figure, row = plt.subplots(1, 2, figsize=(9, 3.4), dpi=80, layout="constrained")
for axes, (name, subject) in zip(row, subjects.items(), strict=True):
    points, lines = rule_response.update_map(subject, SCALE)
    draw(axes, points, lines, title=name, xlabel="gradient / typical gradient", ylabel="update")
figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
plt.show()

"""
Read it like this. Both fall from left to right: a positive gradient moves a weight down. The slope says how
much the present gradient counts, the offset how much the past does.

- *After gradients of 1*, both move down whatever the present gradient is: that is momentum.
- *After gradients of 1 and -1 in turn*, the line goes through the origin: the past cancels out.
- Look at the scales of the vertical axes. The learned updates are up to hundreds of times larger than those
  of Adam at its default rate. This rule was trained for runs of 100 steps: there is no time to lose.

## How long a gradient has an effect

A single gradient, then zeros. The figure shows the updates that follow, less those without that gradient.
"""

figure, row = plt.subplots(1, 2, figsize=(9, 3.2), dpi=80, layout="constrained")
for axes, (name, subject) in zip(row, subjects.items(), strict=True):
    steps, lines = rule_response.impulse_map(subject, SCALE)
    draw(axes, steps, lines, title=name, xlabel="steps since the gradient", ylabel="update")
    print(name, {label: f"total {values.sum():.3g}" for label, values in lines.items()})
axes.legend(frameon=False)
plt.show()

"""
Adam's lines coincide: it divides by the RMS of gradients, so a lone gradient of any size has the same
effect, and it fades at once. With the learned rule, a larger gradient has a larger effect, but far less than
in proportion: one that is 30 times as large counts about twice. The effect comes back after five steps, and
then fades.

## A rule for whole tensors

`general-fast` decides once for each *tensor*, such as a layer's kernel. It sets a step size, from how much
successive gradients agree. `tensor_responses` shows it a matrix whose gradients are the same in each step,
noise, or something between.
"""

general, _ = l2l_keras.presets.load_preset("general-fast")
responses = rule_response.tensor_responses(general, steps=150)
figure, axes = plt.subplots(figsize=(7, 3.6), dpi=80, layout="constrained")
sizes = {name: response.step_sizes for name, response in responses.items()}
draw(axes, np.arange(1, 151), sizes, xlabel="step", ylabel="step size", yscale="log")
axes.legend(frameon=False, fontsize=8)
plt.show()
for name, values in sizes.items():
    print(f"{name:46} step size after 150 steps: {values[-1]:.2g}")

"""
Nobody programmed this. Where gradients agree, the rule takes larger steps; where they are noise or change
their sign, smaller ones. It notices within a few steps if the gradients become noise. Adam's learning rate
would be a horizontal line, and you would have to find its height.

## Step sizes in a training run

The same can be seen while your own model trains. `record_updates=True` makes the optimizer record each
update, and the callback `Diagnostics` reads the records.
"""

x, y = load_digits(return_X_y=True)
keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Rescaling(1 / 16),
        keras.layers.Dense(32, "relu", name="first"),
        keras.layers.Dense(32, "relu", name="second"),
        keras.layers.Dense(10, name="last"),
    ]
)
model.compile(
    optimizer=l2l_keras.LearnedOptimizer.from_preset("general-fast", record_updates=True),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)
diagnostics = l2l_keras.Diagnostics(update_freq=5)  # Every 5 minibatches.
history = model.fit(x, y, batch_size=64, epochs=10, verbose=0, callbacks=[diagnostics])
batches = [batch for batch, _ in diagnostics.history]
first, *_, last = history.history["loss"]
print(f"mean training loss: {first:.2g} in the first epoch, {last:.2g} in the last")


def recorded(what):
    names = [f"{what}/{v.path}" for v in model.trainable_variables if "kernel" in v.path]
    return {
        name.split("/")[-2]: [numbers[name] for _, numbers in diagnostics.history] for name in names
    }


figure, row = plt.subplots(1, 3, figsize=(11, 3.2), dpi=80, layout="constrained")
for axes, what in zip(row, ("step size", "update norm", "cosine with descent"), strict=True):
    draw(axes, batches, recorded(what), title=what, xlabel="step")
row[0].set(yscale="log")
row[1].set(yscale="log")
row[0].legend(frameon=False)
plt.show()

"""
Each layer gets a step size of its own, the last one the largest, and all of them change in the course of
training. (The figures are noisy, since minibatches are.) The *cosine with
descent* is that of the angle between the update and the direction against the present gradient. It is 1 for
plain gradient descent. Near 0, the update follows older gradients, and this minibatch hardly matters.

`Diagnostics("logs")` writes the same to TensorBoard.

## When something is wrong

`diagnose` gives the present numbers. Two of them are worth a look if the loss does not fall: *saturated
cells*, the share of LSTM cells that no longer respond, and the step size.
"""

for path, numbers in model.optimizer.diagnose().items():
    print(path, {name: float(f"{number:.2g}") for name, number in numbers.items()})

"""
A share of saturated cells near 1, or a step size that keeps rising while the loss does not fall, says that
the rule may be far from what it was trained on. Here, all is well.

## Where to go next

- `l2l-explain --preset=NAME` draws these figures for any preset, in seconds.
- A preset does not suit your model? [Specialise it](specialise_a_preset.ipynb), and look again.
- [Write your own rule](write_your_own_rule.ipynb) that is simple enough to be shown in a single figure.
- [Safety with the guard](safety_with_the_guard.ipynb): what to do if a rule fails.
"""
