"""`LearnedOptimizer`: an update rule as a Keras optimizer, on any backend."""

from __future__ import annotations

import base64
import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from l2l_keras import presets
from l2l_keras.rules import UpdateRule

Tensor = Any
Variable = Any


@keras.saving.register_keras_serializable(package="l2l_keras")
class LearnedOptimizer(keras.optimizers.Optimizer):
    """Optimizer whose updates are computed by a (meta-trained) update rule.

    θ ← θ + learning_rate · u with (u, h) = m(∇, h; φ): the rule m says where to go and how far,
    and keeps a state h for every coordinate. All coordinates of all variables go through the rule
    together, in float32 whatever the variables' dtype. The state is one float32 array
    `[rows, *variable.shape]` for each variable, `rows` being the sum of the rule's `state_rows`.

    The optimizer works on a copy of the rule, whose weights are part of its (non-trainable)
    variables: meta-training `rule` further does not change it, and loading a checkpoint into it
    does not change `rule`.

    Args:
        rule: The update rule, an `l2l_keras.rules.UpdateRule`. `LearnedOptimizer.from_preset`
            takes a trained one from a preset.
        learning_rate: Factor of the rule's updates: a float, a
            `keras.optimizers.schedules.LearningRateSchedule` or a callable without arguments.
            Defaults to 1, the updates that the rule was trained to make.
        weight_decay: Float or None. If set, `learning_rate * weight_decay` of every variable is
            taken off it before its update.
        clipnorm: Float or None. If set, the gradient of each variable is clipped to this norm.
        clipvalue: Float or None. If set, gradients are clipped to `[-clipvalue, clipvalue]`.
        global_clipnorm: Float or None. If set, all gradients together are clipped to this norm.
        use_ema: Whether to keep an exponential moving average of the variables. Defaults to False.
        ema_momentum: Momentum of this average. Defaults to 0.99.
        ema_overwrite_frequency: Steps between two overwritings of the variables with their average,
            or None (the default) to overwrite them at the end of training only.
        loss_scale_factor: Float or None. Factor of the loss, taken out of the gradients again.
        gradient_accumulation_steps: Integer or None. If set, variables and the rule's state change
            every so many steps only, on the mean gradient of these steps.
        name: Name of the optimizer.

    Raises:
        ValueError: If `rule` is not an `UpdateRule`, or an argument of the base class is not as
            `keras.optimizers.Optimizer` wants it.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
        >>> model = keras.Sequential([keras.layers.Dense(1)])
        >>> model.compile(optimizer=l2l_keras.LearnedOptimizer(rule), loss="mse")
        >>> history = model.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0)

    Source: Andrychowicz et al. (2016), section 2.
    """

    def __init__(
        self,
        rule: UpdateRule,
        learning_rate: float | Callable[..., Any] = 1.0,
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
        if not isinstance(rule, UpdateRule):
            raise ValueError(
                "`rule` must be an instance of `l2l_keras.rules.UpdateRule`; for a preset, use "
                f"`LearnedOptimizer.from_preset`. Received: rule={rule!r}"
            )
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
        # A copy, made here: two optimizers cannot own the same variables (the JAX trainer donates
        # their buffers), and under a `tf.distribute` strategy's scope φ is mirrored with the model.
        self.rule = _copy(rule)
        # Keras tracks variables that it finds in an attribute's list. As variables of the optimizer
        # they are saved with it, and are arguments, not constants, of compiled training steps.
        self._rule_weights = list(self.rule.weights)
        self._rule_step = _compiled(self.rule.step)

    @classmethod
    def from_preset(
        cls, preset: str | os.PathLike[str], **optimizer_arguments: Any
    ) -> LearnedOptimizer:
        """Creates an optimizer with the trained rule of a preset.

        Args:
            preset: Name of a shipped preset (see `l2l_keras.list_presets`) or path of a folder
                that `save_to_preset` wrote.
            **optimizer_arguments: Further arguments of the constructor, such as `learning_rate`.

        Returns:
            A `LearnedOptimizer`.

        Raises:
            ValueError: If there is no such preset, or it is incomplete or damaged.

        Example:
            >>> optimizer = l2l_keras.LearnedOptimizer.from_preset("quadratic", clipnorm=1.0)
        """
        rule, _ = presets.load_preset(preset)
        return cls(rule, **optimizer_arguments)

    def save_to_preset(
        self, path: str | os.PathLike[str], card: dict[str, Any] | None = None
    ) -> None:
        """Saves the rule, without the state of a training run, as a preset.

        Args:
            path: Folder to write; a preset that is there is replaced.
            card: What to tell about the rule (see `l2l_keras.presets.save_preset`). Defaults to
                the folder's name as `name`.

        Raises:
            ValueError: If `path` exists and is no preset.

        Example:
            >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
            >>> l2l_keras.LearnedOptimizer(rule).save_to_preset("my_rule")
        """
        presets.save_preset(self.rule, path, card or {"name": pathlib.Path(path).name})

    def build(self, variables: Sequence[Variable]) -> None:
        """Creates the rule's state of each variable.

        Args:
            variables: The variables to optimise.
        """
        if self.built:
            return
        super().build(variables)
        self._slots = [self._add_slot(variable) for variable in variables]

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Any) -> None:
        """Updates one variable and its state; training takes all variables in one such step.

        Args:
            gradient: Gradient of the variable, of its shape, dense or sparse.
            variable: One of the variables that the optimizer was built with.
            learning_rate: Factor of the update, a scalar.
        """
        self._update([gradient], [variable], learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, with the weights of the rule.

        Returns:
            A dictionary that JSON can hold. `rule_weights` are the rule's weights in their order,
            little-endian float32, base64.
        """
        weights = [np.asarray(w, "<f4").tobytes() for w in self.rule.get_weights()]
        return {
            "rule": keras.saving.serialize_keras_object(self.rule),
            "rule_weights": base64.b64encode(b"".join(weights)).decode("ascii"),
            **super().get_config(),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> LearnedOptimizer:
        """Creates an optimizer from what `get_config` returned: the same rule, weights included.

        Args:
            config: As returned by `get_config`.
            custom_objects: Classes and functions by name, for rules and schedules that are not
                registered with Keras.

        Returns:
            A `LearnedOptimizer`, not built.

        Raises:
            ValueError: If the weights do not fit the rule.
        """
        config = dict(config)
        rule = keras.saving.deserialize_keras_object(
            config.pop("rule"), custom_objects=custom_objects
        )
        packed = base64.b64decode(config.pop("rule_weights"))
        flat = np.frombuffer(packed, "<f4").astype("float32")
        shapes = [tuple(w.shape) for w in rule.weights]
        sizes = [math.prod(shape) for shape in shapes]
        if flat.size != sum(sizes):
            raise ValueError(
                f"The weights of the rule {rule.name!r} must be {sum(sizes)} numbers. "
                f"Received: {flat.size} numbers"
            )
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        rule.set_weights([part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)])
        return super().from_config({"rule": rule, **config}, custom_objects)

    # A private hook of Keras, and the only one that is overridden: the one place where all
    # gradients and variables are at hand *after* clipping, unscaling, weight decay, accumulation
    # and the filter for missing gradients, none of which is to be written a second time here.
    # Without it the optimizer would still be right, through `update_step` for each variable, but
    # the graph would hold one LSTM for every variable.
    def _backend_update_step(
        self, grads: Sequence[Tensor], trainable_variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        if _has_tensorflow_strategy():
            # The base class reduces gradients over replicas and calls `update_step` where each
            # variable may be assigned.
            super()._backend_update_step(grads, trainable_variables, learning_rate)
        else:
            self._update(grads, trainable_variables, learning_rate)

    def _update(
        self, gradients: Sequence[Tensor], variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        """Updates variables and their state in one step of the rule over all coordinates."""
        rows = self.rule.state_rows
        shapes = [tuple(variable.shape) for variable in variables]
        sizes = [math.prod(shape) for shape in shapes]
        # `_get_variable_index` is private by its name only: the example in the documentation of
        # `keras.optimizers.Optimizer` tells subclasses to use it, and there is no other way from a
        # variable (a replica's, too) to its slot.
        slots = [self._slots[self._get_variable_index(variable)] for variable in variables]

        gradient = ops.concatenate(
            [
                ops.reshape(_to_dense(g, shape), (size,))
                for g, shape, size in zip(gradients, shapes, sizes, strict=True)
            ]
        )
        stacked = ops.concatenate(
            [ops.reshape(slot, (sum(rows), size)) for slot, size in zip(slots, sizes, strict=True)],
            axis=1,
        )
        ends = np.cumsum(rows).tolist()
        state = tuple(stacked[end - n : end] for n, end in zip(rows, ends, strict=True))

        update, state = self._rule_step(gradient, state)
        update = update * ops.cast(learning_rate, "float32")
        # One copy of the whole state, so that each variable costs the graph one slice.
        stacked = ops.concatenate(state) if rows else stacked

        stop = 0
        for variable, slot, shape, size in zip(variables, slots, shapes, sizes, strict=True):
            start, stop = stop, stop + size
            self.assign(slot, ops.reshape(stacked[:, start:stop], (sum(rows), *shape)))
            part = ops.reshape(update[start:stop], shape)
            self.assign_add(variable, ops.cast(part, variable.dtype))

    def _add_slot(self, variable: Variable) -> Variable | None:
        """Returns the new state of one variable; None if it is overwritten with its gradient."""
        if getattr(variable, "overwrite_with_gradient", False):
            return None
        path = getattr(variable, "path", variable.name)  # A raw `tf.Variable` has no path.
        layout = _slot_layout(variable)
        with _colocated_with(variable):
            # Not `add_variable_from_reference`: the state is of another shape, and stays in
            # float32, since an LSTM's state in half precision drifts.
            return self.add_variable(
                shape=(sum(self.rule.state_rows), *variable.shape),
                dtype="float32",
                name=f"{path.replace('/', '_').replace(':', '_')}_state",
                # Early versions of Keras 3 have no such argument.
                **({} if layout is None else {"layout": layout}),
            )


def _copy(rule: UpdateRule) -> UpdateRule:
    """Returns a rule with the same weights in variables of its own, not trainable."""
    copy = type(rule).from_config(rule.get_config())
    copy.set_weights(rule.get_weights())
    copy.trainable = False
    return copy


def _compiled(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a rule's step, compiled with XLA on TensorFlow.

    In a custom training loop it would otherwise be a hundred kernels, and three times as slow. The
    other backends compile, or do not, all of a training step.
    """
    if keras.backend.backend() != "tensorflow":
        return step
    import tensorflow as tf

    return tf.function(step, jit_compile=True, autograph=False)


def _to_dense(gradient: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Returns a gradient as a dense float32 tensor, with the repeated rows of a sparse one summed.

    The sum comes first: preprocessing is not linear. `shape` is that of the variable, since a
    `tf.IndexedSlices` need not know its own.
    """
    if hasattr(gradient, "dense_shape"):  # A `tf.IndexedSlices`, as an embedding's gradient is.
        values = ops.cast(gradient.values, "float32")
        return ops.segment_sum(values, gradient.indices, num_segments=shape[0])
    return ops.convert_to_tensor(gradient, dtype="float32", sparse=False)


def _slot_layout(variable: Variable) -> Any:
    """Returns the sharding layout of a variable's slot: its own, and the rows unsharded."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return None
    layout = distribution.get_variable_layout(variable)
    return keras.distribution.TensorLayout((None, *layout.axes), layout.device_mesh)


def _colocated_with(variable: Variable) -> contextlib.AbstractContextManager[Any]:
    """Returns a scope that puts new variables on the device of `variable`, as Keras does."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    native = variable if isinstance(variable, tf.Variable) else variable.value
    return tf.distribute.get_strategy().extended.colocate_vars_with(native)


def _has_tensorflow_strategy() -> bool:
    """Returns whether a `tf.distribute` strategy is in force."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.has_strategy()
