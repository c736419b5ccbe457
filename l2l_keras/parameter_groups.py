"""Parameter groups: which rule, or Keras optimizer, updates which variables of a model."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from l2l_keras.rules import UpdateRule

Variable = Any
Member = Any
"""An `UpdateRule` or a `keras.optimizers.Optimizer`."""
Members = Any
"""An `UpdateRule` for all variables, or a mapping of groups' names to their members."""

# Arguments that act on all groups.
_OF_ALL_GROUPS = ("use_ema", "loss_scale_factor", "gradient_accumulation_steps")


def members(rule: Members) -> Mapping[str, Member]:
    """Returns the members by group; a rule alone is the member of one group of all variables."""
    return {".*": rule} if isinstance(rule, UpdateRule) else rule


def rules(rule: Members) -> dict[str, UpdateRule]:
    """Returns the rules among the members, by group."""
    return {g: member for g, member in members(rule).items() if isinstance(member, UpdateRule)}


def optimizers(rule: Members) -> dict[str, keras.optimizers.Optimizer]:
    """Returns the Keras optimizers among the members, by group."""
    return {g: member for g, member in members(rule).items() if not isinstance(member, UpdateRule)}


def only_rules(rule: Members) -> list[UpdateRule]:
    """Returns the groups' rules in their order.

    Raises:
        ValueError: If a group has a Keras optimizer.
    """
    check(rule, None)
    if others := optimizers(rule):
        raise ValueError(f"Every group must have an update rule. Received: {others}")
    return list(rules(rule).values())


def summary(rule: Members) -> str:
    """Returns the classes of all members, with the names of their groups if there are several."""
    return ", ".join(
        f"{'' if group == '.*' else f'{group!r}: '}{type(member).__name__}"
        for group, member in members(rule).items()
    )


def weights(rule: Members) -> list[Variable]:
    """Returns the weights of all rules, in their order."""
    return [weight for r in rules(rule).values() for weight in r.weights]


def pack_weights(rule: Members) -> str:
    """Returns the weights of all rules as text: little-endian float32 in their order, base64."""
    arrays = [keras.ops.convert_to_numpy(w).astype("<f4") for w in weights(rule)]
    return base64.b64encode(b"".join(array.tobytes() for array in arrays)).decode("ascii")


def unpack_weights(rule: Members, packed: str) -> None:
    """Assigns the weights that `pack_weights` returned for members of the same configuration.

    Raises:
        ValueError: If the weights do not fit the rules.
    """
    flat = np.frombuffer(base64.b64decode(packed), "<f4").astype("float32")
    variables = weights(rule)
    sizes = [math.prod(variable.shape) for variable in variables]
    if flat.size != sum(sizes):
        raise ValueError(
            f"The weights of the rules {[r.name for r in rules(rule).values()]} must be "
            f"{sum(sizes)} numbers. Received: {flat.size} numbers"
        )
    parts = np.split(flat, np.cumsum(sizes, dtype=int))[:-1]
    for variable, part in zip(variables, parts, strict=True):
        variable.assign(part.reshape(variable.shape))


def check(rule: Members, group_of: Callable[[Variable], str] | None) -> None:
    """Checks a rule or members, and the function that assigns variables to them (see `assign`).

    Raises:
        ValueError: If `rule` is neither, or an optimizer has an argument that acts on all groups,
            or a rule alone comes with `group_of`.
    """
    if isinstance(rule, UpdateRule):
        if group_of is not None:
            raise ValueError(
                "`group_of` needs a dictionary of groups as `rule`. Received: one rule"
            )
        return
    if not isinstance(rule, Mapping):
        raise ValueError(
            "`rule` must be an instance of `l2l_keras.rules.UpdateRule`, or a dictionary of "
            "groups; for a preset, use `LearnedOptimizer.from_preset`. "
            f"Received: rule={rule!r}"
        )
    if not rules(rule):
        raise ValueError(
            f"At least one group must have an `l2l_keras.rules.UpdateRule`. Received: rule={rule!r}"
        )
    for group, member in rule.items():
        if not isinstance(group, str) or not isinstance(
            member, (UpdateRule, keras.optimizers.Optimizer)
        ):
            raise ValueError(
                "`rule` must map the names or patterns of groups to update rules and Keras "
                f"optimizers. Received: {group!r}: {member!r}"
            )
    for group, optimizer in optimizers(rule).items():
        for argument in _OF_ALL_GROUPS:
            if value := getattr(optimizer, argument, None):
                raise ValueError(
                    f"Set `{argument}` on the LearnedOptimizer: it acts on all groups. Received: "
                    f"{argument}={value!r} on the {type(optimizer).__name__} of the group {group!r}"
                )


def copy(rule: Members) -> Members:
    """Returns the same rules, with the same weights (not trainable), and fresh Keras optimizers."""
    if not isinstance(rule, UpdateRule):
        return {group: _copy(member) for group, member in rule.items()}
    return _copy(rule)


def assign(
    variables: Sequence[Variable],
    groups: Iterable[str],
    group_of: Callable[[Variable], str] | None = None,
) -> list[str]:
    """Assigns variables to groups.

    Args:
        variables: Keras variables or other objects with a `path`, or `tf.Variable`s.
        groups: Names of the groups. Without `group_of`, they are regular expressions: a variable
            belongs to the first that is found in its path (`re.search`).
        group_of: Maps a variable to the name of its group.

    Returns:
        The name of each variable's group.

    Raises:
        ValueError: If a variable belongs to none of the groups, or a pattern is no regular
            expression.

    Example:
        >>> layer = keras.layers.Dense(2, name="dense")
        >>> layer.build((None, 3))
        >>> assign(layer.variables, ["bias", ".*"])
        ['.*', 'bias']
    """
    groups = list(groups)
    if group_of is None:
        for pattern in groups:
            _check_pattern(pattern)
    names = []
    for variable in variables:
        path = path_of(variable)
        if group_of is not None:
            group = group_of(variable)
            if group not in groups:
                raise ValueError(
                    f"`group_of` must return one of {groups}. "
                    f"Received: {group!r} for the variable {path!r}"
                )
        else:
            matching = [pattern for pattern in groups if re.search(pattern, path)]
            if not matching:
                raise ValueError(
                    f"Every variable must match one of the patterns {groups}; a last one, '.*', "
                    f"takes the rest. Received: a variable {path!r}, which matches none"
                )
            group = matching[0]
        names.append(group)
    return names


def divide(
    rule: Members, variables: Mapping[int, Variable], group_of: Callable[[Variable], str] | None
) -> dict[str, list[int]]:
    """Returns the indices of each group's variables; see `assign`."""
    groups = assign(list(variables.values()), members(rule), group_of)
    return {
        group: [index for index, own in zip(variables, groups, strict=True) if own == group]
        for group in members(rule)
    }


def path_of(variable: Variable) -> str:
    """Returns the path of a variable, or the name of a `tf.Variable`, which has none."""
    return variable.path if hasattr(variable, "path") else variable.name


def _copy(member: Member) -> Member:
    new = type(member).from_config(member.get_config())
    if isinstance(member, UpdateRule):
        new.set_weights(member.get_weights())
        new.trainable = False
    return new


def _check_pattern(pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            "The name of a group must be a regular expression, unless `group_of` is given. "
            f"Received: {pattern!r} ({error})"
        ) from error
