"""Divides the variables of rules into blocks."""

from __future__ import annotations

from collections.abc import Mapping

from l2l_keras.engine import shared
from l2l_keras.engine.block import Block
from l2l_keras.engine.elementwise import elementwise_blocks, whole_model_blocks
from l2l_keras.engine.layout import VariableInfo
from l2l_keras.engine.tensorwise import tensorwise_blocks
from l2l_keras.rules import UpdateRule

_BLOCKS_BY_SCOPE = {
    "element": elementwise_blocks,
    "tensor": tensorwise_blocks,
    "model": whole_model_blocks,
}


def make_blocks(
    rules: Mapping[str, UpdateRule],
    state_dtype: str,
    variables: Mapping[str, Mapping[int, VariableInfo]],
) -> list[Block]:
    """Divides the variables of each group, by index, into blocks, as its rule's scope demands."""
    blocks = [
        block
        for group, rule in rules.items()
        for block in _BLOCKS_BY_SCOPE[rule.scope](group, rule, state_dtype, variables[group])
    ]
    shared.keep([kernels for block in blocks for kernels in block.kernels])
    return blocks
