"""`LearnedOptimizer`: update rules as a Keras optimizer, on any backend."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from l2l_keras import advice, arguments, parameter_groups, presets
from l2l_keras.delegates import Delegates
from l2l_keras.engine.backends import backend
from l2l_keras.engine.backends.boundary import StepInputs
from l2l_keras.engine.blocks import make_blocks
from l2l_keras.engine.keras_hooks import BatchOptimizer
from l2l_keras.engine.layout import describe
from l2l_keras.engine.safeguard import Safeguard
from l2l_keras.engine.state import OptimizerState
from l2l_keras.engine.state_dtype import STATE_DTYPES
from l2l_keras.engine.step import Engine
from l2l_keras.rules import UpdateRule
from l2l_keras.safeguards.adam_fallback import AdamFallback, Guard
from l2l_keras.safeguards.skip_steps import SkipSteps
from l2l_keras.safeguards.update_statistics import UpdateStatistics

Tensor = Any
Variable = Any

_ALONE = [SkipSteps(None)]
"""Safeguards of a step of one variable."""


@keras.saving.register_keras_serializable(package="l2l_keras")
class LearnedOptimizer(BatchOptimizer):
    """Optimizer whose updates are computed by (meta-trained) update rules.

    θ ← θ + learning_rate · u with (u, h) = m(∇, h; φ): the rule m decides direction and length of
    the update, and keeps a state h for every weight. All weights of all variables go through the
    rule together, a few thousand at a time, in float32 whatever the variables' dtype.

    Variables may be divided into groups, each with a rule of its own, or handed to a Keras
    optimizer, for example biases and norms.

    A step whose gradients are not finite, or far larger than those of the steps before, is skipped:
    it changes no weight and no state, and is counted in `skipped_steps`. (Weight decay and moving
    averages, which do not come from gradients, continue.)

    A rule of scope "model" steps through all weights of its group at once, in memory that grows
    with their number; variables without a gradient take part with a gradient of zero. A sharded
    variable is a problem of its own.

    The optimizer works on copies of the rules, whose weights are part of its (non-trainable)
    variables: meta-training a rule further does not change it, and loading a checkpoint into it
    does not change the rule that it was made from.

    With a `guard`, Adam takes over from a rule that does harm or does not improve the loss.

    Args:
        rule: The update rule, an `l2l_keras.rules.UpdateRule`
            (`LearnedOptimizer.from_preset` takes a trained one from a preset); or a dictionary of
            groups, `{pattern: member}`. A variable belongs to the first group whose pattern, a
            regular expression, is found in its path; `".*"` at the end takes the rest. A member is
            a rule or a Keras optimizer, which keeps its own learning rate.
        learning_rate: Factor of the rules' updates: a float, a
            `keras.optimizers.schedules.LearningRateSchedule` or a callable without arguments.
            Defaults to 1, the updates that a rule was trained to make.
        group_of: Function that maps a variable to the name of its group, or None (the default) to
            match patterns. A registered function (`keras.saving.register_keras_serializable`) can
            be saved and loaded.
        state_dtype: `"float32"` (the default), or `"bfloat16"` for states of half the size,
            rounded to 8 bits after each step.
        runaway_factor: A step is skipped if the norm of its gradients is more than this times the
            largest of recent steps, or more than its square times that of all steps (see
            `l2l_keras.safeguards.skip_steps.accept`); None to skip only steps that are not finite.
            Defaults to 1000.
        guard: `True`, or an `l2l_keras.Guard` with other settings, for the fallback to Adam.
            Defaults to None.
        record_updates: Whether to record, in every step, the norm of each variable's update by its
            rule and the cosine of the angle between it and the direction of steepest descent, for
            `diagnose` and `l2l_keras.Diagnostics`. Defaults to False.
        weight_decay: Float or None. If set, `learning_rate * weight_decay` of every variable is
            subtracted from it before its update.
        clipnorm: Float or None. If set, the gradient of each variable is clipped to this norm.
        clipvalue: Float or None. If set, gradients are clipped to `[-clipvalue, clipvalue]`.
        global_clipnorm: Float or None. If set, all gradients together are clipped to this norm.
        use_ema: Whether to keep an exponential moving average of the variables. Defaults to False.
        ema_momentum: Momentum of this average. Defaults to 0.99.
        ema_overwrite_frequency: Steps between two overwritings of the variables with their average,
            or None (the default) to overwrite them at the end of training only.
        loss_scale_factor: Float or None. Factor of the loss, by which gradients are divided.
        gradient_accumulation_steps: Integer or None. If set, variables and the rules' state change
            once in this number of steps, on the mean gradient of these steps.
        name: Name of the optimizer.

    Raises:
        ValueError: If `rule` is neither an `UpdateRule` nor a dictionary of members, or another
            argument is not as described or not as `keras.optimizers.Optimizer` wants it.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(optimizer=l2l_keras.LearnedOptimizer(rule), loss="mse")
        >>> history = model.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0)

        Biases and the scales of normalisation to Adam, everything else to the rule:

        >>> groups = {"bias|gamma|beta": keras.optimizers.Adam(1e-3), ".*": rule}
        >>> optimizer = l2l_keras.LearnedOptimizer(groups)

    Source: Andrychowicz et al. (2016), section 2; groups as in its section 3.3.
    """

    def __init__(
        self,
        rule: UpdateRule | Mapping[str, parameter_groups.Member],
        learning_rate: float | Callable[..., Any] = 1.0,
        group_of: Callable[[Variable], str] | None = None,
        state_dtype: str = "float32",
        runaway_factor: float | None = 1000.0,
        guard: Guard | bool | None = None,
        record_updates: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        parameter_groups.check(rule, group_of)
        arguments.one_of("state_dtype", state_dtype, STATE_DTYPES)
        grows = runaway_factor is None or runaway_factor > 1.0
        arguments.check(grows, "runaway_factor", "greater than 1, or None", runaway_factor)
        known = isinstance(guard, Guard | bool | None)
        arguments.check(known, "guard", "a `Guard`, True, or None", guard)
        advice.warn_of_large_decay(weight_decay)
        advice.warn_of_small_rate(learning_rate)
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            use_ema=use_ema,
            ema_momentum=ema_momentum,
            ema_overwrite_frequency=ema_overwrite_frequency,
            loss_scale_factor=loss_scale_factor,
            gradient_accumulation_steps=gradient_accumulation_steps,
            name=name,
        )
        # Copies, made here: two optimizers cannot own the same variables (the JAX trainer donates
        # their buffers), and under a `tf.distribute` strategy's scope φ is mirrored with the model.
        self.rule: Any = parameter_groups.copy(rule)
        self.group_of = group_of
        self.state_dtype = state_dtype
        self.runaway_factor = None if runaway_factor is None else float(runaway_factor)
        self.record_updates = bool(record_updates)
        self.guard = Guard() if guard is True else guard or None
        # As variables of the optimizer they are saved with it, and are arguments, not constants, of
        # compiled training steps.
        self.track(parameter_groups.weights(self.rule))
        self._fallback = AdamFallback(self.guard) if self.guard else None
        self._safeguards: list[Safeguard] = [SkipSteps(self.runaway_factor)]
        if self.record_updates:
            self._safeguards.append(UpdateStatistics())
        if self._fallback:
            self._safeguards.append(self._fallback)
        rules = parameter_groups.rules(self.rule)
        weights = {group: own.weights for group, own in rules.items()}
        self._state = OptimizerState(weights, self._safeguards, self.add_variable)

    @classmethod
    def from_preset(
        cls, preset: str | os.PathLike[str], **optimizer_arguments: Any
    ) -> LearnedOptimizer:
        """Creates an optimizer with the trained rule, or groups of rules, of a preset.

        Args:
            preset: Name of a shipped preset (see `l2l_keras.list_presets`), path of a folder that
                `save_to_preset` wrote, or `"hf://user/name"` on the Hugging Face Hub.
            **optimizer_arguments: Further arguments of the constructor, such as `learning_rate`.

        Returns:
            A `LearnedOptimizer`.

        Raises:
            ValueError, ImportError, OSError: See `l2l_keras.presets.load_preset`.

        Example:
            >>> optimizer = l2l_keras.LearnedOptimizer.from_preset("quadratic", clipnorm=1.0)
        """
        rule, card = presets.load_preset(preset)
        advice.warn_of_missing_schedule(card, optimizer_arguments.get("learning_rate", 1.0))
        return cls(rule, **optimizer_arguments)

    def save_to_preset(
        self, path: str | os.PathLike[str], card: dict[str, Any] | None = None
    ) -> None:
        """Saves the rule, or groups of rules, without the state of a training run, as a preset.

        Args:
            path: Folder to write; a preset that is there is replaced.
            card: What to tell about the rule (see `l2l_keras.presets.save_preset`). Defaults to
                the folder's name as `name`.

        Raises:
            ValueError: If `path` exists and is no preset, or a group has a Keras optimizer.

        Example:
            >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
            >>> l2l_keras.LearnedOptimizer(rule).save_to_preset("my_rule")
        """
        presets.save_preset(self.rule, path, card or {"name": pathlib.Path(path).name})

    def __repr__(self) -> str:
        """Names the rules, the learning rate and the guard."""
        members = parameter_groups.summary(self.rule)
        rate = self.get_config()["learning_rate"]
        rate = f"{rate:g}" if isinstance(rate, float) else rate["class_name"]
        guard = "with" if self.guard else "without"
        return f"<LearnedOptimizer of {members}, learning_rate={rate}, {guard} guard>"

    def build(self, variables: Sequence[Variable]) -> None:
        """Creates the rules' state, and that of Keras optimizers, for the variables.

        Args:
            variables: The variables to optimize.

        Raises:
            ValueError: If a variable belongs to no group.
        """
        if self.built:
            return
        super().build(variables)
        # Variables that are overwritten with their gradient are not optimized.
        updated = {
            index: variable
            for index, variable in enumerate(variables)
            if not getattr(variable, "overwrite_with_gradient", False)
        }
        members = parameter_groups.divide(self.rule, updated, self.group_of)
        infos = [describe(v, parameter_groups.path_of(v)) for v in variables]
        rules = parameter_groups.rules(self.rule)
        own = {group: {index: infos[index] for index in members[group]} for group in rules}
        blocks = make_blocks(rules, self.state_dtype, own)
        self._state.build(blocks, infos, variables)
        optimizers = parameter_groups.optimizers(self.rule)
        self._delegates = Delegates(
            [(optimizer, members[group]) for group, optimizer in optimizers.items()], variables
        )
        self._delegate_variables = self._delegates.variables  # For Keras to track.
        shapes = [info.shape for info in infos]
        self._step = backend.compile_step(Engine(blocks, shapes, self._safeguards).step)
        # The gradient of one variable alone does not tell whether gradients run away.
        self._step_alone = backend.compile_step(Engine(blocks, shapes, _ALONE).step)

    @property
    def learning_rate(self) -> Any:
        """The present learning rate, or what it was set to; see `keras.optimizers.Optimizer`."""
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        # Later, callbacks lower it as they should.
        if not self.built:
            advice.warn_of_small_rate(learning_rate)
        keras.optimizers.Optimizer.learning_rate.fset(self, learning_rate)

    @property
    def skipped_steps(self) -> int:
        """Steps that were skipped because their gradients were not finite, or far too large."""
        return int(ops.convert_to_numpy(self._state.scalars["skipped_steps"]))

    @property
    def guard_report(self) -> dict[str, int | bool]:
        """What the guard has done: steps, steps of Adam, trials, rescues, and who leads.

        Raises:
            ValueError: If there is no guard.
        """
        if self._fallback is None:
            raise ValueError("A report needs a guard. Received: guard=None")
        return self._fallback.report(self._state.scalars["fallback"])

    def diagnose(self) -> dict[str, dict[str, float]]:
        """Returns diagnostics of the rules at work.

        Returns:
            For each variable that a rule updates, by its path: numbers from the rule's state, such
            as "step size" and "saturated cells" (see `UpdateRule.diagnose`); and of its last
            update, with `record_updates`, the "update norm" and the "cosine with descent".

        Raises:
            ValueError: If the optimizer has not been built.

        Example:
            >>> rule = l2l_keras.rules.TensorwiseLSTM(seed=0)
            >>> optimizer = l2l_keras.LearnedOptimizer(rule, record_updates=True)
            >>> variable = keras.Variable([1.0, 2.0], name="weights")
            >>> optimizer.apply([keras.ops.array([0.1, 0.2])], [variable])
            >>> sorted(optimizer.diagnose()["weights"])
            ['cosine with descent', 'saturated cells', 'step size', 'update norm']
        """
        if not self.built:
            raise ValueError("Diagnostics need an optimizer that has been built.")
        return self._state.diagnose()

    def observe_loss(self, loss: Tensor) -> None:
        """Passes a loss of the present weights to the guard, if there is one.

        `fit` does this by itself; see `l2l_keras.Guard` for where it does not.

        Args:
            loss: A scalar. Of several losses between two steps, the mean counts.
        """
        if self._fallback is not None:
            losses = self._state.scalars["losses"]
            losses.assign(self._fallback.add_loss(losses, loss))

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Scales the loss, as Keras does, and passes it to the guard."""
        if backend.sees_losses():
            self.observe_loss(loss)
        return super().scale_loss(loss)

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Any) -> None:
        """Updates one variable and its state; training updates all variables in one step."""
        inputs = self._inputs([gradient], [variable], learning_rate)
        scalars = {name: inputs.scalars[name] for s in _ALONE for name in s.scalars()}
        accepted = self._step_alone(inputs._replace(slots={}, scalars=scalars))
        self._delegates.step_if(accepted, inputs.gradients, inputs.parameters)

    def update_variables(
        self, gradients: Sequence[Tensor], variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        """Updates variables and their state in one step; called by `apply`."""
        inputs = self._inputs(gradients, variables, learning_rate)
        if backend.replicated():
            backend.run_on_replicas(self._step, inputs, self._delegates.step)
        else:
            accepted = self._step(inputs)
            self._delegates.step_if(accepted, inputs.gradients, inputs.parameters)

    def _inputs(
        self, gradients: Sequence[Tensor], variables: Sequence[Variable], learning_rate: Any
    ) -> StepInputs:
        """Returns the inputs of a step: gradients, and the variables that it reads and writes."""
        indices = [self.index_of(variable) for variable in variables]
        return self._state.inputs(
            dict(zip(indices, gradients, strict=True)),
            dict(zip(indices, variables, strict=True)),
            learning_rate,
        )

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Sets the final values of the variables; called by `fit` at its end.

        If training ends in a trial of the guard, they are the winner's values. With `use_ema`, they
        are averages.
        """
        if self._fallback is not None and self.built:
            variables = {self.index_of(variable): variable for variable in var_list}
            slots = self._state.slots[self._fallback.name]
            self._fallback.conclude(self._state.scalars["fallback"], slots, variables)
        advice.warn_of_skipped_steps(self.skipped_steps, int(ops.convert_to_numpy(self.iterations)))
        super().finalize_variable_values(var_list)

    def state_of(self, variable: Variable) -> Tensor:
        """Returns the state that a rule keeps of each element of a variable.

        What a tensorwise rule keeps of a variable as a whole is not part of it (see `diagnose`).

        Args:
            variable: One of the variables that the optimizer was built with, of a rule's group.

        Returns:
            float32 `[rows, *variable.shape]`, the rule's state arrays one below the other.

        Raises:
            ValueError: If no rule updates the variable.

        Example:
            >>> variable = keras.Variable([1.0, 2.0, 3.0])
            >>> rule = l2l_keras.rules.CoordinatewiseLSTM(units=(20, 20), seed=0)
            >>> optimizer = l2l_keras.LearnedOptimizer(rule)
            >>> optimizer.build([variable])
            >>> tuple(optimizer.state_of(variable).shape)
            (80, 3)
        """
        state = self._state.state_of(self.index_of(variable))
        if state is None:
            raise ValueError(f"No rule updates the variable. Received: {variable}")
        return state

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, with the weights of the rules.

        Returns:
            A dictionary that JSON can hold. `rule_weights` are the rules' weights in their order,
            little-endian float32, base64.
        """
        group_of = self.group_of and keras.saving.serialize_keras_object(self.group_of)
        return {
            "rule": keras.saving.serialize_keras_object(
                self.rule if isinstance(self.rule, UpdateRule) else dict(self.rule)
            ),
            "rule_weights": parameter_groups.pack_weights(self.rule),
            "group_of": group_of,
            "state_dtype": self.state_dtype,
            "runaway_factor": self.runaway_factor,
            "record_updates": self.record_updates,
            "guard": self.guard and keras.saving.serialize_keras_object(self.guard),
            **super().get_config(),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> LearnedOptimizer:
        """Creates an optimizer from what `get_config` returned: the same rules, weights included.

        Args:
            config: As returned by `get_config`.
            custom_objects: Classes and functions by name, for rules and schedules that are not
                registered with Keras.

        Returns:
            A `LearnedOptimizer`, not built.

        Raises:
            ValueError: If the weights do not fit the rules.
        """
        config = dict(config)
        for argument in ("rule", "group_of", "guard"):
            config[argument] = keras.saving.deserialize_keras_object(
                config[argument], custom_objects=custom_objects
            )
        parameter_groups.unpack_weights(config["rule"], config.pop("rule_weights"))
        return super().from_config(config, custom_objects)
