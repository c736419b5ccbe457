"""Fixtures of the tests of meta-training."""

import pytest
import tensorflow as tf


@pytest.fixture(name="eagerly")
def eagerly_fixture():
    """Runs a test without compilation, which takes seconds for each rule and size."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
