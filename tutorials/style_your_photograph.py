"""
Title: Style your photograph
Author: l2l_keras authors
Date created: 2026/11/24
Last modified: 2026/11/24
Description: Paint a photograph in the style of a painting, with an optimizer that learned to paint.
Accelerator: None
"""

"""
## Introduction

[Gatys et al. (2015)](https://arxiv.org/abs/1508.06576) paint a photograph in the style of a painting
by *optimization*: they start from noise, and change its pixels until a network sees in them the things
that are in the photograph, and the textures that are in the painting. Each picture is an optimization
problem of its own, and all of them are alike. That is what learned optimizers are for, and it was the
last experiment of [Andrychowicz et al. (2016)](https://arxiv.org/abs/1606.04474), who called it
"neural art".

We paint with the preset `neural_art`, an optimizer that was meta-trained on pictures of 64 by 64
pixels in one style, and compare it with Adam at several learning rates.

All of it takes about three minutes on two processor cores.

## The pictures

The photograph comes with scikit-learn; put your own in its place. The style is Van Gogh's *Starry
Night*. That and the weights of VGG16, the network that looks at the pictures, are downloaded, unless
environment variables name files that are there already.
"""

import os

import keras
import matplotlib.pyplot as plt
import tensorflow as tf
from sklearn.datasets import load_sample_image

import l2l_keras
from l2l_keras import tasks

photograph = load_sample_image("china.jpg")  # Or np.array(PIL.Image.open("my.jpg").convert("RGB")).
style = os.environ.get("STYLE_PICTURE") or keras.utils.get_file(
    "starry_night.jpg", "https://i.imgur.com/9ooB60I.jpg"
)
weights = {
    "weights": os.environ.get("VGG16_WEIGHTS", "imagenet"),
    # "torch" for weights from torchvision, which were trained on inputs of another scale.
    "preprocessing": os.environ.get("VGG16_PREPROCESSING", "caffe"),
}
print(f"The photograph has {photograph.shape[0]} by {photograph.shape[1]} pixels.")

"""
## The problem

`tasks.NeuralArt` has the loss: a weighted sum of how far the painting is from the photograph in the
features of a deep layer (*content*), how far from the style picture in the correlations between the
features of three layers (*style*), and how much its neighbouring pixels differ (*total variation*).

`optimizee` returns where to start, noise, and what the loss needs to know of the photograph, of which
it takes the square in the middle. The parameters are the painting's pixels: 128 · 128 · 3 of them.
"""

task = tasks.NeuralArt(style=style, size=128, **weights)
noise, targets = task.optimizee(photograph, seed=0)


def loss_of(painting, targets, task):
    losses, _ = task.loss(painting, targets, ())  # One for each picture, which is one.
    return float(losses[0])


print(f"{task.size:,} parameters; loss of noise: {loss_of(noise, targets, task):.3f}")

"""
## Painting

The loop is the usual one: a loss, its gradient, and an optimizer that applies it. Nothing in it knows
that the optimizer may be a learned one.
"""

STEPS = 128


def paint(optimizer, noise, targets, task):
    painting = keras.Variable(noise)
    optimizer.build([painting])

    @tf.function
    def step():
        loss, gradient, _ = task.loss_and_gradient(painting.value, targets, ())
        optimizer.apply([gradient], [painting])
        return loss[0]

    losses = [float(step()) for _ in range(STEPS)]
    losses.append(loss_of(painting.value, targets, task))
    return losses, task.to_image(painting.value)


def optimizers():
    return {
        "learned": l2l_keras.LearnedOptimizer.from_preset("neural_art"),
        **{f"Adam, {rate:g}": keras.optimizers.Adam(rate) for rate in (0.001, 0.005, 0.01, 0.02)},
    }


def show_losses(paintings, title):
    figure, axes = plt.subplots(figsize=(6.4, 3.8), dpi=100, layout="constrained")
    for (name, (losses, _)), line in zip(
        paintings.items(), ("-", ":", "-.", "--", (0, (5, 1))), strict=True
    ):
        axes.plot(losses, linestyle=line, linewidth=2, label=name)
    axes.set(yscale="log", xlabel="step", ylabel="loss", title=title)
    axes.legend(frameon=False)
    plt.show()
    for name, (losses, _) in paintings.items():
        print(f"{name:12} {losses[-1]:.4f} after {STEPS} steps")


def show_pictures(pictures):
    figure, row = plt.subplots(1, len(pictures), figsize=(2.4 * len(pictures), 2.7), dpi=100)
    for axes, (name, picture) in zip(row, pictures.items(), strict=True):
        axes.imshow(picture)
        axes.set_title(name, fontsize=10)
        axes.set_axis_off()
    figure.tight_layout()
    plt.show()


paintings = {
    name: paint(optimizer, noise, targets, task) for name, optimizer in optimizers().items()
}
show_losses(paintings, "128 by 128 pixels")

"""
The preset has seen neither this photograph nor any picture of this size, and its learning rate is not
tuned. And the pictures:
"""

show_pictures(
    {
        "style": task.style_image,
        "learned": paintings["learned"][1],
        **{name: paintings[name][1] for name in ("Adam, 0.001", "Adam, 0.01", "Adam, 0.02")},
    }
)

"""
A small difference in the loss is hard to see. What can be seen is a learning rate that is off, here
that of Adam by default, 0.001: after 128 steps, the picture is not there yet. The learned optimizer
saves you the search, on one picture after another.

## Larger

The update of each pixel is computed from that pixel's own gradients, so that the same LSTM paints
pictures of any size. This one has 256 by 256 pixels, sixteen times as many as those of meta-training:
"""

large = tasks.NeuralArt(style=style, size=256, **weights)
optimizer = l2l_keras.LearnedOptimizer.from_preset("neural_art")
losses, picture = paint(optimizer, *large.optimizee(photograph, seed=0), large)
print(f"loss {losses[-1]:.4f} after {STEPS} steps")

figure, axes = plt.subplots(figsize=(5.4, 5.4), dpi=100, layout="constrained")
axes.imshow(picture)
axes.set_axis_off()
plt.show()

"""
## Your own taste

The weights of the three losses decide what it looks like. With less weight on the content, and with
more (it was 0.1):
"""

wild = tasks.NeuralArt(style=style, size=128, content_weight=0.02, **weights)
tame = tasks.NeuralArt(style=style, size=128, content_weight=0.5, **weights)
show_pictures(
    {
        name: paint(
            l2l_keras.LearnedOptimizer.from_preset("neural_art"),
            *other.optimizee(photograph, seed=0),
            other,
        )[1]
        for name, other in (("content_weight=0.02", wild), ("content_weight=0.5", tame))
    }
)

"""
## An optimizer for your own style

The preset was made by one command, in about half an hour; yours takes your pictures instead. The
folder of contents has the sub-folders `train`, `validation` and `test`:

```sh
l2l-meta-train --task=neural_art --task_option=content_dir=photographs \\
  --task_option=style=my_painting.jpg --rule=momentum_lstm --rule_option=rate=0.3 \\
  --rule_option=adaptive_rate=0.005 --horizon=128 --unroll=32 --second_derivatives --meta_loss=log \\
  --step_weights=linear --meta_clip=0.05 --epochs=24 --episodes=6 --validation_episodes=3 \\
  --output_dir=my_painter
```

It ends with a comparison with tuned baselines on the `test` photographs: the answer to whether it
pays. Then `from_preset("my_painter/preset")` paints.

How the preset does against *tuned* Adam, RMSprop, Nesterov's momentum and SGD, on new photographs, at
twice the size and in another style, is the figure that `l2l-reproduce --figure=neural_art` draws.
"""
