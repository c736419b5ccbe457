"""The figures that can be made again: the stages of each, and how it is drawn.

A new figure is a function here that returns a `Figure`, and its name in `_FIGURES`.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from l2l_keras import presets
from l2l_keras.reproduction import outputs
from l2l_keras.reproduction.outputs import Cell, Output
from l2l_keras.reproduction.stages import Evaluation, Training, Workshop

# Tasks that read a data set from a folder.
_STORED = ("cifar_convnet", "mnist_mlp")


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
class Figure:
    """A figure: what must be made for it, and how it is drawn from that.

    Attributes:
        trainings: The rules that it shows.
        evaluations: The comparisons that it shows, to be made after the trainings.
        draw: Draws it from the files of its stages.

    Example:
        >>> figure = l2l_keras.reproduction.get("quadratics")
        >>> [training.name for training in figure.trainings]
        ['lstm']
    """

    trainings: tuple[Training, ...]
    evaluations: tuple[Evaluation, ...]
    draw: Callable[[Workshop], Output]


@dataclasses.dataclass(frozen=True)
class _Size:
    """What differs between figures in full and small ones, which show that all works."""

    images: str  # The task that stands for the paper's MNIST.
    convnet: str  # The task that stands for the paper's network for CIFAR-10.
    steps: int
    training: tuple[str, ...]  # Flags that take the place of a training's.
    quadratics: tuple[str, ...]  # Flags of evaluations on quadratics.
    networks: tuple[str, ...]  # Flags of evaluations on networks.
    layers: tuple[int, ...]
    units: tuple[int, ...]
    convnet_steps: tuple[int, ...]
    convnets: tuple[str, ...]  # Flags of evaluations on convolutional networks.
    paintings: tuple[str, ...]  # Flags of evaluations on neural art.
    painting_sizes: tuple[int, int]
    painting_steps: int
    pictures: Pictures | None  # None for embedded photographs, and a network of random weights.


_FULL = _Size(
    images="mnist_mlp",
    convnet="cifar_convnet",
    steps=100,
    training=(),
    quadratics=("--seeds=8",),
    networks=("--seeds=20", "--tuning_seeds=5"),
    layers=(1, 2, 3),
    units=(10, 20, 40, 70, 100),
    convnet_steps=(100, 1000),
    convnets=("--seeds=3", "--tuning_seeds=1"),
    paintings=("--seeds=10", "--tuning_seeds=2"),
    painting_sizes=(64, 128),
    painting_steps=128,
    pictures=Pictures(),
)
_SMALL_RUNS = ("--seeds=2", "--tuning_seeds=1", "--baseline=Adam")
_SMALL = _Size(
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
    quadratics=_SMALL_RUNS,
    networks=_SMALL_RUNS,
    layers=(1, 2),
    units=(20, 40),
    convnet_steps=(10, 20),
    convnets=_SMALL_RUNS,
    paintings=_SMALL_RUNS,
    painting_sizes=(16, 24),
    painting_steps=10,
    pictures=None,
)


def names() -> list[str]:
    """Returns the names of all figures.

    Example:
        >>> l2l_keras.reproduction.names()[:3]
        ['quadratics', 'mnist', 'mnist_transfer']
    """
    return list(_FIGURES)


def get(name: str, small: bool = False, pictures: Pictures | None = None) -> Figure:
    """Returns a figure by its name.

    Args:
        name: One of `names()`.
        small: Whether to return a variant that takes seconds, and shows nothing but that all
            works: small tasks, few steps and few runs. Defaults to False.
        pictures: What neural art is made from, unless it is small. Defaults to `Pictures()`.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no such figure.

    Example:
        >>> len(l2l_keras.reproduction.get("mnist_sweep").evaluations)
        15
    """
    if name not in _FIGURES:
        raise ValueError(f"Expected one of the figures {', '.join(names())}. Received: {name!r}")
    full = dataclasses.replace(_FULL, pictures=pictures or _FULL.pictures)
    return _FIGURES[name](_SMALL if small else full)


def _quadratics(size: _Size) -> Figure:
    """The paper's section 3.1 and appendix B; and ill-conditioned functions, where memory pays."""
    trainings = tuple(_quadratic_training(kind, False, size) for kind in _KINDS)
    ill_trainings = tuple(_quadratic_training(kind, True, size) for kind in _KINDS)
    cells = [
        Cell(
            title, _on_quadratics(size, f"quadratics-{scale}", trainings, f"initial_scale={scale}")
        )
        for title, scale in (
            ("θ₀ ~ 0.01 N(0, 1)", 0.01),
            ("θ₀ ~ N(0, 1)", 1.0),
        )
    ]
    cells.append(
        Cell(
            f"condition {_CONDITION:g}",
            _on_quadratics(size, "quadratics-ill", ill_trainings, f"condition={_CONDITION}"),
        )
    )
    return _curves((*trainings, *ill_trainings), cells)


def _mnist(size: _Size) -> Figure:
    """The paper's section 3.2: the network and the steps of meta-training, and twice as many."""
    trainings = _mnist_trainings(size)
    cells = [
        Cell(f"{steps} steps", _on_networks(size, trainings, steps=steps))
        for steps in (size.steps, 2 * size.steps)
    ]
    return _curves(trainings, cells)


def _mnist_transfer(size: _Size) -> Figure:
    """The paper's section 3.2: networks that the rules were not trained on."""
    trainings = _mnist_trainings(size)
    cure = _sized(_MIXTURE, size)
    cells = [
        Cell("40 hidden units", _on_networks(size, trainings, units=40)),
        Cell("2 hidden layers", _on_networks(size, trainings, layers=2)),
        Cell("ReLU", _on_networks(size, (*trainings, cure), activation="relu")),
    ]
    return _curves((*trainings, cure), cells)


def _mnist_sweep(size: _Size) -> Figure:
    """The paper's section 3.2: final losses of many architectures."""
    trainings = _mnist_trainings(size)
    cells = []
    for layers in size.layers:
        group = f"{layers} hidden layer{'s' if layers > 1 else ''}"
        for units in size.units:
            stage = _on_networks(size, trainings, layers, units)
            cells.append(Cell(f"{group}, {units} units", stage, group, units))
    draw = functools.partial(outputs.finals, cells, "units of a hidden layer")
    return Figure(trainings, tuple(cell.evaluation for cell in cells), draw)


def _cifar(size: _Size) -> Figure:
    """The paper's section 3.3: two LSTMs for a convolutional network, and LSTM-sub."""
    own = _sized(dataclasses.replace(_CONVNET, preset="cifar_convnet"), size)
    sub = Training(
        "cifar_convnet_sub",
        (*_CONVNET.arguments, f"--task_option=labels={_HELD_OUT}"),
        "cifar_convnet_sub",
    )
    sub = _sized(sub, size)
    few, many = size.convnet_steps
    cells = [Cell(f"10 labels, {few} steps", _on_convnets(size, (own, sub), 10, few))]
    cells += [
        Cell(f"{labels} labels, {many} steps", _on_convnets(size, (own, sub), labels, many))
        for labels in (10, 5, 2)
    ]
    return _curves((own, sub), cells)


def _neural_art(size: _Size) -> Figure:
    """The paper's section 3.4: new contents, a larger size, and a new style."""
    pictures: dict[str, Any] = {"weights": None}
    new_style = pictures
    if size.pictures:
        pictures, new_style = size.pictures.options(), size.pictures.options(new_style=True)
    small, large = size.painting_sizes
    training = Training(
        "neural_art",
        (
            "--task=neural_art",
            *_task_options({**pictures, "size": small}),
            *_PAINTER,
        ),
        "neural_art",
    )
    if size is _SMALL:
        training = dataclasses.replace(
            training, arguments=_replaced(training.arguments, size.training)
        )
    paintings = [
        outputs.Painting(title, {**options, "size": side})
        for title, options, side in (
            (f"{small}×{small}, the style of training", pictures, small),
            (f"{large}×{large}, the style of training", pictures, large),
            (f"{small}×{small}, a new style", new_style, small),
        )
    ]
    cells = [
        Cell(
            painting.title,
            Evaluation(
                f"neural_art-{name}-{painting.options['size']}",
                (training.name,),
                (
                    "--task=neural_art",
                    *_task_options(painting.options),
                    f"--steps={size.painting_steps}",
                    *size.paintings,
                ),
            ),
        )
        for name, painting in zip(("style", "style", "new_style"), paintings, strict=True)
    ]
    draw = functools.partial(outputs.neural_art, cells, paintings)
    return Figure((training,), tuple(cell.evaluation for cell in cells), draw)


def _update_maps(size: _Size) -> Figure:
    """What the rules of the other figures propose: the paper's appendix."""
    trainings = (
        _quadratic_training("lstm", False, size),
        *_mnist_trainings(size),
        _as_shipped("digits_mlp", "digits_mlp", size),
    )
    scales = {training.name: _GRADIENTS[training.name] for training in trainings}
    return Figure(trainings, (), functools.partial(outputs.update_maps, scales))


_FIGURES: dict[str, Callable[[_Size], Figure]] = {
    "quadratics": _quadratics,
    "mnist": _mnist,
    "mnist_transfer": _mnist_transfer,
    "mnist_sweep": _mnist_sweep,
    "cifar": _cifar,
    "neural_art": _neural_art,
    "update_maps": _update_maps,
}
# Root mean squares of gradients, some five to twenty steps into a run on what each rule was trained
# on.
_GRADIENTS = {"lstm": 1.0, "mnist_mlp": 2e-3, "paper_lstm": 2e-3, "digits_mlp": 4e-3}


# Rules on quadratics by their names in the figure, with their flags.
_KINDS = {
    "lstm": ("--rule=coordinatewise_lstm", "--rule_option=preprocessing=none"),
    "global_averaging_lstm": (
        "--rule=global_averaging_lstm",
        "--rule_option=preprocessing=none",
    ),
    "ntm_bfgs": ("--rule=ntm_bfgs",),
}
_CONDITION = 1000.0
_WITH_SECOND_DERIVATIVES = (
    "--second_derivatives",
    "--epochs=25",
    "--episodes=60",
    "--validation_episodes=4",
)
_WITH_MEMORY = (
    "--meta_loss=log_mean",
    "--epochs=8",
    "--episodes=40",
    "--validation_episodes=4",
    "--meta_learning_rate=0.001",
)
_MIXTURE = Training(
    "mnist_mlp_activations",
    (
        "--task=mnist_mlp",
        "--task_option=activation=('sigmoid','tanh','relu')",
        "--rule=momentum_lstm",
        "--rule_option=rate=0.1",
        "--unroll=100",
        "--second_derivatives",
        "--meta_loss=log",
        "--step_weights=linear",
        "--epochs=30",
        "--episodes=40",
        "--validation_episodes=21",
        "--meta_learning_rate=0.001",
    ),
    "mnist_mlp_activations",
)
_CONVNET = Training(
    "cifar_convnet",
    (
        "--task=cifar_convnet",
        "--group=conv",
        "--group=.*",
        "--rule=momentum_lstm",
        "--rule_option=rate=0.03",
        "--rule_option=adaptive_rate=0.002",
        "--unroll=100",
        "--step_weights=linear",
        "--epochs=12",
        "--episodes=16",
        "--validation_episodes=6",
        "--meta_learning_rate=0.002",
    ),
)
# CIFAR-5 and CIFAR-2 are the first five and two labels; LSTM-sub sees the others.
_HELD_OUT = "(5,6,7,8,9)"
_PAINTER = (
    "--horizon=128",
    "--unroll=32",
    "--rule=momentum_lstm",
)


def _quadratic_training(kind: str, ill: bool, size: _Size) -> Training:
    """Returns the training of a rule on quadratics, ill-conditioned ones or others."""
    if kind == "lstm" and not ill:
        return _as_shipped("lstm", "quadratic", size)
    condition = f"condition={_CONDITION}" if ill else "initial_scale=(0.01,1.0)"
    budget = _WITH_MEMORY if kind == "ntm_bfgs" else _WITH_SECOND_DERIVATIVES
    name = f"{kind}_ill" if ill else kind
    arguments = ("--task=quadratic", f"--task_option={condition}", *_KINDS[kind], *budget)
    return _sized(Training(name, arguments, f"quadratic_{name}"), size)


def _mnist_trainings(size: _Size) -> tuple[Training, ...]:
    """Returns the rules for MNIST's network, which several figures share."""
    paper_lstm = Training(
        "paper_lstm",
        (
            "--task=mnist_mlp",
            "--rule=coordinatewise_lstm",
            "--meta_loss=log",
            "--epochs=30",
            "--episodes=25",
            "--validation_episodes=10",
        ),
    )
    return _as_shipped("mnist_mlp", "mnist_mlp", size), _sized(paper_lstm, size)


def _as_shipped(name: str, preset: str, size: _Size) -> Training:
    """Returns the training of a shipped preset, by the command on its card."""
    _, *arguments = shlex.split(presets.list_presets()[preset]["command"])
    return _sized(Training(name, tuple(arguments), preset), size)


def _sized(training: Training, size: _Size) -> Training:
    """Returns a training in the size of a figure."""
    arguments = _replaced(training.arguments, size.training)
    task = _value(arguments, "task", "digits_mlp")
    if task in _STORED:
        task = size.convnet if task == "cifar_convnet" else size.images
        arguments = _replaced(arguments, (f"--task={task}",))
    return dataclasses.replace(training, arguments=arguments, reads_data=task in _STORED)


def _on_quadratics(
    size: _Size, name: str, trainings: Sequence[Training], *options: str
) -> Evaluation:
    """Returns an evaluation on quadratics."""
    flags = ("--task=quadratic", *_options(options), f"--steps={size.steps}", *size.quadratics)
    return Evaluation(name, tuple(training.name for training in trainings), flags)


def _on_networks(
    size: _Size,
    trainings: Sequence[Training],
    layers: int = 1,
    units: int = 20,
    activation: str = "sigmoid",
    steps: int | None = None,
) -> Evaluation:
    """Returns an evaluation on networks for MNIST, the paper's unless said otherwise.

    Its name says what it is: figures that show the same share it.
    """
    steps = steps or size.steps
    name, options = f"mnist-{layers}x{units}-{activation}-{steps}", []
    if (layers, units) != (1, 20):
        options.append(f"layers=({','.join([str(units)] * layers)}{',' * (layers == 1)})")
    if activation != "sigmoid":
        options.append(f"activation={activation}")
    flags = (f"--task={size.images}", *_options(options), f"--steps={steps}", *size.networks)
    learned = tuple(training.name for training in trainings)
    return Evaluation(name, learned, flags, size.images in _STORED)


def _on_convnets(size: _Size, trainings: Sequence[Training], labels: int, steps: int) -> Evaluation:
    """Returns an evaluation on convolutional networks that tell some labels apart."""
    chosen = f"({','.join(map(str, range(labels)))})"
    options = [] if labels == 10 else [f"labels={chosen}"]
    flags = (f"--task={size.convnet}", *_options(options), f"--steps={steps}", *size.convnets)
    learned = tuple(training.name for training in trainings)
    return Evaluation(f"cifar-{labels}-{steps}", learned, flags, size.convnet in _STORED)


def _curves(trainings: tuple[Training, ...], cells: Sequence[Cell]) -> Figure:
    """Returns a figure of loss curves."""
    evaluations = tuple(cell.evaluation for cell in cells)
    return Figure(trainings, evaluations, functools.partial(outputs.curves, cells))


def _task_options(options: Mapping[str, Any]) -> tuple[str, ...]:
    return _options([f"{name}={value}" for name, value in options.items()])


def _options(options: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"--task_option={option}" for option in options)


def _replaced(arguments: Sequence[str], changes: Sequence[str]) -> tuple[str, ...]:
    """Returns flags, some of which others take the place of."""
    changed = {change.partition("=")[0] for change in changes}
    return (*(flag for flag in arguments if flag.partition("=")[0] not in changed), *changes)


def _value(arguments: Sequence[str], name: str, default: str) -> str:
    """Returns the value of a flag."""
    values = [flag.partition("=")[2] for flag in arguments if flag.startswith(f"--{name}=")]
    return values[-1] if values else default
