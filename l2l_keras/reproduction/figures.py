"""The figures that can be made again: the stages of each, and how it is drawn.

A new figure is a function here that returns a `Figure`, and its name in `_FIGURES`.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Callable, Sequence

from l2l_keras import presets
from l2l_keras.reproduction import outputs
from l2l_keras.reproduction.outputs import Cell, Output
from l2l_keras.reproduction.stages import Evaluation, Training, Workshop

# Tasks that read a data set from a folder.
_STORED = ("mnist_mlp",)


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
    steps: int
    training: tuple[str, ...]  # Flags that take the place of a training's.
    quadratics: tuple[str, ...]  # Flags of evaluations on quadratics.
    networks: tuple[str, ...]  # Flags of evaluations on networks.
    layers: tuple[int, ...]
    units: tuple[int, ...]


_FULL = _Size(
    images="mnist_mlp",
    steps=100,
    training=(),
    quadratics=("--seeds=8",),
    networks=("--seeds=20", "--tuning_seeds=5"),
    layers=(1, 2, 3),
    units=(10, 20, 40, 70, 100),
)
_SMALL_RUNS = ("--seeds=2", "--tuning_seeds=1", "--baseline=Adam")
_SMALL = _Size(
    images="digits_mlp",
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
)


def names() -> list[str]:
    """Returns the names of all figures.

    Example:
        >>> l2l_keras.reproduction.names()
        ['quadratics', 'mnist', 'mnist_transfer', 'mnist_sweep', 'update_maps']
    """
    return list(_FIGURES)


def get(name: str, small: bool = False) -> Figure:
    """Returns a figure by its name.

    Args:
        name: One of `names()`.
        small: Whether to return a variant that takes seconds, and shows nothing but that all
            works: small tasks, few steps and few runs. Defaults to False.

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
    return _FIGURES[name](_SMALL if small else _FULL)


def _quadratics(size: _Size) -> Figure:
    """The paper's section 3.1."""
    lstm = _as_shipped("lstm", "quadratic", size)
    cells = [
        Cell(title, _on_quadratics(size, f"quadratics-{scale}", (lstm,), f"initial_scale={scale}"))
        for title, scale in (
            ("θ₀ ~ 0.01 N(0, 1)", 0.01),
            ("θ₀ ~ N(0, 1)", 1.0),
        )
    ]
    return _curves((lstm,), cells)


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
    cells = [
        Cell("40 hidden units", _on_networks(size, trainings, units=40)),
        Cell("2 hidden layers", _on_networks(size, trainings, layers=2)),
        Cell("ReLU", _on_networks(size, trainings, activation="relu")),
    ]
    return _curves(trainings, cells)


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


def _update_maps(size: _Size) -> Figure:
    """What the rules of the other figures propose: the paper's appendix."""
    trainings = (
        _as_shipped("lstm", "quadratic", size),
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
    "update_maps": _update_maps,
}
# Root mean squares of gradients, some five to twenty steps into a run on what each rule was trained
# on.
_GRADIENTS = {"lstm": 1.0, "mnist_mlp": 2e-3, "paper_lstm": 2e-3, "digits_mlp": 4e-3}


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
    if task == _FULL.images != size.images:
        task = size.images
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


def _curves(trainings: tuple[Training, ...], cells: Sequence[Cell]) -> Figure:
    """Returns a figure of loss curves."""
    evaluations = tuple(cell.evaluation for cell in cells)
    return Figure(trainings, evaluations, functools.partial(outputs.curves, cells))


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
