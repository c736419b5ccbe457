"""Tests of what `import l2l_keras` gives."""

import pytest

import l2l_keras


def test_all_public_names_resolve():
    for name in l2l_keras.__all__:
        assert getattr(l2l_keras, name) is not None
        assert name in dir(l2l_keras)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'l2l_keras' has no attribute 'nonsense'"):
        _ = l2l_keras.nonsense


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
