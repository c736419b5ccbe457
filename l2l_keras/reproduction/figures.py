"""The figures that can be reproduced: the stages of each, and how it is drawn.

A new figure is a function here that returns a `Figure`, and its name in `_FIGURES`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from l2l_keras.reproduction import outputs, recipes
from l2l_keras.reproduction.outputs import Cell, Output
from l2l_keras.reproduction.sizes import Pictures, Size
from l2l_keras.reproduction.stages import Evaluation, Training, task_options
from l2l_keras.reproduction.workspace import Workspace


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure: the stages that it is made from, and how it is drawn from their files.

    Attributes:
        trainings: The rules that it shows.
        evaluations: The comparisons that it shows, which are made after the trainings.
        draw: Draws it from the files of its stages.

    Example:
        >>> figure = l2l_keras.reproduction.get("mnist")
        >>> [training.name for training in figure.trainings]
        ['mnist_mlp', 'paper_lstm']
    """

    trainings: tuple[Training, ...]
    evaluations: tuple[Evaluation, ...]
    draw: Callable[[Workspace], Output]


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
        small: Whether to return a variant that takes seconds and only shows that everything works:
            small tasks, few steps and few runs. Defaults to False.
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
    return _FIGURES[name](Size(small, pictures or Pictures()))


def _quadratics(size: Size) -> Figure:
    """Section 3.1 and appendix B; and ill-conditioned functions, where a memory pays."""
    standard = _shipped(recipes.QUADRATICS, size)
    ill_conditioned = _shipped(recipes.ILL_CONDITIONED, size)

    def cell(title: str, name: str, trainings: Sequence[Training], **options: float) -> Cell:
        task = ("--task=quadratic", *task_options(options))
        arguments = size.evaluation(task, size.steps(100), ("--seeds=8",))
        return Cell(title, _evaluation(f"quadratics-{name}", trainings, arguments))

    cells = [
        cell(r"$\theta_0 \sim 0.01\,\mathcal{N}(0, 1)$", "0.01", standard, initial_scale=0.01),
        cell(r"$\theta_0 \sim \mathcal{N}(0, 1)$", "1.0", standard, initial_scale=1.0),
        cell("ill-conditioned (1,000)", "ill", ill_conditioned, condition=1000.0),
    ]
    return _of_cells((*standard, *ill_conditioned), cells, outputs.curves)


def _mnist(size: Size) -> Figure:
    """Section 3.2: the network and the steps of meta-training, and twice as many steps."""
    trainings = _shipped(recipes.MNIST, size)
    cells = [
        Cell(f"{steps} steps", _on_mnist(size, trainings, steps=steps))
        for steps in (size.steps(100), size.steps(200))
    ]
    return _of_cells(trainings, cells, outputs.curves)


def _mnist_transfer(size: Size) -> Figure:
    """Section 3.2: networks that the rules were not trained on; and one trained with ReLU."""
    trainings = _shipped(recipes.MNIST, size)
    with_relu = (*trainings, recipes.shipped("mnist_mlp_activations", size))
    cells = [
        Cell("40 hidden units", _on_mnist(size, trainings, units=40)),
        Cell("2 hidden layers", _on_mnist(size, trainings, layers=2)),
        Cell("ReLU", _on_mnist(size, with_relu, activation="relu")),
    ]
    return _of_cells(with_relu, cells, outputs.curves)


def _mnist_sweep(size: Size) -> Figure:
    """Section 3.2: final losses of many architectures."""
    trainings = _shipped(recipes.MNIST, size)
    cells = []
    for layers in size.choose((1, 2, 3), (1,)):
        group = f"{layers} hidden layer{'s' if layers > 1 else ''}"
        for units in size.choose((10, 20, 40, 70, 100), (20, 40)):
            stage = _on_mnist(size, trainings, layers, units)
            cells.append(Cell(f"{group}, {units} units", stage, group, units))
    return _of_cells(trainings, cells, outputs.finals, "units of a hidden layer")


def _cifar(size: Size) -> Figure:
    """Section 3.3: a rule for convolutions and one for other layers, and LSTM-sub."""
    trainings = _shipped(recipes.CIFAR, size)
    few = size.steps(100), ("--seeds=10", "--tuning_seeds=2")
    many = size.steps(1000), ("--seeds=3", "--tuning_seeds=1")
    full = ((10, few), (10, many), (5, many), (2, many))
    cells = []
    for labels, (steps, runs) in size.choose(full, (full[0], full[-1])):
        options = {} if labels == 10 else {"labels": tuple(range(labels))}
        arguments = size.evaluation(("--task=cifar_convnet", *task_options(options)), steps, runs)
        stage = _evaluation(f"cifar-{labels}-{steps}", trainings, arguments)
        cells.append(Cell(f"{labels} labels, {steps} steps", stage))
    return _of_cells(trainings, cells, outputs.curves)


def _neural_art(size: Size) -> Figure:
    """Section 3.4: new contents, a larger size, and a new style."""
    trainings = (recipes.painter(size),)
    full = ((64, False), (128, False), (64, True))
    paintings, cells = [], []
    for k, (side, new_style) in enumerate(size.choose(full, (full[0], full[-1]))):
        painting = size.painting(side, new_style)
        task = ("--task=neural_art", *task_options(painting))
        arguments = size.evaluation(task, size.steps(128), ("--seeds=10", "--tuning_seeds=2"))
        style = "a new style" if new_style else "the style of training"
        title = f"{painting['size']}×{painting['size']}, {style}"
        cells.append(Cell(title, _evaluation(f"neural_art-{k}", trainings, arguments)))
        paintings.append(painting)
    return _of_cells(trainings, cells, outputs.neural_art, paintings)


def _update_maps(size: Size) -> Figure:
    """The paper's appendix: the updates that the rules of the other figures propose."""
    trainings = _shipped(("quadratic", *recipes.MNIST, "digits_mlp"), size)
    # RMS of gradients after 5 to 20 steps on the task that each rule was trained on.
    scales = {"lstm": 1.0, "mnist_mlp": 2e-3, "paper_lstm": 2e-3, "digits_mlp": 4e-3}
    return Figure(trainings, (), functools.partial(outputs.update_maps, scales))


def _ablations(size: Size) -> Figure:
    """How much techniques of meta-training and options of the tensorwise rule contribute."""
    trainings = recipes.ablations(size)
    arguments = (
        "--task=general",
        *task_options(size.choose(recipes.MIXTURE, recipes.SMALL_MIXTURE)),
        f"--steps={size.steps(recipes.ABLATION_STEPS)}",
        *size.choose((), ("--seeds=2",)),
    )
    stage = _evaluation("ablations", trainings, arguments)
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


def _shipped(presets: Sequence[str], size: Size) -> tuple[Training, ...]:
    return tuple(recipes.shipped(preset, size) for preset in presets)


def _evaluation(name: str, trainings: Sequence[Training], arguments: tuple[str, ...]) -> Evaluation:
    return Evaluation(name, tuple(training.name for training in trainings), arguments)


def _on_mnist(
    size: Size,
    trainings: Sequence[Training],
    layers: int = 1,
    units: int = 20,
    activation: str = "sigmoid",
    steps: int | None = None,
) -> Evaluation:
    """Returns an evaluation on a network for MNIST, which figures share by its name."""
    steps = steps or size.steps(100)
    options: dict[str, Any] = {"layers": (units,) * layers, "activation": activation}
    defaults = {"layers": (20,), "activation": "sigmoid"}
    options = {name: option for name, option in options.items() if option != defaults[name]}
    task = ("--task=mnist_mlp", *task_options(options))
    arguments = size.evaluation(task, steps, ("--seeds=10", "--tuning_seeds=3"))
    return _evaluation(f"mnist-{layers}x{units}-{activation}-{steps}", trainings, arguments)


def _of_cells(
    trainings: tuple[Training, ...],
    cells: Sequence[Cell],
    draw: Callable[..., Output],
    *arguments: Any,
) -> Figure:
    """Returns the figure that `draw` makes of cells, further arguments and the workspace."""
    evaluations = tuple(cell.evaluation for cell in cells)
    return Figure(trainings, evaluations, functools.partial(draw, cells, *arguments))
