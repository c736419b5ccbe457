"""What differs between Keras' backends: how a step is run, and where its state lies."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

Tensor = Any
Variable = Any


class Windows(NamedTuple):
    """Equal windows of columns, each of which updates some that no other one does.

    Attributes:
        length: Columns of a window.
        start: First column of each window, int32.
        first: First column that each window updates, int32.
        last: One past the last such column, int32.
    """

    length: int
    start: np.ndarray
    first: np.ndarray
    last: np.ndarray


class Access(NamedTuple):
    """Access to the variables of a step, by their places.

    Attributes:
        read: Returns the value of a variable.
        add: Adds a tensor of its shape to a variable.
        assign: Makes a tensor of its shape the value of a variable.
    """

    read: Callable[[int], Tensor]
    add: Callable[[int, Tensor], Any]
    assign: Callable[[int, Tensor], Any]


Step = Callable[[Sequence[Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]
Sweep = Callable[[Tensor, Sequence[Tensor], Tensor, Any, Windows, Tensor], tuple[Tensor, Any]]


def runner(compute: Callable[..., Any]) -> Callable[..., Tensor]:
    """Returns a function that takes a step, compiled where the backend compiles.

    Args:
        compute: Maps `(plan, learning_rate, gradients, weights, slots, known, access)` to
            `(slots, known, accepted)`: a hashable value with the places of variables in `indices`,
            tensors, and an `Access`. `compute` returns the next states, the next values of
            what is known, and whether the step counts.

    Returns:
        A function of the first six and a list of variables, one for each gradient. Weights, slots
        and what is known are lists of variables, too. It returns whether the step counts.
    """
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_runner(compute)
    if keras.backend.backend() == "jax":
        return _jax_runner(compute)
    return _torch_runner(compute)


def _tensorflow_runner(compute: Callable[..., Any]) -> Callable[..., Tensor]:
    import tensorflow as tf

    # Not one program of XLA, which takes more than ten milliseconds to compile each of the copies
    # from and to a variable: eight seconds for 400 of them.
    @tf.function(autograph=False)
    def run(plan, learning_rate, gradients, weights, slots, known, variables):
        variable_of = dict(zip(plan.indices, variables, strict=True))

        def read(index: int) -> Tensor:
            return tf.convert_to_tensor(variable_of[index])

        def add(index: int, value: Tensor) -> Any:
            return variable_of[index].assign_add(tf.cast(value, variable_of[index].dtype))

        def assign(index: int, value: Tensor) -> Any:
            return variable_of[index].assign(tf.cast(value, variable_of[index].dtype))

        values = [[tf.convert_to_tensor(v) for v in part] for part in (weights, known)]
        access = Access(read, add, assign)
        _, new_known, accepted = compute(
            plan, learning_rate, gradients, values[0], slots, values[1], access
        )
        for variable, value in zip(known, new_known, strict=True):
            variable.assign(value)
        return accepted

    return run


def _jax_runner(compute: Callable[..., Any]) -> Callable[..., Tensor]:
    import jax

    @functools.partial(jax.jit, static_argnums=0)
    def compiled(plan, *tensors_and_variables):
        *tensors, variables = tensors_and_variables
        value_of = dict(zip(plan.indices, variables, strict=True))
        new: dict[int, Tensor] = {}

        def add(index: int, value: Tensor) -> None:
            new[index] = value_of[index] + ops.cast(value, value_of[index].dtype)

        def assign(index: int, value: Tensor) -> None:
            new[index] = ops.cast(value, value_of[index].dtype)

        access = Access(value_of.__getitem__, add, assign)
        return *compute(plan, *tensors, access), new

    def run(plan, learning_rate, gradients, weights, slots, known, variables):
        values = [[v.value for v in part] for part in (weights, slots, known, variables)]
        new_slots, new_known, accepted, new = compiled(plan, learning_rate, gradients, *values)
        for index, variable in zip(plan.indices, variables, strict=True):
            if index in new:
                variable.assign(new[index])
        for variable, value in zip([*slots, *known], [*new_slots, *new_known], strict=True):
            variable.assign(value)
        return accepted

    return run


def _torch_runner(compute: Callable[..., Any]) -> Callable[..., Tensor]:
    import torch

    @torch.no_grad()
    def run(plan, learning_rate, gradients, weights, slots, known, variables):
        variable_of = dict(zip(plan.indices, variables, strict=True))

        def read(index: int) -> Tensor:
            return variable_of[index].value

        def add(index: int, value: Tensor) -> None:
            variable_of[index].value.add_(value)

        def assign(index: int, value: Tensor) -> None:
            variable_of[index].value.copy_(value)

        values = [[v.value for v in part] for part in (weights, slots, known)]
        access = Access(read, add, assign)
        _, new_known, accepted = compute(plan, learning_rate, gradients, *values, access)
        for variable, value in zip(known, new_known, strict=True):
            variable.assign(value)
        return accepted

    return run


def after(operations: Sequence[Any]) -> contextlib.AbstractContextManager[Any]:
    """Returns a scope for what is not to begin before some calls of `add` have ended.

    Graphs of TensorFlow would otherwise do all at once what memory is to be shared by.
    """
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.control_dependencies(operations)


def sweeper(step: Step) -> Sweep:
    """Returns a function that steps through windows of coordinates.

    Its scratch memory is that of one window, and an array of updates.

    Args:
        step: Maps weights, a window's gradient `[length]` and state `[rows, length]` to its update
            and its next state.

    Returns:
        A function of a factor of updates, weights, a gradient `[n]`, a slot `[rows, n]`, windows,
        and whether to step at all (a boolean scalar). It returns the update `[n]`, zero throughout
        if there is no step, and the slot. Slots are tensors on JAX; elsewhere they are updated in
        place, and on TensorFlow they are variables. Coordinates that no window updates keep their
        state, and have a meaningless update.
    """
    if keras.backend.backend() == "jax":
        return functools.partial(_sweep, step)
    if keras.backend.backend() == "torch":
        return functools.partial(_sweep_in_place, step)
    import tensorflow as tf

    # A program that reads and assigns the slot itself updates it in place; a tensor would be
    # copied. All slots of a size share the program, whose arguments are windows and a handle: a
    # variable as an argument would have to outlive it.
    @tf.function(jit_compile=True, autograph=False)
    def program(shape, dtype, handle, factor, weights, gradient, windows, accepted):
        state = tf.ensure_shape(tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype), shape)
        update, state = _sweep(step, factor, weights, gradient, state, windows, accepted)
        tf.raw_ops.AssignVariableOp(resource=handle, value=state)
        return update

    def sweep(factor, weights, gradient, slot, *windows_and_accepted):
        state = (tuple(slot.shape), slot.dtype, slot.handle)
        return program(*state, factor, weights, gradient, *windows_and_accepted), slot

    return sweep


def _sweep(
    step: Step,
    factor: Tensor,
    weights: Sequence[Tensor],
    gradient: Tensor,
    state: Tensor,
    windows: Windows,
    accepted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sweeps in a loop that XLA compiles."""
    start, first, last = (ops.convert_to_tensor(columns) for columns in windows[1:])
    columns = ops.arange(windows.length, dtype="int32")

    def body(k: Tensor, carry: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # Updates take the place of their gradients, which no other window needs.
        vector, state = carry
        begin = start[k]
        old_vector = ops.slice(vector, [begin], [windows.length])
        old_state = ops.slice(state, [0, begin], [state.shape[0], windows.length])
        update, new_state = step(weights, old_vector, old_state)
        updated = ops.logical_and(columns + begin >= first[k], columns + begin < last[k])
        vector = ops.slice_update(vector, [begin], ops.where(updated, factor * update, old_vector))
        new_state = ops.where(updated, new_state, old_state)
        return vector, ops.slice_update(state, [0, begin], new_state)

    count = ops.where(accepted, start.shape[0], 0)
    return ops.fori_loop(0, count, body, (ops.where(accepted, gradient, 0.0), state))


def _sweep_in_place(
    step: Step,
    factor: Tensor,
    weights: Sequence[Tensor],
    gradient: Tensor,
    state: Tensor,
    windows: Windows,
    accepted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Sweeps through tensors that are mutable, in windows that may differ in length."""
    vector = ops.zeros_like(gradient)
    if accepted:
        for first, last in zip(windows.first.tolist(), windows.last.tolist(), strict=True):
            update, state[:, first:last] = step(weights, gradient[first:last], state[:, first:last])
            vector[first:last] = factor * update
    return vector, state


def program(function: Callable[..., Any], assigns: bool = False) -> Callable[..., Any]:
    """Returns a function of slots and tensors as one program, where steps are not one as a whole.

    Args:
        function: Maps a list of slots' values, and tensors, to a result; or to a result and a list
            of the slots' next values.
        assigns: Whether it returns next values. Defaults to False.

    Returns:
        A function of a list of slots, and tensors or hashable values, that returns the same, with
        slots for their values. Slots are tensors on JAX; elsewhere they are updated in place, and
        on TensorFlow they are variables.
    """
    if keras.backend.backend() == "jax":
        return function
    if keras.backend.backend() == "torch":

        def run_in_place(slots, *tensors):
            if not assigns:
                return function(slots, *tensors)
            result, values = function(slots, *tensors)
            for slot, value in zip(slots, values, strict=True):
                slot.copy_(value)
            return result, slots

        return run_in_place
    import tensorflow as tf

    # Handles as arguments, so that slots of a size share the program: a variable as an argument
    # would have to outlive it.
    @tf.function(jit_compile=True, autograph=False)
    def compiled(specs, handles, *tensors):
        values = [
            tf.ensure_shape(tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype), shape)
            for (shape, dtype), handle in zip(specs, handles, strict=True)
        ]
        if not assigns:
            return function(values, *tensors)
        result, values = function(values, *tensors)
        for handle, value in zip(handles, values, strict=True):
            tf.raw_ops.AssignVariableOp(resource=handle, value=value)
        return result

    def run(slots, *tensors):
        specs = tuple((tuple(slot.shape), slot.dtype) for slot in slots)
        result = compiled(specs, [slot.handle for slot in slots], *tensors)
        return (result, slots) if assigns else result

    return run


def clear(slots: Sequence[Any], condition: Tensor) -> list[Any]:
    """Returns slots, all zero if a condition holds.

    Args:
        slots: Tensors on JAX; elsewhere they are updated in place, and on TensorFlow they are
            variables.
        condition: A boolean scalar.
    """
    if keras.backend.backend() == "jax":
        return [ops.where(condition, ops.zeros_like(slot), slot) for slot in slots]
    if keras.backend.backend() == "torch":
        if condition:
            for slot in slots:
                slot.zero_()
        return list(slots)
    import tensorflow as tf

    def assign_zeros() -> None:
        for slot in slots:
            slot.assign(tf.zeros(slot.shape, slot.dtype))

    tf.cond(condition, assign_zeros, lambda: None)
    return list(slots)


def bitcast(x: Tensor, dtype: str) -> Tensor:
    """Returns the bits of a tensor as another type of the same width.

    Args:
        x: The tensor.
        dtype: Name of the type.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.bitcast(x, dtype)
    if keras.backend.backend() == "jax":
        import jax

        return jax.lax.bitcast_convert_type(x, dtype)
    import torch

    return x.view(getattr(torch, dtype))


def chunk_size(variable: Variable) -> int:
    """Returns how many coordinates to update at once, given a variable of the model.

    A processor takes as many as stay in a core's cache with all that the rule makes of them; an
    accelerator as many as fill it, since each launch costs it several microseconds.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        accelerated = bool(tf.config.list_logical_devices("GPU"))
    elif keras.backend.backend() == "jax":
        import jax

        accelerated = jax.default_backend() != "cpu"
    else:
        # Not compiled, larger chunks are as good, and cost fewer calls.
        return 2**16 if variable.value.device.type != "cpu" else 2**13
    return 2**16 if accelerated else 2**11


def native(variable: Variable) -> Variable:
    """Returns what `runner` takes for a variable: on TensorFlow, the `tf.Variable` in it."""
    if keras.backend.backend() == "tensorflow" and isinstance(variable, keras.Variable):
        return variable.value
    return variable


def device(variable: Variable) -> str:
    """Returns the device that a variable was placed on."""
    if keras.backend.backend() == "tensorflow":
        return native(variable).device
    return str(getattr(variable.value, "device", ""))


def colocated_with(variable: Variable) -> contextlib.AbstractContextManager[Any]:
    """Returns a scope that puts new variables on the device of `variable`, as Keras does."""
    if keras.backend.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow as tf

    return tf.distribute.get_strategy().extended.colocate_vars_with(native(variable))


def sharded_axes(variable: Variable) -> tuple[str | None, ...]:
    """Returns the axes of the device mesh over which a variable is sharded; () if over none."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return ()
    axes = tuple(distribution.get_variable_layout(variable).axes)
    return axes if any(axis is not None for axis in axes) else ()


def layout_argument(axes: Sequence[str | None]) -> dict[str, Any]:
    """Returns the `layout` argument of `add_variable` for a variable with such axes.

    None where nothing is distributed: early versions of Keras 3 have no such argument.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return {}
    return {"layout": keras.distribution.TensorLayout(tuple(axes), distribution.device_mesh)}


def has_strategy() -> bool:
    """Returns whether a `tf.distribute` strategy is in force."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.has_strategy()


def run_on_replicas(
    run: Callable[..., Tensor],
    delegate: Callable[[Sequence[Tensor]], None],
    plan: Any,
    learning_rate: Tensor,
    gradients: Sequence[Tensor],
    weights: Sequence[Variable],
    slots: Sequence[Variable],
    known: Sequence[Variable],
    variables: Sequence[Variable],
) -> None:
    """Runs a step on every replica's copies of variables, with the sum of all gradients.

    Args:
        run: As returned by `runner`.
        delegate: Called afterwards on every replica, with its gradients, if the step was accepted.
        plan: Argument of `run`, as are the next six; gradients are those of this replica.
        learning_rate: See `plan`.
        gradients: See `plan`.
        weights: See `plan`.
        slots: See `plan`.
        known: See `plan`.
        variables: See `plan`.
    """
    import tensorflow as tf

    def update(anchor, *arguments):
        del anchor
        return run(plan, *arguments)

    def merged(strategy, gradients, reduced, learning_rate):
        # Each device updates its own copies. They are arguments, since what is traced for one
        # device would hold the copies of that one.
        arguments = (learning_rate, reduced, weights, slots, known, variables)
        accepted = strategy.extended.update(known[0], update, args=arguments, group=False)
        # Here, since what a single replica runs may not wait for the others in a condition.
        tf.cond(
            accepted[0],
            lambda: strategy.extended.call_for_each_replica(delegate, args=(gradients,)),
            lambda: None,
        )

    context = tf.distribute.get_replica_context()
    gradients = list(gradients)
    reduced = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    context.merge_call(merged, args=(gradients, reduced, learning_rate))
