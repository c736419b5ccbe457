"""
Title: Write your own rule
Author: l2l_keras authors
Date created: 2026/11/30
Last modified: 2026/11/30
Description: Write an update rule with a small network in it, train it, and use it in model.compile.
Accelerator: None
"""

"""
## What you will have

An optimizer of your own: a formula with a gap in it, and a small network that fills the gap. You will

1. write the rule, in about thirty lines;
2. *meta-train* it for a minute: let it optimize many small models, and adjust it so that their losses fall;
3. see what it has learned;
4. find out whether it is better than tuned Adam;
5. use it in `model.compile`, save it, and load it.

This took 75 seconds of processor time, and downloads nothing.

## The rule

An update rule is a Keras layer with one pure function, `step`. It gets the gradient of every weight of the
model, as one vector of `n` numbers, and the state that it keeps for every weight, arrays of `[rows, n]`. It
returns the update and the next state. All operations are elementwise, so that the rule works for models of
any shape.

Our rule is Adam with one change. Adam's step size is the same for all weights and steps. Here, a small
network chooses it for each weight, from two things that it can see:

- how much the weight's recent gradients agree: the mean gradient, divided by the RMS of gradients;
- how late it is: the logarithm of the number of steps.

The network has one hidden layer of 8 units. Its 33 numbers are all that will be learned.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from sklearn.datasets import make_friedman1

import l2l_keras
from l2l_keras import evaluation, meta, rules, tasks


@keras.saving.register_keras_serializable(package="my_rules")
class StepSizeRule(rules.UpdateRule):
    """Adam with a step size that a small network chooses for each weight."""

    state_rows = (1, 1, 1)  # Mean gradient, mean squared gradient, number of steps.

    def __init__(self, units=8, seed=None, name=None):
        super().__init__(name=name)
        self.units, self.seed = units, seed
        random = keras.initializers.GlorotUniform(seed)
        self.hidden = self.add_weight(shape=(units, 2), initializer=random, name="hidden")
        self.bias = self.add_weight(shape=(units, 1), initializer="zeros", name="bias")
        # With zeros here, meta-training begins with Adam at a learning rate of 0.01.
        self.output_weights = self.add_weight(shape=(1, units), initializer="zeros", name="output")
        start = keras.initializers.Constant(np.log(0.01))
        self.log_size = self.add_weight(shape=(1, 1), initializer=start, name="log_size")

    def step_size(self, agreement, steps):
        features = ops.concatenate([agreement, ops.log(steps) / 5.0])
        hidden = ops.tanh(ops.matmul(self.hidden, features) + self.bias)
        return ops.exp(ops.matmul(self.output_weights, hidden) + self.log_size)

    def step(self, gradient, state):
        mean, square, steps = state
        steps = steps + 1.0
        mean = 0.9 * mean + 0.1 * gradient[None]
        square = 0.99 * square + 0.01 * ops.square(gradient[None])
        rms = ops.sqrt(square / (1.0 - 0.99**steps) + 1e-16)
        direction = mean / (1.0 - 0.9**steps) / rms
        update = -self.step_size(ops.abs(direction), steps) * direction
        return update[0], (mean, square, steps)


rule = StepSizeRule(seed=0)
update, state = rule.step(ops.array([0.3, -2.0, 0.0]), rule.initial_state(3))
print("weights of the rule:", sum(int(np.prod(w.shape)) for w in rule.trainable_weights))
print("first update of three weights:", ops.convert_to_numpy(update).round(4))

"""
Untrained, it takes Adam's first step: 0.01 against the sign of the gradient.

## A task to learn from

A *task* says what is optimized: a function that returns the compiled model with fresh weights, and the
data. Ours is a small network for a regression problem that scikit-learn generates. Some of the examples are
held out of training; you will see the loss on those.
"""

x, y = make_friedman1(3000, n_features=10, noise=1.0, random_state=0)
x, y = (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std()


def model_fn():
    hidden = [keras.layers.Dense(32, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((10,)), *hidden, keras.layers.Dense(1)])
    model.compile(loss="mean_squared_error")
    return model


task = tasks.KerasTask(
    model_fn,
    dataset=(x.astype("float32"), y.astype("float32")),
    batch_size=16,
    jit_compile=True,
    name="regression",
)
print(f"{len(x):,} examples, {task.size:,} weights of the model")

"""
## Meta-training

`MetaModel` is a Keras model whose weights are the rule's. One *episode* trains a fresh network for
`horizon` steps. It is cut into windows of 20 steps. After each window, the rule is adjusted so that the
loss on held-out examples falls faster.

How to adjust it is estimated by *persistent evolution strategies*
([Vicol et al., 2021](https://arxiv.org/abs/2112.13835)): rules with slightly different numbers train the
same network, and those that do better show the direction. With so few numbers to learn, this is quick and
counts the effect of a step on the whole episode. (The default, back-propagation through windows, is the
better choice for rules with thousands of numbers. It differentiates your `step`.)

`KeepBest` keeps the weights that did best on validation networks.
"""

HORIZON = 200
meta_model = meta.MetaModel(
    rule,
    task,
    horizon=HORIZON,
    estimator=meta.PersistentEvolution(pairs=4, sigma=0.1, reuse_noise=True),
    windows=meta.Windows(meta_loss="log_relative", step_weights="linear", clip_norm=50.0),
    parallel=2,
    meta_loss_on="validation",
)
EPOCHS, WINDOWS = 8, 40
schedule = keras.optimizers.schedules.CosineDecay(0.02, EPOCHS * WINDOWS)
meta_model.compile(keras.optimizers.Adam(schedule, global_clipnorm=1.0))
history = meta_model.fit(
    epochs=EPOCHS,
    windows=WINDOWS,
    validation_episodes=8,
    verbose=0,
    callbacks=[meta.KeepBest("val_held_out_loss"), meta.Progress()],
)

"""
## What has it learned?

The rule has two inputs, so a figure shows all of it: the step size against the number of steps, for weights
whose gradients agree more or less.
"""

steps = np.arange(1.0, HORIZON + 1)[None]
figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=80, layout="constrained")
for agreement, line in ((1.0, "-"), (0.5, "--"), (0.1, ":")):
    sizes = rule.step_size(ops.full(steps.shape, agreement), ops.array(steps, "float32"))
    label = f"agreement {agreement}"
    axes.plot(steps[0], ops.convert_to_numpy(sizes)[0], line, linewidth=2, label=label)
axes.axhline(0.01, color="gray", linewidth=1, label="before meta-training")
axes.set(xlabel="step", ylabel="step size", yscale="log", title="The learned step size")
axes.legend(frameon=False)
plt.show()

"""
## Is it any good?

`compare` tunes the learning rates of other optimizers on validation networks. Then all of them train the
same fresh networks, on the same minibatches.
"""

chosen = ("Adam", "Adam (default)", "AdamW + cosine")
comparison = evaluation.compare(
    task,
    {"our rule": rule},
    steps=HORIZON,
    seeds=range(5),
    tuning_seeds=range(2),
    baselines={name: evaluation.ALL_BASELINES[name] for name in chosen},
)
print(evaluation.table(comparison))

"""
*Ratio* is the loss on held-out examples, divided by that of the best other optimizer. The last line is the
verdict. The rule does about as well as the best optimizer whose rate was tuned, and has no rate to tune. It
does not clearly beat it: 33 numbers can only choose step sizes. Against Adam at its default rate, it is far
ahead.

## Use it and keep it

`LearnedOptimizer` takes the rule. `save_to_preset` writes a folder with its configuration, its weights and
a card with what you will want to know in a year. To load it, a program must have imported your class.
"""

l2l_keras.LearnedOptimizer(rule).save_to_preset(
    "step_size_rule",
    card={
        "name": "step_size_rule",
        "description": f"StepSizeRule for a small network for regression, {HORIZON} steps",
        "results": {result.name: result.mean_final for result in comparison.results},
    },
)

keras.utils.set_random_seed(1)
model = model_fn()
model.compile(
    optimizer=l2l_keras.LearnedOptimizer.from_preset("step_size_rule"), loss="mean_squared_error"
)
model.fit(x, y, batch_size=16, epochs=3, validation_split=0.2, verbose=2)
print(model.optimizer)

"""
## Where to go next

- The rules that come with `l2l_keras.rules` replace more of the formula: an LSTM computes the whole update,
  or sets step sizes and momenta for each tensor. Theirs are thousands of numbers, and hours of meta-training.
- If meta-training your rule is slow, subclass `l2l_keras.rules.SplitRule`, and write the derivative of its
  network yourself. If a decision is to be made for a whole tensor, subclass `TensorwiseRule`.
- `keras.ops` is all that `step` may use. Your rule then runs on TensorFlow, JAX and PyTorch.
- [Open the black box](open_the_black_box.ipynb) shows how rules with more inputs can be looked at.
"""
