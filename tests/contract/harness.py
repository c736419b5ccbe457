"""What the clauses of the contract share: the registry, rules, variables and comparisons."""

import functools
import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from l2l_keras import Guard, LearnedOptimizer
from l2l_keras.parameter_groups import path_of
from l2l_keras.rules import (
    NTMBFGS,
    CoordinatewiseLSTM,
    GlobalAveragingLSTM,
    MomentumLSTM,
    RNNprop,
    Tensors,
    TensorwiseLSTM,
    UpdateRule,
)

BACKEND = keras.backend.backend()
SHAPES = [(2, 3), (), (4,), (1, 2, 2)]
# float32 sums in another order; states are rounded to 8 bits.
TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
_TOLERANCE_OF_BFLOAT16 = {"rtol": 2e-2, "atol": 1e-2}

Make = Callable[..., LearnedOptimizer]
"""Returns a `LearnedOptimizer`, or what claims to be one, given arguments of its constructor."""


class Clause(NamedTuple):
    """A clause of the contract: a function that fails with an optimizer that breaks it.

    Attributes:
        check: The function.
        backends: The backends on which the clause holds.
        elementwise: Whether it is about variables that do not depend on each other, and holds for
            rules of scope "element" only.
        arithmetic: Whether it is about a rule's arithmetic rather than about Keras' plumbing.
    """

    check: Callable[[Make], None]
    backends: tuple[str, ...]
    elementwise: bool
    arithmetic: bool


CLAUSES: dict[str, Clause] = {}


def clause(
    *backends: str, elementwise: bool = False, arithmetic: bool = False
) -> Callable[[Callable[[Make], None]], Callable[[Make], None]]:
    """Registers a clause, on some backends or (by default) all; see `Clause`."""

    def register(check: Callable[[Make], None]) -> Callable[[Make], None]:
        everywhere = ("tensorflow", "jax", "torch")
        CLAUSES[check.__name__] = Clause(check, backends or everywhere, elementwise, arithmetic)
        return check

    return register


@keras.saving.register_keras_serializable(package="l2l_keras_tests")
class GradientDescent(UpdateRule):
    """A rule that needs no network, and no computing by hand; it sums gradients."""

    def __init__(self, rate: float = 0.5, rows: tuple[int, ...] = (1, 2), name: Any = None) -> None:
        super().__init__(name=name)
        self.rate, self.rows = rate, tuple(rows)
        self.built = True

    @property
    def state_rows(self) -> tuple[int, ...]:
        return self.rows

    def step(self, gradient: Any, state: Any) -> Any:
        return -self.rate * gradient, tuple(part + gradient for part in state)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "rows": list(self.rows), "name": self.name}


OPTIONS: dict[str, dict[str, Any]] = {
    # Without losses, the guard limits updates to this multiple of Adam's.
    "guard": {"guard": Guard(largest_update=1e9)},
    "records": {"record_updates": True},
    "groups": {},
    "bfloat16": {"state_dtype": "bfloat16"},
}
"""Options of a `LearnedOptimizer` that change its state, for `make_with`."""

# Small, and with updates large enough to tell apart.
RULES: dict[str, Callable[..., UpdateRule]] = {
    "log_sign_lstm": lambda seed=0: CoordinatewiseLSTM((4, 3), output_scale=1.0, seed=seed),
    "plain_lstm": lambda seed=0: CoordinatewiseLSTM((4,), "none", output_scale=1.0, seed=seed),
    "rnnprop": lambda seed=0: RNNprop((4, 3), output_scale=0.5, seed=seed),
    "momentum_lstm": lambda seed=0: MomentumLSTM((4,), rate=0.1, adaptive_rate=0.1, seed=seed),
    "global_averaging_lstm": lambda seed=0: GlobalAveragingLSTM(
        (4, 3), 2, output_scale=1.0, seed=seed
    ),
    "ntm_bfgs": lambda seed=0: NTMBFGS((4,), 2, memory_rank=2, output_scale=1.0, seed=seed),
    "tensorwise_lstm": lambda seed=0: TensorwiseLSTM(
        4, orthogonal=(0,), whitened_rows=4, nominal=40.0, seed=seed
    ),
    "gradient_descent": lambda seed=0: GradientDescent(),
    "stateless": lambda seed=0: GradientDescent(rows=()),
}


def make_with(rule: str, options: Iterable[str]) -> Make:
    """Makes optimizers with one of `RULES`, and `OPTIONS`; of groups, biases are Adam's."""
    defaults = {name: value for o in options for name, value in OPTIONS[o].items()}

    def make(**arguments: Any) -> LearnedOptimizer:
        own: Any = RULES[rule]()
        if "groups" in options:
            own = {"bias$": keras.optimizers.Adam(0.1), ".*": own}
        return LearnedOptimizer(own, **{**defaults, **arguments})

    return make


def make_variables(dtype: str = "float32", shapes: Any = SHAPES) -> list[keras.Variable]:
    return [
        keras.Variable(np.ones(shape), dtype=dtype, name=f"variable_{i}")
        for i, shape in enumerate(shapes)
    ]


def make_gradients(step: int = 0, shapes: Any = SHAPES) -> list[np.ndarray]:
    random = np.random.default_rng(step)
    return [np.asarray(random.normal(size=shape), "float32") for shape in shapes]


def tensors(gradients: Any) -> list[Any]:
    # Scalars, which become float64 in older versions of NumPy, included.
    return [
        None if g is None else ops.convert_to_tensor(np.asarray(g, "float32")) for g in gradients
    ]


def numpy(variables: Any) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def rule_of(optimizer: LearnedOptimizer) -> UpdateRule:
    """The optimizer's rule, of those in groups the last."""
    return optimizer.rule if isinstance(optimizer.rule, UpdateRule) else optimizer.rule[".*"]


def states(optimizer: LearnedOptimizer, variables: Any) -> list[np.ndarray]:
    """The rule's state of each variable that the rule updates."""
    return numpy(map(optimizer.state_of, of_the_rule(optimizer, variables)))


def of_the_rule(optimizer: LearnedOptimizer, variables: Any) -> list[Any]:
    """The variables that the rule updates: of `make_with`'s groups, all but biases."""
    grouped = not isinstance(optimizer.rule, UpdateRule)
    return [v for v in variables if not (grouped and path_of(v).endswith("bias"))]


def tolerance(optimizer: LearnedOptimizer) -> dict[str, float]:
    """How exactly the optimizer follows its rule."""
    return TOLERANCE if optimizer.state_dtype == "float32" else _TOLERANCE_OF_BFLOAT16


def snapshot(optimizer: LearnedOptimizer, variables: Any) -> list[np.ndarray]:
    return numpy(variables) + states(optimizer, variables)


def apply(optimizer: Any, gradients: Any, variables: Any) -> None:
    """Applies gradients; on JAX, where conditions cannot assign, without side effects."""
    if BACKEND != "jax":
        optimizer.apply(tensors(gradients), variables)
        return
    optimizer.build(variables)
    values, state = optimizer.stateless_apply(
        [v.value for v in optimizer.variables], tensors(gradients), [v.value for v in variables]
    )
    for variable, value in zip([*variables, *optimizer.variables], values + state, strict=True):
        variable.assign(value)


def train(optimizer: Any, steps: int = 3, dtype: str = "float32") -> list[keras.Variable]:
    """Returns variables after some steps on fixed gradients."""
    variables = make_variables(dtype)
    for step in range(steps):
        optimizer.apply(tensors(make_gradients(step)), variables)
    return variables


def by_the_rule(
    rule: UpdateRule, steps: list[list[np.ndarray]], start: Any = None, rate: float = 1.0
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns values and states after steps of a rule.

    One variable after the other; or all at once, if the rule looks beyond single elements.
    """
    values = [np.ones_like(g) for g in steps[0]] if start is None else start
    everything = range(len(values))
    problems = [[i] for i in everything] if rule.scope == "element" else [[*everything]]
    initial_state: Callable[..., Any] = rule.initial_state
    more: Callable[[Any], tuple[Any, ...]] = lambda parameters: ()  # noqa: E731
    if rule.scope == "tensor":
        arrays = Tensors([value.shape for value in values])
        initial_state = functools.partial(rule.initial_state, tensors=len(arrays))
        more = lambda parameters: (ops.convert_to_tensor(parameters), arrays)  # noqa: E731
    states: list[Any] = [None for _ in values]
    for members in problems:
        ends = np.cumsum([values[i].size for i in members])
        state = initial_state(int(ends[-1]))
        for gradients in steps:
            vector, parameters = (
                np.concatenate([np.ravel(arrays[i]) for i in members]).astype("float32")
                for arrays in (gradients, values)
            )
            update, state = rule.step(ops.convert_to_tensor(vector), state, *more(parameters))
            parts = np.split(ops.convert_to_numpy(update), ends[:-1])
            for i, part in zip(members, parts, strict=True):
                values[i] = values[i] + rate * part.reshape(values[i].shape)
        rows = [
            row.reshape(math.prod(row.shape[:-1]), ends[-1])
            for row in numpy(state)[: len(rule.state_rows_for(int(ends[-1])))]
        ]
        rows = np.concatenate([np.zeros((0, ends[-1]), "float32"), *rows])
        for i, part in zip(members, np.split(rows, ends[:-1], axis=1), strict=True):
            states[i] = part.reshape(len(rows), *values[i].shape)
    return values, states


def assert_close(actual: Any, expected: Any, **tolerance: float) -> None:
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, **(tolerance or TOLERANCE))


def assert_follows_the_rule(
    optimizer: LearnedOptimizer, variables: Any, steps: list[list[np.ndarray]]
) -> None:
    """Compares variables, which were ones, and states with those after steps of the rule."""
    values, rule_states = by_the_rule(rule_of(optimizer), steps)
    assert_close(numpy(variables), values, **tolerance(optimizer))
    assert_close(states(optimizer, variables), rule_states, **tolerance(optimizer))


def assert_equal(actual: Any, expected: Any) -> None:
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, e)


def assert_moved(actual: Any, before: Any) -> None:
    """Guards a comparison against being one of things that never change."""
    for a, b in zip(actual, before, strict=True):
        assert not a.size or np.abs(a - b).min() > 1e-6


def regression_data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(8, 3)).astype("float32")
    return x, x @ np.array([[1.0], [-2.0], [0.5]], "float32")


def regression_model(optimizer: Any = None, seed: int = 0, **arguments: Any) -> keras.Model:
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    )
    if optimizer is not None:
        model.compile(optimizer, "mse", **arguments)
    return model


def fit(model: keras.Model, steps: int, data: Any = None, **arguments: Any) -> list[float]:
    """Trains for some steps, each on all data; returns the loss before each."""
    x, y = data or regression_data()
    history = model.fit(
        x, y, batch_size=len(x), epochs=steps, shuffle=False, verbose=0, **arguments
    )
    return history.history["loss"]


def load_strictly(path: Any) -> keras.Model:
    """Loads a model; all that Keras does when it cannot load the state is to warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return keras.models.load_model(path)
