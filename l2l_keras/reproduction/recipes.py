"""The rules that figures show, and the commands that meta-train them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping

from l2l_keras import presets
from l2l_keras.reproduction.command_line import replaced, task_options, value
from l2l_keras.reproduction.sizes import Size
from l2l_keras.reproduction.stages import Training
from l2l_keras.tasks.registry import stored_names

CONDITION = 1000.0
"""Condition number of the Hessians of ill-conditioned quadratics."""

_KINDS = {
    "lstm": ("--rule_option=preprocessing=none",),
    "global_averaging_lstm": ("--rule=global_averaging_lstm", "--rule_option=preprocessing=none"),
    "ntm_bfgs": ("--rule=ntm_bfgs",),
}
_WITH_SECOND_DERIVATIVES = (
    "--second_derivatives",
    "--epochs=25",
    "--episodes=60",
    "--validation_episodes=4",
)
_WITH_MEMORY = (
    "--meta_loss=log_mean",
    "--epochs=12",
    "--episodes=40",
    "--validation_episodes=4",
    "--meta_learning_rate=0.001",
)
_PAPER_LSTM = (
    "--task=mnist_mlp",
    "--meta_loss=log",
    "--epochs=16",
    "--episodes=25",
    "--validation_episodes=10",
)
_MIXTURE = (
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
)
_CONVNET = (
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
)
_HELD_OUT = (5, 6, 7, 8, 9)
"""Labels that LSTM-sub sees; those of CIFAR-5 and CIFAR-2 are the first five and two."""
_PAINTER = (
    "--rule=momentum_lstm",
    "--rule_option=rate=0.3",
    "--rule_option=adaptive_rate=0.005",
    "--horizon=128",
    "--unroll=32",
    "--second_derivatives",
    "--meta_loss=log",
    "--step_weights=linear",
    "--meta_clip=0.05",
    "--epochs=24",
    "--episodes=6",
    "--validation_episodes=3",
)
_GENERAL = (
    "--task=general",
    "--rule=tensorwise_lstm",
    "--unroll=60",
    "--parallel=4",
    "--staggered",
    "--meta_loss=log_relative",
    "--random_scale=1.0",
    "--random_scale_of=tensor",
    "--second_derivatives",
    "--clip_through_time",
    "--window_clip=0.3",
    "--epochs=6",
    "--episodes=60",
    "--validation_episodes=1",
    "--meta_learning_rate=0.002",
)
_FIRST_ORDER = ("--second_derivatives=false", "--clip_through_time=false")
_PES = (*_FIRST_ORDER, "--pes_pairs=1", "--window_clip=50.0")
_OTHER_TECHNIQUES = {
    "all_techniques": (),
    "no_random_scale": ("--random_scale=0.0",),
    "random_scale_of_coordinates": ("--random_scale_of=coordinate",),
    "mean_loss": ("--meta_loss=mean",),
    "log_loss": ("--meta_loss=log",),
    "log_window_loss": ("--meta_loss=log_window",),
    "relative_loss": ("--meta_loss=relative",),
    "one_horizon": ("--horizon=180", "--longest_horizon=180"),
    "curriculum": ("--curriculum=120,240,480",),
    "not_staggered": ("--staggered=false",),
    "one_optimizee": ("--parallel=1",),
    "first_order": _FIRST_ORDER,
    "imitation_only": (*_FIRST_ORDER, "--imitated_rate=0.003"),
    "not_clipped_through_time": ("--clip_through_time=false",),
    "averaged_weights": ("--ema_momentum=0.98",),
    "pes": _PES,
    "pes_of_reused_noise": (*_PES, "--pes_reuse_noise"),
    "no_nominal_term": ("--rule_option=nominal=0.0",),
    "weight_decay": ("--rule_option=weight_decay=0.1",),
    "normalized_update": ("--rule_option=normalize_update=True",),
    "relative_scale": ("--rule_option=relative_scale=True",),
    "no_largest_step": ("--rule_option=largest_step=None",),
    "slower_rise": ("--rule_option=largest_rise=0.2",),
    "any_rise": ("--rule_option=largest_rise=6.0",),
    "no_fan_in": ("--rule_option=fan_in_exponent=0.0",),
    "sizes_of_layers": ("--rule_option=size_exponent=0.5",),
    "two_momenta": ("--rule_option=momenta=((0.9,0.99),(0.99,0.99))",),
    "orthogonal_factors": ("--rule_option=orthogonal=(0,)",),
    "whitened_rows": ("--rule_option=whitened_rows=16",),
    "rnnprop": ("--rule=rnnprop",),
    "the_papers_lstm": ("--rule=coordinatewise_lstm",),
}


def quadratics(size: Size) -> tuple[Training, ...]:
    """Returns the rules for quadratics: the LSTM, with averaging cells, and with a memory.

    Args:
        size: Size of the figure.
    """
    _, *others = _KINDS
    scale = {"initial_scale": "(0.01,1.0)"}
    return quadratic_lstm(size), *(_on_quadratics(kind, kind, scale, size) for kind in others)


def ill_conditioned_quadratics(size: Size) -> tuple[Training, ...]:
    """Returns the same rules for ill-conditioned quadratics.

    Args:
        size: Size of the figure.
    """
    condition = {"condition": CONDITION}
    return tuple(_on_quadratics(kind, f"{kind}_ill", condition, size) for kind in _KINDS)


def quadratic_lstm(size: Size) -> Training:
    """Returns the paper's LSTM for quadratics.

    Args:
        size: Size of the figure.
    """
    return _as_shipped("lstm", "quadratic", size)


def digits(size: Size) -> Training:
    """Returns the rule for the embedded digits.

    Args:
        size: Size of the figure.
    """
    return _as_shipped("digits_mlp", "digits_mlp", size)


def mnist(size: Size) -> tuple[Training, ...]:
    """Returns the rules for MNIST's network: ours and the paper's.

    Args:
        size: Size of the figure.
    """
    paper_lstm = Training("paper_lstm", _PAPER_LSTM, "mnist_mlp_paper_lstm")
    return _as_shipped("mnist_mlp", "mnist_mlp", size), _sized(paper_lstm, size)


def mnist_activations(size: Size) -> Training:
    """Returns the rule for MNIST's network with several activations, ReLU among them.

    Args:
        size: Size of the figure.
    """
    name = "mnist_mlp_activations"
    return _sized(Training(name, _MIXTURE, name), size)


def convnet(size: Size) -> tuple[Training, ...]:
    """Returns the groups of rules for CIFAR-10's network, and LSTM-sub.

    Args:
        size: Size of the figure.
    """
    own = Training("cifar_convnet", _CONVNET, "cifar_convnet")
    held_out = task_options({"labels": _HELD_OUT})
    sub = Training("cifar_convnet_sub", (*_CONVNET, *held_out), "cifar_convnet_sub")
    return _sized(own, size), _sized(sub, size)


def painter(size: Size) -> Training:
    """Returns the rule for neural art.

    Args:
        size: Size of the figure.
    """
    options = {**size.painting_options(), "size": size.painting_sizes[0]}
    arguments = ("--task=neural_art", *task_options(options), *_PAINTER)
    return _sized(Training("neural_art", arguments, "neural_art"), size)


def ablations(size: Size) -> tuple[Training, ...]:
    """Returns general rules, each meta-trained with one technique or option changed.

    Args:
        size: Size of the figure.

    Returns:
        First the one with which none is.
    """
    # The horizons are those of the figure, but where they are what is changed.
    horizons = (f"--horizon={size.ablation_steps // 8}", f"--longest_horizon={size.ablation_steps}")
    usual = replaced((*_GENERAL, *task_options(size.mixture), *horizons), size.training)
    return tuple(
        Training(name, replaced(usual, changes), reads_data=size.images in stored_names())
        for name, changes in _OTHER_TECHNIQUES.items()
        if name in size.ablations or not size.ablations
    )


def _on_quadratics(kind: str, name: str, options: Mapping[str, object], size: Size) -> Training:
    budget = _WITH_MEMORY if kind == "ntm_bfgs" else _WITH_SECOND_DERIVATIVES
    arguments = ("--task=quadratic", *task_options(options), *_KINDS[kind], *budget)
    return _sized(Training(name, arguments, f"quadratic_{name}"), size)


def _as_shipped(name: str, preset: str, size: Size) -> Training:
    """Returns the training of a shipped preset, by the command on its card."""
    _, *arguments = shlex.split(presets.list_presets()[preset]["command"])
    return _sized(Training(name, tuple(arguments), preset), size)


def _sized(training: Training, size: Size) -> Training:
    """Returns a training in the size of a figure."""
    arguments = replaced(training.arguments, size.training)
    task = value(arguments, "task", "digits_mlp")
    if task in stored_names():
        task = size.convnet if task == "cifar_convnet" else size.images
        arguments = replaced(arguments, (f"--task={task}",))
    return dataclasses.replace(
        training,
        arguments=arguments,
        preset=training.preset if training.preset in presets.list_presets() else None,
        reads_data=task in stored_names(),
    )
