"""The interface of an update rule: a small network that turns gradients into updates."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from l2l_keras import arguments

Tensor = Any
Nest = Any
State = tuple[Tensor, ...]
Shape = tuple[int, ...]


class UpdateRule(keras.layers.Layer, abc.ABC):
    """Base class of all update rules m(∇, h; φ).

    A rule holds the meta-parameters φ as its trainable weights and defines one pure function,
    `step`. Meta-training and `LearnedOptimizer` both run it, with weights that they pass in.

    Elements sit on the *last* axis: a gradient is a float32 vector `[n]`, a state is a tuple of
    float32 arrays `[rows, n]`, with `rows` from `state_rows`.

    The `scope` of a rule says what one decision depends on:

    - `"element"`: each element on its own gradients only. A step may be computed for a few thousand
      elements at a time.
    - `"tensor"`: one decision for each tensor of a model; see `TensorwiseRule`.
    - `"model"`: all elements of a problem exchange information. A step sees all of them at once.

    A subclass implements `state_rows` and `step`, or the methods of `SplitRule`, which is
    meta-trained at a fraction of the cost in time and memory. It keeps its constructor's arguments
    as attributes of the same names, or overrides `get_config`.

    Args:
        name: Name of the layer.

    Example:
        Gradient descent, with a rate that is learned:

        >>> @keras.saving.register_keras_serializable(package="example")
        ... class LearnedRate(l2l_keras.rules.UpdateRule):
        ...     def __init__(self, name=None):
        ...         super().__init__(name)
        ...         self.log_rate = self.add_weight(shape=(), initializer="zeros")
        ...
        ...     @property
        ...     def state_rows(self):
        ...         return ()  # It keeps nothing from step to step.
        ...
        ...     def step(self, gradient, state):
        ...         return -0.1 * keras.ops.exp(self.log_rate) * gradient, state
        >>> rule = LearnedRate()
        >>> update, _ = rule.step(keras.ops.array([1.0, -2.0]), rule.initial_state(2))
        >>> print(update.numpy())
        [-0.1  0.2]

    Source: Andrychowicz et al. (2016), section 2.
    """

    scope: Literal["element", "tensor", "model"] = "element"

    def __init__(self, name: str | None = None) -> None:
        # State and φ stay in float32 whatever the precision of the model being trained: a
        # recurrent state in half precision drifts.
        super().__init__(name=name, dtype="float32")
        self.built = True  # Weights are made by the constructor.

    def __repr__(self) -> str:
        return arguments.call(self)

    @property
    @abc.abstractmethod
    def state_rows(self) -> tuple[int, ...]:
        """Rows of each state array: floats kept for every element."""

    def state_rows_for(self, n: int) -> tuple[int, ...]:
        """Returns the rows of each state array for `n` elements. Defaults to `state_rows`."""
        return self.state_rows

    @abc.abstractmethod
    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """Computes one update. Pure, of static shapes, in `keras.ops` only.

        Args:
            gradient: Gradient of every element, float32 `[n]`.
            state: The rule's state, a tuple of float32 arrays `[rows, n]`.

        Returns:
            `(update, state)`: what to add to the elements, float32 `[n]`, and the next state.
        """

    def using(self, weights: Sequence[Tensor]) -> keras.StatelessScope:
        """Returns a scope in which the rule computes with given weights instead of its own.

        Args:
            weights: Tensors in place of `self.weights`, in their order.

        Example:
            >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
            >>> zeros = [0.0 * keras.ops.convert_to_tensor(w) for w in rule.weights]
            >>> with rule.using(zeros):
            ...     update, _ = rule.step(keras.ops.ones((2,)), rule.initial_state(2))
            >>> update.numpy()
            array([0., 0.], dtype=float32)
        """
        return keras.StatelessScope(state_mapping=zip(self.weights, weights, strict=True))

    def initial_state(self, n: int) -> State:
        """Returns the state of `n` elements before their first step: zeros, float32 `[rows, n]`."""
        return tuple(ops.zeros((rows, n), "float32") for rows in self.state_rows_for(n))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, kept by a rule as attributes of their names."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: _as_lists(getattr(self, name)) for name in names}

    def diagnose(self, state: Tensor) -> dict[str, Tensor]:
        """Returns diagnostics of a variable, scalars by name. Defaults to none.

        Args:
            state: State of the variable's elements, one array below the other, float32 `[rows, n]`;
                of a tensorwise rule, the state of the variable as a whole, `[rows, 1]`.
        """
        return {}


def _as_lists(value: Any) -> Any:
    """Returns a value with lists in place of tuples, as JSON has them."""
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value


class SplitRule(UpdateRule):
    """Base class of rules in two parts: features, and a network with its own derivative.

    The features of a gradient do not depend on φ; the network maps them to the update. Each part
    has a state of its own. Meta-training back-propagates through the network by `backward` rather
    than by a tape.

    A subclass implements `network_rows`, `feature_rows`, `features`, `forward` and `backward`. All
    LSTM rules of this package are subclasses.

    Args:
        name: Name of the layer.

    Example:
        A step is features, then the network:

        >>> rule = l2l_keras.rules.RNNprop(units=(4,), seed=0)
        >>> isinstance(rule, l2l_keras.rules.SplitRule)
        True
        >>> network_state, feature_state = rule.split_state(rule.initial_state(3))
        >>> features, feature_state = rule.features(keras.ops.ones((3,)), feature_state)
        >>> update, network_state, cache = rule.forward(features, network_state)
        >>> update.shape
        TensorShape([3])
    """

    @property
    @abc.abstractmethod
    def network_rows(self) -> tuple[int, ...]:
        """Rows of each array of the network's state."""

    @property
    def feature_rows(self) -> tuple[int, ...]:
        """Rows of each array of the features' state. Defaults to none."""
        return ()

    @property
    def state_rows(self) -> tuple[int, ...]:
        """Rows of the network's state, then of the features'."""
        return self.network_rows + self.feature_rows

    @abc.abstractmethod
    def features(self, gradient: Tensor, state: State) -> tuple[Nest, State]:
        """Computes the network's inputs. Pure, in `keras.ops` only, and independent of φ.

        Args:
            gradient: Gradient of every element, float32 `[n]`.
            state: The features' state, a tuple of float32 arrays `[rows, n]`.

        Returns:
            `(features, state)`: a nested structure of float32 arrays, and the next state.
        """

    @abc.abstractmethod
    def forward(self, features: Nest, state: State) -> tuple[Tensor, State, State]:
        """Computes the update from the features. Pure, in `keras.ops` only.

        Args:
            features: As returned by `features`.
            state: The network's state, a tuple of float32 arrays `[rows, n]`.

        Returns:
            `(update, state, cache)`: float32 `[n]`; the next state; and a tuple of further arrays
            for `backward`. Caches are kept for all steps of a window and should be small.
        """

    def network(self, features: Nest, state: State) -> tuple[Tensor, State]:
        """Computes the `(update, state)` of `forward`, without a cache."""
        return self.forward(features, state)[:2]

    @abc.abstractmethod
    def backward(
        self,
        features: Nest,
        state: State,
        new_state: State,
        cache: State,
        d_update: Tensor,
        d_new_state: State,
        with_features: bool,
    ) -> tuple[list[Tensor], Nest, State]:
        """Computes the vector-Jacobian product of `forward`.

        Args:
            features: As given to `forward`.
            state: The network's state before the step.
            new_state: The network's state after the step.
            cache: The step's cache, as returned by `forward`.
            d_update: Derivative of the meta-loss with respect to the update, `[n]`.
            d_new_state: Derivative with respect to `new_state`.
            with_features: Whether to compute the derivative with respect to the features.

        Returns:
            `(d_weights, d_features, d_state)`: derivatives with respect to `trainable_variables`,
            in their order; to `features`, None unless asked for; and to `state`.
        """

    def split_state(self, state: State) -> tuple[State, State]:
        """Splits the rule's state into `(network_state, feature_state)`."""
        arrays = len(self.network_rows)
        return tuple(state[:arrays]), tuple(state[arrays:])

    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """See `UpdateRule.step`."""
        network_state, feature_state = self.split_state(state)
        features, feature_state = self.features(gradient, feature_state)
        update, network_state = self.network(features, network_state)
        return update, (*network_state, *feature_state)
