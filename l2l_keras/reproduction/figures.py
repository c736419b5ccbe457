"""The figures that can be made again: the stages of each, and how it is drawn.

A new figure is a function here that returns a `Figure`, and its name in `_FIGURES`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from l2l_keras.reproduction import outputs, recipes
from l2l_keras.reproduction.command_line import task_options
from l2l_keras.reproduction.outputs import Cell, Output
from l2l_keras.reproduction.sizes import FULL, SMALL, Pictures, Size
from l2l_keras.reproduction.stages import Evaluation, Training, Workshop
from l2l_keras.tasks.registry import stored_names


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure: what must be made for it, and how it is drawn from that.

    Attributes:
        trainings: The rules that it shows.
        evaluations: The comparisons that it shows, to be made after the trainings.
        draw: Draws it from the files of its stages.

    Example:
        >>> figure = l2l_keras.reproduction.get("mnist")
        >>> [training.name for training in figure.trainings]
        ['mnist_mlp', 'paper_lstm']
    """

    trainings: tuple[Training, ...]
    evaluations: tuple[Evaluation, ...]
    draw: Callable[[Workshop], Output]


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
    full = dataclasses.replace(FULL, pictures=pictures or FULL.pictures)
    return _FIGURES[name](SMALL if small else full)


def _quadratics(size: Size) -> Figure:
    """The paper's section 3.1 and appendix B; and ill-conditioned functions, where memory pays."""
    usual, ill = recipes.quadratics(size), recipes.ill_conditioned_quadratics(size)
    cells = [
        Cell(title, _on_quadratics(f"quadratics-{scale}", usual, {"initial_scale": scale}, size))
        for title, scale in (
            (r"$\theta_0 \sim 0.01\,\mathcal{N}(0, 1)$", 0.01),
            (r"$\theta_0 \sim \mathcal{N}(0, 1)$", 1.0),
        )
    ]
    condition = {"condition": recipes.CONDITION}
    title = f"ill-conditioned ({recipes.CONDITION:,.0f})"
    cells.append(Cell(title, _on_quadratics("quadratics-ill", ill, condition, size)))
    return _curves((*usual, *ill), cells)


def _mnist(size: Size) -> Figure:
    """The paper's section 3.2: the network and the steps of meta-training, and twice as many."""
    trainings = recipes.mnist(size)
    cells = [
        Cell(f"{steps} steps", _on_networks(size, trainings, steps=steps))
        for steps in (size.steps, 2 * size.steps)
    ]
    return _curves(trainings, cells)


def _mnist_transfer(size: Size) -> Figure:
    """The paper's section 3.2: networks that the rules were not trained on; and a cure for ReLU."""
    trainings, cure = recipes.mnist(size), recipes.mnist_activations(size)
    cells = [
        Cell("40 hidden units", _on_networks(size, trainings, units=40)),
        Cell("2 hidden layers", _on_networks(size, trainings, layers=2)),
        Cell("ReLU", _on_networks(size, (*trainings, cure), activation="relu")),
    ]
    return _curves((*trainings, cure), cells)


def _mnist_sweep(size: Size) -> Figure:
    """The paper's section 3.2: final losses of many architectures."""
    trainings = recipes.mnist(size)
    cells = []
    for layers in size.layers:
        group = f"{layers} hidden layer{'s' if layers > 1 else ''}"
        for units in size.units:
            stage = _on_networks(size, trainings, layers, units)
            cells.append(Cell(f"{group}, {units} units", stage, group, units))
    draw = functools.partial(outputs.finals, cells, "units of a hidden layer")
    return Figure(trainings, tuple(cell.evaluation for cell in cells), draw)


def _cifar(size: Size) -> Figure:
    """The paper's section 3.3: a rule for convolutions and one for the rest, and LSTM-sub."""
    trainings = recipes.convnet(size)
    few, many = size.convnets
    cells = [
        Cell(f"{labels} labels, {steps} steps", _on_convnets(size, trainings, labels, steps))
        for labels, steps in ((10, few), (10, many), (5, many), (2, many))
    ]
    return _curves(trainings, cells)


def _neural_art(size: Size) -> Figure:
    """The paper's section 3.4: new contents, a larger size, and a new style."""
    training = recipes.painter(size)
    small, large = size.painting_sizes
    paintings = {
        f"{side}×{side}, {'a new style' if new else 'the style of training'}": {
            **size.painting_options(new),
            "size": side,
        }
        for side, new in ((small, False), (large, False), (small, True))
    }
    cells = []
    for k, (title, options) in enumerate(paintings.items()):
        flags = ("--task=neural_art", *task_options(options), f"--steps={size.painting_steps}")
        stage = Evaluation(f"neural_art-{k}", (training.name,), (*flags, *size.paintings))
        cells.append(Cell(title, stage))
    draw = functools.partial(outputs.neural_art, cells, tuple(paintings.values()))
    return Figure((training,), tuple(cell.evaluation for cell in cells), draw)


def _update_maps(size: Size) -> Figure:
    """What the rules of the other figures propose: the paper's appendix."""
    trainings = (recipes.quadratic_lstm(size), *recipes.mnist(size), recipes.digits(size))
    scales = {training.name: _GRADIENTS[training.name] for training in trainings}
    return Figure(trainings, (), functools.partial(outputs.update_maps, scales))


def _ablations(size: Size) -> Figure:
    """What techniques of meta-training and options of the tensorwise rule are worth."""
    trainings = recipes.ablations(size)
    options = task_options(size.mixture)
    flags = ("--task=general", *options, f"--steps={size.ablation_steps}", *size.ablation_runs)
    learned = tuple(training.name for training in trainings)
    stage = Evaluation("ablations", learned, flags, trainings[0].reads_data)
    return Figure(trainings, (stage,), functools.partial(outputs.ablations, stage))


_FIGURES: dict[str, Callable[[Size], Figure]] = {
    "quadratics": _quadratics,
    "mnist": _mnist,
    "mnist_transfer": _mnist_transfer,
    "mnist_sweep": _mnist_sweep,
    "cifar": _cifar,
    "neural_art": _neural_art,
    "update_maps": _update_maps,
    "ablations": _ablations,
}
# Root mean squares of gradients, some five to twenty steps into a run on what each rule was trained
# on.
_GRADIENTS = {"lstm": 1.0, "mnist_mlp": 2e-3, "paper_lstm": 2e-3, "digits_mlp": 4e-3}


def _on_quadratics(
    name: str, trainings: Sequence[Training], options: Mapping[str, Any], size: Size
) -> Evaluation:
    """Returns an evaluation on quadratics."""
    flags = ("--task=quadratic", *task_options(options), f"--steps={size.steps}", *size.quadratics)
    return Evaluation(name, tuple(training.name for training in trainings), flags)


def _on_networks(
    size: Size,
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
    options: dict[str, Any] = {}
    if (layers, units) != (1, 20):
        options["layers"] = (units,) * layers
    if activation != "sigmoid":
        options["activation"] = activation
    flags = (f"--task={size.images}", *task_options(options), f"--steps={steps}", *size.networks)
    learned = tuple(training.name for training in trainings)
    name = f"mnist-{layers}x{units}-{activation}-{steps}"
    return Evaluation(name, learned, flags, size.images in stored_names())


def _on_convnets(size: Size, trainings: Sequence[Training], labels: int, steps: int) -> Evaluation:
    """Returns an evaluation on convolutional networks that tell some labels apart."""
    options = {} if labels == 10 else {"labels": tuple(range(labels))}
    runs = size.convnets[steps]
    flags = (f"--task={size.convnet}", *task_options(options), f"--steps={steps}", *runs)
    learned = tuple(training.name for training in trainings)
    return Evaluation(f"cifar-{labels}-{steps}", learned, flags, size.convnet in stored_names())


def _curves(trainings: tuple[Training, ...], cells: Sequence[Cell]) -> Figure:
    """Returns a figure of loss curves."""
    evaluations = tuple(cell.evaluation for cell in cells)
    return Figure(trainings, evaluations, functools.partial(outputs.curves, cells))
