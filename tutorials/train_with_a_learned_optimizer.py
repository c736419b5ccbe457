"""
Title: Train with a learned optimizer
Author: l2l_keras authors
Date created: 2026/11/24
Last modified: 2026/11/30
Description: Train a Keras model with an optimizer that was itself trained, and compare it with Adam.
Accelerator: None
"""

"""
## What you will have

A Keras model that was trained with a learned optimizer, without a learning rate to choose, and a fair
comparison with Adam on images held out.

An optimizer turns gradients into updates. Adam uses a formula that people designed. Here, a small neural
network computes the updates, and its weights were trained: it optimized many models, and was adjusted so
that their losses fall faster. [Andrychowicz et al. (2016)](https://arxiv.org/abs/1606.04474) called this
"learning to learn by gradient descent by gradient descent".

This took 40 seconds of processor time, and downloads nothing.

## Choose a preset

The package ships trained optimizers as *presets*:
"""

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import l2l_keras

print(l2l_keras.list_presets())

"""
`general-fast` is the one to begin with. It was trained on about fifty combinations of models, losses and
data, and a step takes three to five times as long as Adam's.

## Data and model

The 8 by 8 digits come with scikit-learn. The images are divided into three parts: to train on, to choose
Adam's learning rate by, and to compare on at the end.
"""

digits = load_digits()
images = (digits.images[..., np.newaxis] / 16.0).astype("float32")
order = np.random.default_rng(0).permutation(len(images))
parts = {"train": order[:1200], "choose": order[1200:1500], "compare": order[1500:]}
data = {name: (images[rows], digits.target[rows]) for name, rows in parts.items()}
print({name: len(labels) for name, (_, labels) in data.items()})


def make_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10),
        ]
    )


make_model().summary()

"""
## Train

One line is new, the one with `from_preset`. All the rest is plain Keras. The learning rate is 1, and multiplies
steps that already have the right size.
"""

EPOCHS = 10


def train(optimizer, seed=0):
    keras.utils.set_random_seed(seed)
    model = make_model()
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        *data["train"], validation_data=data["choose"], batch_size=64, epochs=EPOCHS, verbose=0
    )
    return model, history.history


def learned():
    return l2l_keras.LearnedOptimizer.from_preset("general-fast")


model, history = train(learned())
for epoch in range(0, EPOCHS, 3):
    print(f"epoch {epoch + 1:2}: training loss {history['loss'][epoch]:.3f}")
print(model.evaluate(*data["compare"], verbose=0, return_dict=True))

"""
## Tune Adam

The optimizer to beat is Adam with a good learning rate. We try five rates, and keep the one with the lowest
loss on the images to choose by. That is five runs; the learned optimizer needed none.
"""

rates = (0.0003, 0.001, 0.003, 0.01, 0.03)
losses = {rate: train(keras.optimizers.Adam(rate))[1]["val_loss"][-1] for rate in rates}
best = min(losses, key=losses.get)
for rate, loss in losses.items():
    print(f"Adam {rate:<7g} loss {loss:.4f}{'  <- best' if rate == best else ''}")

"""
## Compare

Each optimizer trains three networks with other first weights. What counts is the loss on the images that
nobody has looked at so far.
"""

optimizers = {
    "general-fast": learned,
    f"Adam, tuned ({best:g})": lambda: keras.optimizers.Adam(best),
    "Adam, default (0.001)": keras.optimizers.Adam,
}
figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=80, layout="constrained")
for (name, make), line in zip(optimizers.items(), ("-", "--", ":"), strict=True):
    runs = [train(make(), seed) for seed in (1, 2, 3)]
    loss, accuracy = np.mean([m.evaluate(*data["compare"], verbose=0) for m, _ in runs], axis=0)
    curve = np.mean([history["loss"] for _, history in runs], axis=0)
    axes.plot(range(1, EPOCHS + 1), curve, line, linewidth=2, label=name)
    print(
        f"{name:22} training loss {curve[-1]:.4f}, held out: loss {loss:.4f}, "
        f"accuracy {accuracy:.1%}"
    )
axes.set(xlabel="epoch", ylabel="training loss", yscale="log")
axes.legend(frameon=False)
plt.show()

"""
With `general-fast`, the training loss falls faster than with Adam at its best rate. On the images held out,
both do about equally well: a loss that is lower on the images to train on need not be lower on others. Adam
at its default rate is behind on all of them. So what you save here is the search: one run instead of five.

## Save and go on

The optimizer is part of the saved model, as always in Keras. A program that loads the model imports
`l2l_keras` first.
"""

model.save("digits.keras")
restored = keras.models.load_model("digits.keras")
print(restored.optimizer)
history = restored.fit(*data["train"], batch_size=64, epochs=1, verbose=2)

"""
## Where to go next

- [Safety with the guard](safety_with_the_guard.ipynb): for models unlike those that a preset was trained on.
- [Specialise a preset](specialise_a_preset.ipynb): train the optimizer further for models of your own.
- [Compare and transfer](compare_and_transfer.ipynb): find out in one call whether it pays for your models.
- [Mixed precision and distribution](mixed_precision_and_distribution.ipynb): the rest of Keras works, too.
"""
