"""`LearnedOptimizer`: update rules as a Keras optimizer, on any backend."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from l2l_keras import _backend, gradient_guard, parameter_groups, presets, update_records
from l2l_keras._keras_hooks import BatchOptimizer
from l2l_keras.batched_update import Block, ShardedBlock
from l2l_keras.columns import Slot, Step, divide, to_vector
from l2l_keras.guard import Guard, GuardedVariables
from l2l_keras.referee import Referee
from l2l_keras.rules import UpdateRule
from l2l_keras.rules.tensorwise.tensors import fan_in
from l2l_keras.stored_rule import STATE_DTYPES, StoredTensorwiseRule, stored_rule
from l2l_keras.tensorwise_update import TensorwiseBlock

Tensor = Any
Variable = Any


@keras.saving.register_keras_serializable(package="l2l_keras")
class LearnedOptimizer(BatchOptimizer):
    """Optimizer whose updates are computed by (meta-trained) update rules.

    θ ← θ + learning_rate · u with (u, h) = m(∇, h; φ): the rule m says where to go and how far,
    and keeps a state h for every coordinate. All coordinates of all variables go through the rule
    together, a few thousand at a time, in float32 whatever the variables' dtype. The state is one
    array `[rows, coordinates]`, `rows` being the sum of the rule's `state_rows`.

    Variables may be divided into groups, each with a rule of its own, or handed to a Keras
    optimizer, as one may want for biases and norms.

    A step whose gradients are not finite, or suddenly far larger than those of the steps before,
    is skipped: it changes no weight and no state, and is counted in `skipped_steps`. (Weight decay
    and moving averages, which do not come from gradients, go on.)

    A coupled rule (`UpdateRule.coupled`) steps through all coordinates of its group at once, in
    memory that grows with their number; where some variables come without a gradient, it takes that
    as zero. A sharded variable is a problem of its own.

    The optimizer works on copies of the rules, whose weights are part of its (non-trainable)
    variables: meta-training a rule further does not change it, and loading a checkpoint into it
    does not change the rule that it was made from.

    For rules that may do harm, or no good, there is a `guard`, which has Adam take over.

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
        runaway_factor: A step is skipped if the norm of its gradients is more than so many times
            the largest of recent steps (see `l2l_keras.gradient_guard.judge`); None to skip only
            what is not finite. Defaults to 1000.
        guard: `True`, or an `l2l_keras.Guard` with other settings, for Adam to take over where the
            rule is of no use. Defaults to None.
        record_updates: Whether to record, in every step, the norm of each variable's update by its
            rule and the cosine of the angle between it and the direction of steepest descent, for
            `diagnose` and `l2l_keras.Diagnostics`. Defaults to False.
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
        gradient_accumulation_steps: Integer or None. If set, variables and the rules' state change
            every so many steps only, on the mean gradient of these steps.
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
        if state_dtype not in STATE_DTYPES:
            raise ValueError(
                f"`state_dtype` must be one of {list(STATE_DTYPES)}. Received: {state_dtype!r}"
            )
        if runaway_factor is not None and not runaway_factor > 1.0:
            raise ValueError(
                f"`runaway_factor` must be greater than 1, or None. Received: {runaway_factor!r}"
            )
        if not isinstance(guard, Guard | bool | None):
            raise ValueError(f"`guard` must be a `Guard`, True, or None. Received: {guard!r}")
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
        # Keras tracks variables that it finds in an attribute's list. As variables of the optimizer
        # they are saved with it, and are arguments, not constants, of compiled training steps.
        self._rule_weights = parameter_groups.weights(self.rule)
        # Not in `build`, which may be called where Keras does not track what layers consist of.
        self._stored_rules = {
            group: stored_rule(rule, state_dtype)
            for group, rule in parameter_groups.rules(self.rule).items()
        }
        known = {
            "skipped_steps": self.add_variable((), dtype="int", name="skipped_steps"),
            "largest_norm": self.add_variable((), dtype="float32", name="largest_norm"),
        }
        if self.guard:
            known |= {
                "referee": self.add_variable((len(Referee._fields),), name="referee"),
                # Sum and number of the losses since the last step.
                "losses": self.add_variable((2,), name="losses"),
                "products": self.add_variable((4,), name="products"),
            }
        # What is known of all variables together, by name.
        self._known = known
        self._run = _backend.runner(self._compute)

    @classmethod
    def from_preset(
        cls, preset: str | os.PathLike[str], **optimizer_arguments: Any
    ) -> LearnedOptimizer:
        """Creates an optimizer with the trained rule, or groups of rules, of a preset.

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

    def build(self, variables: Sequence[Variable]) -> None:
        """Creates the rules' state, and that of Keras optimizers, for the variables.

        Args:
            variables: The variables to optimise.

        Raises:
            ValueError: If a variable belongs to no group.
        """
        if self.built:
            return
        super().build(variables)
        # Variables that are overwritten with their gradient are not optimised.
        updated = {
            index: variable
            for index, variable in enumerate(variables)
            if not getattr(variable, "overwrite_with_gradient", False)
        }
        groups = parameter_groups.assign(
            list(updated.values()), parameter_groups.members(self.rule), self.group_of
        )
        self._shapes = tuple(tuple(variable.shape) for variable in variables)
        self._paths = [parameter_groups.path_of(variable) for variable in variables]
        self._blocks = tuple(self._make_blocks(updated, groups))
        numbers = itertools.count()
        self._slots = [
            [self._add_slot(slot, variables[slot.reference], next(numbers)) for slot in block.slots]
            for block in self._blocks
        ]
        if self.record_updates:
            shape = (len(variables), len(update_records.NAMES))
            self._known["records"] = self.add_variable(shape, name="records")
        self._guard_slots: dict[int, list[Variable]] = {}
        if self.guard:
            shapes = {
                index: shape for block in self._blocks for index, shape in block.shapes.items()
            }
            axes = {index: _backend.sharded_axes(variables[index]) for index in shapes}
            self._guarded = GuardedVariables(self.guard, shapes, axes)
            self._guard_slots = {
                index: [
                    self._add_slot(slot, variables[index], next(numbers))
                    for slot in self._guarded.slots_of(index)
                ]
                for index in shapes
            }
        self._delegations = tuple(
            (optimizer, tuple(i for i, g in zip(updated, groups, strict=True) if g == group))
            for group, optimizer in parameter_groups.delegates(self.rule).items()
        )
        for optimizer, indices in self._delegations:
            optimizer.build([variables[index] for index in indices])
        self._delegate_variables = [v for o, _ in self._delegations for v in o.variables]

    @property
    def skipped_steps(self) -> int:
        """Steps that were skipped because their gradients were not finite, or far too large."""
        return int(ops.convert_to_numpy(self._known["skipped_steps"]))

    @property
    def guard_report(self) -> dict[str, int | bool]:
        """What the guard has done: steps, steps of Adam, trials, rescues, and who leads.

        Raises:
            ValueError: If there is no guard.
        """
        if not self.guard:
            raise ValueError("There is nothing to report without a guard. Received: guard=None")
        referee = Referee(*ops.convert_to_numpy(self._known["referee"]).tolist())
        return {
            "steps": int(referee.steps),
            "adam steps": int(referee.adam_steps),
            "trials": int(referee.trials),
            "rescues": int(referee.rescues),
            "adam leads": referee.adam_leads > 0.5,
        }

    def diagnose(self) -> dict[str, dict[str, float]]:
        """Tells what there is to see of the rules at work.

        Returns:
            For each variable that a rule updates, by its path: what there is to see in the rule's
            state, such as "step size" and "saturated cells" (see `UpdateRule.diagnose`); and of its
            last update, with `record_updates`, the "update norm" and the "cosine with descent".

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
            raise ValueError("There is nothing to see before the optimizer is built.")
        seen: dict[str, dict[str, float]] = {}
        for block, slots in zip(self._blocks, self._slots, strict=True):
            for index in block.shapes:
                numbers = block.diagnose(slots, index)
                if self.record_updates:
                    own = ops.unstack(ops.convert_to_tensor(self._known["records"])[index])
                    numbers |= zip(update_records.NAMES, own, strict=True)
                seen[self._paths[index]] = {
                    name: float(ops.convert_to_numpy(number)) for name, number in numbers.items()
                }
        return seen

    def observe_loss(self, loss: Tensor) -> None:
        """Shows a loss of the present weights to the guard, if there is one.

        Training with `fit` does so by itself; see `l2l_keras.Guard` for where it does not.

        Args:
            loss: A scalar. Of several between two steps, the mean counts.
        """
        if self.guard:
            loss = ops.stop_gradient(ops.convert_to_tensor(loss, dtype="float32"))
            losses = self._known["losses"]
            losses.assign(losses + ops.stack([loss, ops.ones_like(loss)]))

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Scales the loss, as Keras does, and shows it to the guard.

        Args:
            loss: A scalar.
        """
        # Where losses are traced apart from the step, what is assigned would be lost.
        if keras.backend.backend() != "jax" and not _backend.has_strategy():
            self.observe_loss(loss)
        return super().scale_loss(loss)

    def update_step(self, gradient: Tensor, variable: Variable, learning_rate: Any) -> None:
        """Updates one variable and its state; training takes all variables in one such step.

        Args:
            gradient: Gradient of the variable, of its shape, dense or sparse.
            variable: One of the variables that the optimizer was built with.
            learning_rate: Factor of the update, a scalar.
        """
        self._update([gradient], [variable], learning_rate, alone=True)

    def update_variables(
        self, gradients: Sequence[Tensor], variables: Sequence[Variable], learning_rate: Any
    ) -> None:
        """Updates variables and their state in one step; called by `apply`.

        Args:
            gradients: Gradients of the variables, dense or sparse.
            variables: Variables that the optimizer was built with.
            learning_rate: Factor of the rules' updates, a scalar.
        """
        if not _backend.has_strategy():
            self._update(gradients, variables, learning_rate, alone=False)
            return

        plan, *arguments = self._arguments(gradients, variables, learning_rate, alone=False)

        def delegate(gradients: Sequence[Tensor]) -> None:
            for optimizer, chosen in self._delegated(plan):
                optimizer.apply([gradients[k] for k in chosen], [variables[k] for k in chosen])

        _backend.run_on_replicas(self._run, delegate, plan, *arguments)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Sets the final values of the variables; called by `fit` at its end.

        Where training ends in a trial of the guard, that ends too (`l2l_keras.referee.conclude`),
        and they are the winner's. With `use_ema`, they are averages.

        Args:
            var_list: The variables that the optimizer was built with.
        """
        if self.guard and self.built:
            variables = {self.index_of(variable): variable for variable in var_list}
            self._guarded.finish(self._known["referee"], self._guard_slots, variables)
        super().finalize_variable_values(var_list)

    def state_of(self, variable: Variable) -> Tensor:
        """Returns the state that a rule keeps of a variable.

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
        index = self.index_of(variable)
        for block, slots in zip(self._blocks, self._slots, strict=True):
            if index in block.shapes:
                return block.state_of(slots, index)
        raise ValueError(f"No rule updates the variable. Received: {variable}")

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

    def _make_blocks(
        self, variables: Mapping[int, Variable], groups: Sequence[str]
    ) -> Iterator[Block | TensorwiseBlock]:
        """Divides variables by rule and device, and then by size; sharded ones stand alone."""
        shared: dict[tuple[str, str], dict[int, tuple[int, ...]]] = {}
        axes: dict[int, tuple[str | None, ...]] = {}
        for (index, variable), group in zip(variables.items(), groups, strict=True):
            if group not in self._stored_rules:
                continue
            axes[index] = _backend.sharded_axes(variable)
            # Those of a tensorwise rule are together, wherever they lie.
            stored = self._stored_rules[group]
            if isinstance(stored, StoredTensorwiseRule):
                shared.setdefault((group, ""), {})[index] = self._shapes[index]
            elif axes[index]:
                yield ShardedBlock(group, stored, index, self._shapes[index], axes[index])
            else:
                place = (group, _backend.device(variable))
                shared.setdefault(place, {})[index] = self._shapes[index]
        for (group, _), shapes in shared.items():
            stored = self._stored_rules[group]
            if isinstance(stored, StoredTensorwiseRule):
                fan_ins = {i: fan_in(self._paths[i], shape) for i, shape in shapes.items()}
                devices = {index: _backend.device(variables[index]) for index in shapes}
                yield TensorwiseBlock(group, stored, shapes, fan_ins, axes, devices)
                continue
            for part in [shapes] if stored.rule.coupled else divide(shapes):
                chunk = _backend.chunk_size(variables[next(iter(part))])
                yield Block(group, stored, part, chunk)

    def _add_slot(self, slot: Slot, reference: Variable, number: int) -> Variable:
        """Returns a new part of the state, next to a variable."""
        with _backend.colocated_with(reference):
            return self.add_variable(
                slot.shape,
                dtype=slot.dtype,
                name=f"{slot.name}_{number}",
                **_backend.layout_argument(slot.axes),
            )

    def _update(
        self,
        gradients: Sequence[Tensor],
        variables: Sequence[Variable],
        learning_rate: Any,
        alone: bool,
    ) -> None:
        """Updates variables and their state on one device, or where Keras distributes tensors."""
        plan, *arguments = self._arguments(gradients, variables, learning_rate, alone)
        accepted = self._run(plan, *arguments)
        for optimizer, chosen in self._delegated(plan):
            some = [variables[k] for k in chosen]
            # Not a condition: those of JAX cannot assign.
            changed = [*some, *optimizer.variables]
            before = [ops.copy(variable) for variable in changed]
            optimizer.apply([gradients[k] for k in chosen], some)
            for variable, value in zip(changed, before, strict=True):
                self.assign(variable, ops.where(accepted, ops.convert_to_tensor(variable), value))

    def _arguments(
        self,
        gradients: Sequence[Tensor],
        variables: Sequence[Variable],
        learning_rate: Any,
        alone: bool,
    ) -> tuple[Any, ...]:
        """Returns the arguments of `_backend.runner`'s function."""
        plan = _Plan(tuple(self.index_of(variable) for variable in variables), alone)
        arrays = (
            self._rule_weights,
            [slot for _, slots in self._blocks_of(plan) for slot in slots]
            + [slot for index in self._guarded_of(plan) for slot in self._guard_slots[index]],
            self._known.values(),
            variables,
        )
        natives = [[_backend.native(variable) for variable in part] for part in arrays]
        return plan, ops.cast(learning_rate, "float32"), list(gradients), *natives

    def _compute(
        self,
        plan: _Plan,
        learning_rate: Tensor,
        gradients: Sequence[Tensor],
        weights: Sequence[Tensor],
        slots: Sequence[Any],
        values: Sequence[Tensor],
        access: _backend.Access,
    ) -> tuple[list[Any], list[Tensor], Tensor]:
        """Computes one step of all rules; see `_backend.runner`."""
        vectors = {
            index: to_vector(gradient, self._shapes[index])
            for index, gradient in zip(plan.indices, gradients, strict=True)
        }
        blocks = [block for block, _ in self._blocks_of(plan)]
        known = dict(zip(self._known, values, strict=True))
        accepted, largest_norm = gradient_guard.judge(
            self._norm(blocks, vectors),
            known["largest_norm"],
            None if plan.alone else self.runaway_factor,
        )
        if not plan.alone:
            known["largest_norm"] = largest_norm
        skipped = ops.logical_not(accepted)
        known["skipped_steps"] += ops.cast(skipped, known["skipped_steps"].dtype)
        rest = iter(weights)
        weights_of = {
            group: [next(rest) for _ in rule.weights]
            for group, rule in parameter_groups.rules(self.rule).items()
        }
        rest = iter(slots)
        own_slots = [[next(rest) for _ in block.slots] for block in blocks]
        guard_slots = {
            index: [next(rest) for _ in self._guard_slots[index]]
            for index in self._guarded_of(plan)
        }
        step = Step(
            learning_rate, weights_of, vectors, plan.indices, accepted, access.read, access.add
        )
        if guard_slots:
            watched = [known[name] for name in ("referee", "losses", "products")]
            step, watched, forget, products = self._guarded.step(step, watched, guard_slots, access)
        recorded: dict[int, Tensor] = {}
        if self.record_updates:
            step = update_records.recording(step, recorded)
        new_slots: list[Any] = []
        ended: list[Any] = []
        for block, own in zip(blocks, own_slots, strict=True):
            own, ended = block.update(step, own, ended)
            new_slots += own
        if guard_slots:
            new_slots = _backend.clear(new_slots, forget)
            new_slots += [slot for own in guard_slots.values() for slot in own]
            known["referee"], known["losses"] = watched
            known["products"] = sum(products)
        if self.record_updates:
            old = known["records"]
            rows = [recorded.get(index, old[index]) for index in range(old.shape[0])]
            known["records"] = ops.stack(rows)
        return new_slots, list(known.values()), accepted

    def _guarded_of(self, plan: _Plan) -> list[int]:
        """Returns the places of a step's variables that are guarded."""
        return [] if plan.alone else [i for i in plan.indices if i in self._guard_slots]

    def _norm(
        self, blocks: Sequence[Block | TensorwiseBlock], vectors: Mapping[int, Tensor]
    ) -> Tensor:
        """Computes the norm of all gradients together, block by block."""
        squares = [
            gradient_guard.square_norm(vectors[index])
            for _, members in self._delegations
            for index in members
            if index in vectors
        ]
        for block in blocks:
            with _backend.after(squares[-1:]):
                squares += [gradient_guard.square_norm(v) for v in block.vectors(vectors)]
        return ops.sqrt(sum(squares))

    def _blocks_of(self, plan: _Plan) -> list[tuple[Block | TensorwiseBlock, list[Variable]]]:
        """Returns the blocks that have some of a step's variables, each with its slots."""
        return [
            (block, slots)
            for block, slots in zip(self._blocks, self._slots, strict=True)
            if not block.shapes.keys().isdisjoint(plan.indices)
        ]

    def _delegated(self, plan: _Plan) -> Iterator[tuple[keras.optimizers.Optimizer, list[int]]]:
        """Yields the Keras optimizers, each with the positions of its variables in a step."""
        for optimizer, members in self._delegations:
            if chosen := [k for k, index in enumerate(plan.indices) if index in members]:
                yield optimizer, chosen


class _Plan(NamedTuple):
    """What a step is traced for.

    Attributes:
        indices: Places of its variables among the optimizer's.
        alone: Whether it is one of several parts of a step, whose size tells nothing.
    """

    indices: tuple[int, ...]
    alone: bool
