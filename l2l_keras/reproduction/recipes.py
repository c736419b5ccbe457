"""The rules that figures show, and how they are meta-trained."""

from __future__ import annotations

import shlex

from l2l_keras import presets
from l2l_keras.reproduction.sizes import Size
from l2l_keras.reproduction.stages import Training, replaced, task_options

QUADRATICS = ("quadratic", "quadratic_global_averaging_lstm", "quadratic_ntm_bfgs")
ILL_CONDITIONED = (
    "quadratic_lstm_ill",
    "quadratic_global_averaging_lstm_ill",
    "quadratic_ntm_bfgs_ill",
)
MNIST = ("mnist_mlp", "mnist_mlp_paper_lstm")
CIFAR = ("cifar_convnet", "cifar_convnet_sub")
# How figures name rules that their presets name otherwise.
_NAMES = {
    "quadratic": "lstm",
    **{name: name.removeprefix("quadratic_") for name in (*QUADRATICS[1:], *ILL_CONDITIONED)},
    "mnist_mlp_paper_lstm": "paper_lstm",
}

MIXTURE = {
    "kinds": ("shallow", "badly_scaled", "layer_norm", "teacher", "table", "regions")
    + ("convolutions", "lstm"),
    "validation": ("nine_layers", "wide_layer", "regression", "few_rows", "kinds", "attention")
    + ("memory", "words"),
}
"""Options of the general mixture that the ablations are trained and evaluated on."""
SMALL_MIXTURE = {"kinds": ("regions",), "validation": ("linear_kinds",)}
ABLATION_STEPS = 480

_GENERAL = shlex.split(
    "--task=general --rule=tensorwise_lstm --unroll=60 --parallel=4 --staggered "
    "--meta_loss=log_relative --random_scale=1.0 --random_scale_of=tensor --second_derivatives "
    "--clip_through_time --window_clip=0.3 --epochs=6 --episodes=60 --validation_episodes=1 "
    "--meta_learning_rate=0.002"
)
_FIRST_ORDER = ("--second_derivatives=false", "--clip_through_time=false")
_PES = (*_FIRST_ORDER, "--pes_pairs=1", "--window_clip=50.0")
_ABLATIONS = {
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


def shipped(preset: str, size: Size) -> Training:
    """Returns the training of a shipped preset, by the command on its card."""
    _, *arguments = shlex.split(presets.list_presets()[preset]["command"])
    return Training(_NAMES.get(preset, preset), size.training(arguments), preset)


def painter(size: Size) -> Training:
    """Returns the training of the rule for neural art, on the pictures of `size`."""
    training = shipped("neural_art", size)
    options = task_options(size.painting(64))
    return Training(training.name, replaced(training.arguments, options), training.preset)


def ablations(size: Size) -> tuple[Training, ...]:
    """Returns a general rule with all techniques, and others that each change one of them."""
    steps = size.steps(ABLATION_STEPS)
    mixture = task_options(size.choose(MIXTURE, SMALL_MIXTURE))
    horizons = (f"--horizon={steps // 8}", f"--longest_horizon={steps}")
    common = size.training((*_GENERAL, *mixture, *horizons))
    names = size.choose(tuple(_ABLATIONS), ("all_techniques", "mean_loss"))
    return tuple(Training(name, replaced(common, _ABLATIONS[name])) for name in names)
