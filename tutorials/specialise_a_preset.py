"""
Title: Specialise a preset
Author: l2l_keras authors
Date created: 2026/11/30
Last modified: 2026/11/30
Description: Train a learned optimizer further for models of your own, and find out whether that helped.
Accelerator: None
"""

"""
## What you will have

An optimizer for models of your own: the preset `general-fast`, trained further on small networks, so
that they do well on images that they were not trained on. You will

1. describe your models;
2. train the preset further;
3. compare it with `general-fast` and tuned AdamW on images held out;
4. save it, load it, and use it in `model.compile`.

This is for you if you train similar models again and again: on new data every week, for every customer, in
every fold of a cross-validation.

This took 154 seconds of processor time, and downloads nothing.

## Describe your models

A `KerasTask` is a family of models: a function that returns a compiled model with fresh weights, and data.
Of the data, 70 % are for training. The rest is held out: one half to choose by in meta-training, the other
half for the comparison at the end.
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.utils import shuffle

import l2l_keras
from l2l_keras import evaluation, meta, studies, tasks

x, y = shuffle(*load_digits(return_X_y=True), random_state=0)
x = (x / 16).astype("float32")


def model_fn():
    hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    return model


STEPS = 200  # Updates of a training run.
task = tasks.KerasTask(model_fn, dataset=(x, y), batch_size=32, jit_compile=True, name="digits")
print(f"{len(x):,} images, {task.size:,} weights, {STEPS} steps of 32 images")

"""
## Train the preset further

`studies.Recipe` holds settings of meta-training that suit a preset. The rule trains fresh networks, and is
adjusted so that their loss on unseen images falls faster. The learning rate that multiplies
its updates falls from 1 to 0 in every run. That is worth remembering: it must do so later, too.

`KeepBest` keeps the weights that are best on validation networks. They include those that we start from:
meta-training may make a rule worse. When it does, `Backtrack` goes back to the best epoch, and halves the
learning rate of meta-training.
"""

rule, card = l2l_keras.presets.load_preset("general-fast")
recipe = studies.Recipe.of(task, STEPS)
meta_model = recipe.meta_model(rule, task, STEPS)

EPOCHS = 16
windows = meta_model.windows_of(recipe.episodes)
keep_best = meta.KeepBest("val_held_out_loss")
backtrack = meta.Backtrack(keep_best)
meta_model.compile(recipe.meta_optimizer(EPOCHS * windows, backtrack))
validation = tf.data.Dataset.range(recipe.validation_episodes)
before = meta_model.evaluate(validation, verbose=0, callbacks=[keep_best], return_dict=True)
history = meta_model.fit(
    epochs=EPOCHS,
    windows=windows,
    validation_episodes=recipe.validation_episodes,
    verbose=0,
    callbacks=[keep_best, keras.callbacks.SwapEMAWeights(), backtrack],
)
losses = [before["held_out_loss"], *history.history["val_held_out_loss"]]
print("before:", f"{losses[0]:.4f}", "best:", f"{keep_best.best_value:.4f}")

figure, axes = plt.subplots(figsize=(6.4, 3.2), dpi=80, layout="constrained")
axes.plot(range(EPOCHS + 1), losses, "o-", linewidth=2)
axes.set(xlabel="epoch of meta-training", ylabel="loss on images held out", ylim=(0, None))
axes.set_title(f"Validation networks after {STEPS} steps")
plt.show()

"""
## Compare

Now the images that nobody has looked at. `compare` tunes the learning rate of AdamW, which falls as a cosine,
on validation networks. Then all optimizers train the same fresh networks on the same minibatches.
`general-fast` is there twice, with and without a learning rate that falls, to tell what the falling rate does
from what meta-training does.
"""

start, _ = l2l_keras.presets.load_preset("general-fast")
comparison = evaluation.compare(
    task,
    {"specialised": rule, "general-fast": start, "general-fast, cosine": start},
    steps=STEPS,
    seeds=range(10),
    tuning_seeds=range(2),
    baselines={"AdamW + cosine": evaluation.ALL_BASELINES["AdamW + cosine"]},
    schedules={"specialised": "cosine", "general-fast, cosine": "cosine"},
)
figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=80, layout="constrained")
for result, line in zip(comparison.results, ("-", "--", ":", "-."), strict=True):
    looks = result.held_out
    axes.plot(looks.steps, looks.metrics["loss"].mean(axis=0), line, label=result.name)
    print(
        f"{result.name:21} loss {looks.metrics['loss'][:, -1].mean():.4f}, "
        f"accuracy {looks.metrics['accuracy'][:, -1].mean():.1%}, "
        f"ratio to AdamW {comparison.ratio(result.name):.2f}"
    )
axes.set(xlabel="step", ylabel="loss on images held out", yscale="log")
axes.legend(frameon=False)
plt.show()
print(evaluation.verdict(comparison, "specialised"))

"""
*Ratio* is the loss on images held out, divided by that of AdamW; below 1, the learned optimizer is better.

- All three learned optimizers end lower than AdamW with its best rate, if not by much: the interval of the
  ratio, in the last line, includes 1.
- What the specialised rule gains over `general-fast` comes from the falling rate here, which costs nothing. A
  minute of meta-training adds nothing to it on these digits, which `general-fast` is good at already. On the noisy
  table of our [research note](../docs/research/2026-11-30-specialising.md), two minutes take a fifth off the loss.
  So look at such a comparison before you use what you have trained.
- The price is time. In a network as small as this, the work of the optimizer is most of a step, and AdamW has
  less of it: after the same seconds, AdamW is ahead. Where a step of the model takes longer (convolutions,
  larger minibatches), the difference is small.
- Meta-training took longer than tuning AdamW once. It pays if you train many such models.

## Save it, load it, use it

A preset is a folder. Its card should say what you will want to know in a year. With `"schedule": "cosine"` on
it, a warning reminds everyone who forgets the falling learning rate. `CosineDecay(1.0, steps)` is the schedule
of meta-training; `steps` are those that you train for.
"""

l2l_keras.LearnedOptimizer(rule).save_to_preset(
    "digits_preset",
    card={
        "name": "digits_preset",
        "description": f"general-fast, specialised on small networks for digits, {STEPS} steps",
        "horizon": STEPS,
        "schedule": "cosine",
        "results": {result.name: result.mean_final for result in comparison.results},
        "trained_from": card["name"],
    },
)

EPOCHS_TO_TRAIN = 5
steps = EPOCHS_TO_TRAIN * int(np.ceil(0.8 * len(x) / 32))
optimizer = l2l_keras.LearnedOptimizer.from_preset(
    "digits_preset", learning_rate=keras.optimizers.schedules.CosineDecay(1.0, steps)
)
keras.utils.set_random_seed(0)
model = model_fn()
model.compile(optimizer=optimizer, loss=model.loss, metrics=["accuracy"])
history = model.fit(x, y, batch_size=32, epochs=EPOCHS_TO_TRAIN, validation_split=0.2, verbose=2)
print(f"{steps} steps with {optimizer}")

"""
## Where to go next

- The same as a command, which tunes more optimizers and writes a report:
  `l2l-meta-train --task=my_task.py:make_task --rule=general-fast --horizon=200 --minutes=10`.
- [Compare and transfer](compare_and_transfer.ipynb): does it pay, and does it help on other models, too?
- [Forecast many series](forecast_many_series.ipynb) and
  [tune a manufacturing process](tune_a_manufacturing_process.ipynb): specialised presets at work.
- [Safety with the guard](safety_with_the_guard.ipynb): for models that differ from those of meta-training.
"""
