"""Full figures, and small variants that run in seconds and only show that everything works."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from importlib import resources
from typing import TypeVar

from l2l_keras.evaluation import BASELINES
from l2l_keras.reproduction.stages import replaced

Choice = TypeVar("Choice")

_SMALL_TASKS = {
    "--task=mnist_mlp": "--task=digits_mlp",
    "--task=cifar_convnet": "--task=digits_convnet",
}
_SMALL_TRAINING = shlex.split(
    "--epochs=2 --episodes=1 --horizon=10 --unroll=5 --validation_episodes=1"
)
_SMALL_EVALUATION = ("--seeds=2", "--tuning_seeds=1", "--baseline=Adam")


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The files that neural art is made from.

    Attributes:
        folder: A folder of pictures: `content/train`, `content/validation` (or `val`) and
            `content/test`, and those that give the style, in `style`.
        style: Name of the style picture to meta-train on.
        new_style: Name of another one.
        weights: VGG's weights; see `l2l_keras.tasks.NeuralArt`.
        preprocessing: How pixels are scaled for them; see there.

    Example:
        >>> l2l_keras.reproduction.Pictures("photographs").style
        'starry_night.jpg'
    """

    folder: str = "neural_art"
    style: str = "starry_night.jpg"
    new_style: str = "wave.jpg"
    weights: str = "imagenet"
    preprocessing: str = "caffe"


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a figure, and the pictures that full paintings are made from."""

    small: bool = False
    pictures: Pictures = Pictures()

    def choose(self, full: Choice, small: Choice) -> Choice:
        """Returns the value for this size."""
        return small if self.small else full

    def steps(self, full: int) -> int:
        """Returns the number of steps of runs that have `full` steps in the full figure."""
        return self.choose(full, min(full // 10, 20))

    def training(self, arguments: Sequence[str]) -> tuple[str, ...]:
        """Returns the flags of a training, given those of the full figure."""
        small = replaced([_SMALL_TASKS.get(flag, flag) for flag in arguments], _SMALL_TRAINING)
        return self.choose(tuple(arguments), small)

    def evaluation(self, task: Sequence[str], steps: int, runs: Sequence[str]) -> tuple[str, ...]:
        """Returns the flags of an evaluation: of its task, its `steps` as they are, its runs."""
        task = [self.choose(flag, _SMALL_TASKS.get(flag, flag)) for flag in task]
        runs = (*runs, *(f"--baseline={name}" for name in BASELINES))
        return (*task, f"--steps={steps}", *self.choose(runs, _SMALL_EVALUATION))

    def painting(self, side: int, new_style: bool = False) -> dict[str, str | int | None]:
        """Returns the arguments of `l2l_keras.tasks.NeuralArt` for paintings of `side` pixels."""
        if self.small:
            # Embedded photographs and random weights.
            style = str(resources.files("sklearn.datasets.images") / "china.jpg")
            return {"weights": None, **({"style": style} if new_style else {}), "size": side // 4}
        files = self.pictures
        return {
            "content_dir": f"{files.folder}/content",
            "style": f"{files.folder}/style/{files.new_style if new_style else files.style}",
            "weights": files.weights,
            "preprocessing": files.preprocessing,
            "size": side,
        }
