"""The full and the small variants of figures: what differs between them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import resources


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What neural art is made from.

    Attributes:
        folder: A folder of pictures: `content/train`, `content/validation` (or `val`) and
            `content/test`, and those that give the style, in `style`.
        style: Name of the style picture to meta-train on.
        new_style: Name of another one.
        weights: See `l2l_keras.tasks.NeuralArt`.
        preprocessing: See `l2l_keras.tasks.NeuralArt`.
    """

    folder: str = "neural_art"
    style: str = "starry_night.jpg"
    new_style: str = "wave.jpg"
    weights: str = "imagenet"
    preprocessing: str = "caffe"

    def options(self, new_style: bool = False) -> dict[str, str]:
        """Returns the arguments of `l2l_keras.tasks.NeuralArt`."""
        return {
            "content_dir": f"{self.folder}/content",
            "style": f"{self.folder}/style/{self.new_style if new_style else self.style}",
            "weights": self.weights,
            "preprocessing": self.preprocessing,
        }


@dataclasses.dataclass(frozen=True)
class Size:
    """What differs between figures in full and small ones, which show that all works.

    Attributes:
        images: The task that stands for the paper's MNIST.
        convnet: The task that stands for the paper's network for CIFAR-10.
        steps: Steps of runs on quadratics and images.
        training: Flags that take the place of a training's.
        quadratics: Flags of evaluations on quadratics.
        networks: Flags of evaluations on images.
        layers: Numbers of hidden layers of the sweep.
        units: Units of a layer of the sweep.
        convnets: Flags of evaluations of convolutional networks by their steps, few and many.
        paintings: Flags of evaluations on neural art.
        painting_sizes: Sides of the small and the large paintings in pixels.
        painting_steps: Steps of a painting.
        mixture: Options of the general mixture that techniques of meta-training are tried on.
        ablations: Names of those that are tried; empty for all.
        ablation_steps: Updates of runs there.
        ablation_runs: Flags of their evaluation.
        pictures: What they are made from; None for embedded photographs and a network of random
            weights.
    """

    images: str
    convnet: str
    steps: int
    training: tuple[str, ...]
    quadratics: tuple[str, ...]
    networks: tuple[str, ...]
    layers: tuple[int, ...]
    units: tuple[int, ...]
    convnets: Mapping[int, tuple[str, ...]]
    paintings: tuple[str, ...]
    painting_sizes: tuple[int, int]
    painting_steps: int
    mixture: Mapping[str, tuple[str, ...]]
    ablations: tuple[str, ...]
    ablation_steps: int
    ablation_runs: tuple[str, ...]
    pictures: Pictures | None

    def painting_options(self, new_style: bool = False) -> dict[str, str | None]:
        """Returns the arguments of `l2l_keras.tasks.NeuralArt` but for the size.

        Args:
            new_style: Whether to paint in the new style. Defaults to False.
        """
        if self.pictures:
            return {**self.pictures.options(new_style)}
        return {"weights": None, **({"style": _photograph()} if new_style else {})}


def _photograph() -> str:
    """Returns the file of scikit-learn's photograph that is not the style of small paintings."""
    return str(resources.files("sklearn.datasets.images") / "china.jpg")


FULL = Size(
    images="mnist_mlp",
    convnet="cifar_convnet",
    steps=100,
    training=(),
    quadratics=("--seeds=8",),
    networks=("--seeds=10", "--tuning_seeds=3"),
    layers=(1, 2, 3),
    units=(10, 20, 40, 70, 100),
    convnets={
        100: ("--seeds=10", "--tuning_seeds=2"),
        1000: ("--seeds=3", "--tuning_seeds=1"),
    },
    paintings=("--seeds=10", "--tuning_seeds=2"),
    painting_sizes=(64, 128),
    painting_steps=128,
    mixture={
        "kinds": (
            "shallow",
            "badly_scaled",
            "layer_norm",
            "teacher",
            "table",
            "regions",
            "convolutions",
            "lstm",
        ),
        "validation": (
            "nine_layers",
            "wide_layer",
            "regression",
            "few_rows",
            "kinds",
            "attention",
            "memory",
            "words",
        ),
    },
    ablations=(),
    ablation_steps=480,
    ablation_runs=(),
    pictures=Pictures(),
)
SMALL_RUNS = ("--seeds=2", "--tuning_seeds=1", "--baseline=Adam")
SMALL = Size(
    images="digits_mlp",
    convnet="digits_convnet",
    steps=10,
    training=(
        "--epochs=2",
        "--episodes=1",
        "--horizon=10",
        "--unroll=5",
        "--validation_episodes=1",
    ),
    quadratics=SMALL_RUNS,
    networks=SMALL_RUNS,
    layers=(1, 2),
    units=(20, 40),
    convnets={10: SMALL_RUNS, 20: SMALL_RUNS},
    paintings=SMALL_RUNS,
    painting_sizes=(16, 24),
    painting_steps=10,
    mixture={"kinds": ("regions",), "validation": ("linear_kinds",)},
    ablations=("all_techniques", "mean_loss"),
    ablation_steps=10,
    ablation_runs=("--seeds=2",),
    pictures=None,
)
