"""
Title: Style your photograph
Author: l2l_keras authors
Date created: 2026/11/24
Last modified: 2026/11/30
Description: Paint a photograph in the style of a painting, with an optimizer that learned to paint.
Accelerator: None
"""

"""
## What you will have

A photograph of yours in the style of a painting, and an optimizer that paints the next ones as well, without
a learning rate to find.

[Gatys et al. (2015)](https://arxiv.org/abs/1508.06576) paint a photograph in the style of a painting
by *optimization*: they start from noise, and change its pixels until a network sees the content of the
photograph and the textures of the painting in them. Each picture is a new optimization problem, and all
of these problems are similar. That is what learned optimizers are for, and it was the last experiment of
[Andrychowicz et al. (2016)](https://arxiv.org/abs/1606.04474), who called it "neural art".

We paint with the preset `neural_art`, an optimizer that was meta-trained on pictures of 64 by 64
pixels in one style, and compare it with Adam at several learning rates.

This takes about three minutes of processor time.

## The pictures

The photograph comes with scikit-learn; replace it with your own. The style is Van Gogh's *Starry
Night*. The style picture and the weights of VGG16, the network that compares the pictures, are
downloaded, unless environment variables name local files.
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

`tasks.NeuralArt` computes the loss, a weighted sum of three distances: from the photograph in the
features of a deep layer (*content*), from the style picture in the correlations between the features of
three layers (*style*), and between neighbouring pixels (*total variation*).

`optimizee` returns the initial painting, which is noise, and the loss's targets, computed from the central
square of the photograph. The parameters are the painting's 128 · 128 · 3 pixel values.
"""

task = tasks.NeuralArt(style=style, size=128, **weights)
noise, targets = task.optimizee(photograph, seed=0)


def loss_of(painting, targets, task):
    losses, _ = task.loss(painting, targets, ())  # One for each picture, which is one.
    return float(losses[0])


print(f"{task.size:,} parameters; loss of noise: {loss_of(noise, targets, task):.3f}")

"""
## Painting

The loop computes a loss and its gradient, and an optimizer applies it. Nothing in the loop depends on
whether the optimizer is learned.
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
tuned. These are the pictures:
"""

show_pictures(
    {
        "style": task.style_image,
        "learned": paintings["learned"][1],
        **{name: paintings[name][1] for name in ("Adam, 0.001", "Adam, 0.01", "Adam, 0.02")},
    }
)

"""
A small difference in the loss is hard to see. A poor learning rate is easy to see: with Adam's default,
0.001, the picture is not finished after 128 steps. The learned optimizer saves you the search, for every
picture.

## A larger picture

The LSTM computes the update of each pixel from that pixel's own gradients, so it can paint pictures of any
size. This one has 256 by 256 pixels, sixteen times as many as those of meta-training:
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

The weights of the three losses determine the look. Here is the picture with less and with more weight on
the content (so far 0.1):
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
## Where to go next

One command made the preset, in about half an hour. The same command makes one from your pictures. The
folder of contents has the sub-folders `train`, `validation` and `test`:

```sh
l2l-meta-train --task=neural_art --task_option=content_dir=photographs \\
  --task_option=style=my_painting.jpg --rule=momentum_lstm --rule_option=rate=0.3 \\
  --rule_option=adaptive_rate=0.005 --horizon=128 --unroll=32 --second_derivatives --meta_loss=log \\
  --step_weights=linear --meta_clip=0.05 --epochs=24 --episodes=6 --validation_episodes=3 \\
  --output_dir=my_painter
```

It ends with a comparison with tuned baselines on the `test` photographs, which says whether it pays. Then
`from_preset("my_painter/preset")` loads the optimizer.

`l2l-reproduce --figure=neural_art` compares the preset with *tuned* Adam, RMSprop, Nesterov's momentum and
SGD, on new photographs, at twice the size and in another style.
"""
