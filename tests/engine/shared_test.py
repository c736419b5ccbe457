"""Tests of which optimizers share compiled kernels, and of how long these live."""

import gc

import pytest
from keras import ops

from l2l_keras import LearnedOptimizer
from l2l_keras.engine.elementwise import ElementwiseKernels
from l2l_keras.engine.tensorwise_kernels import PartKernels
from tests.contract.harness import RULES, make_variables


def living_kernels():
    gc.collect()
    return {id(k) for k in gc.get_objects() if isinstance(k, ElementwiseKernels | PartKernels)}


def stepped(rule, size, factor=1.0):
    """Returns an optimizer after a step, and the kernels that it did not find."""
    before = living_kernels()
    optimizer = LearnedOptimizer(RULES[rule]())
    optimizer.rule.set_weights([factor * w for w in optimizer.rule.get_weights()])
    optimizer.apply([ops.ones((size,))], make_variables(shapes=[(size,)]))
    return optimizer, living_kernels() - before


@pytest.mark.parametrize("rule", ["rnnprop", "tensorwise_lstm"])
def test_optimizers_share_kernels_for_a_configuration_and_shapes(rule):
    assert len(stepped(rule, 51)[1]) == 1
    assert not stepped(rule, 51, factor=0.5)[1]
    assert len(stepped(rule, 52)[1]) == 1


@pytest.mark.parametrize("rule", ["rnnprop", "tensorwise_lstm"])
def test_kernels_are_freed_with_their_optimizers(rule):
    optimizer, used = stepped(rule, 61)
    _, last = stepped(rule, 62)
    _, latest = stepped(rule, 63)
    # The next model is often like one of the last.
    assert used | last | latest <= living_kernels()
    del optimizer
    assert not used & living_kernels()
    _, new = stepped(rule, 64)
    assert not last & living_kernels()
    assert latest | new <= living_kernels()


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
