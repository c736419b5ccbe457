"""Tests of `l2l-explain`, and of what it shows of tensorwise rules."""

import csv
import sys

import numpy as np
import pytest

from l2l_keras import presets, rules
from l2l_keras.evaluation import tensor_responses
from l2l_keras.scripts import explain


def call(capsys, *arguments):
    """Runs the script in this process; returns its exit status, output and errors."""
    explain.FLAGS.unparse_flags()
    for name in explain.FLAGS:
        explain.FLAGS[name].unparse()
    before, sys.argv = sys.argv, ["l2l-explain", *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            explain.console()
    finally:
        sys.argv = before
    return ended.value.code, *capsys.readouterr()


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def small_tensorwise(**arguments):
    return rules.TensorwiseLSTM(4, seed=0, **arguments)


class TestScript:
    def test_a_rule_that_sees_coordinates(self, tmp_path, capsys):
        status, out, _ = call(capsys, "--preset=mnist_mlp", f"--output_dir={tmp_path}")
        assert not status
        assert str(tmp_path / "update_maps.png") in out
        assert (tmp_path / "update_maps.png").read_bytes().startswith(b"\x89PNG")
        rows = [r for r in rows_of(tmp_path / "update_maps.csv") if r["which"] == "first step"]
        # It goes down.
        assert np.all([float(r["x"]) * float(r["update"]) <= 0.0 for r in rows])

    def test_a_tensorwise_rule(self, tmp_path, capsys):
        presets.save_preset(small_tensorwise(), tmp_path / "rule", {"name": "rule"})
        status, _, _ = call(
            capsys, f"--preset={tmp_path / 'rule'}", "--steps=5", f"--output_dir={tmp_path}"
        )
        assert not status
        assert (tmp_path / "tensor_responses.png").read_bytes().startswith(b"\x89PNG")
        assert len(rows_of(tmp_path / "tensor_responses.csv")) == 5 * 5

    def test_groups_of_both_kinds(self, tmp_path, capsys):
        groups = {"bias": rules.RNNprop((4,), seed=0), ".*": small_tensorwise()}
        presets.save_preset(groups, tmp_path / "rules", {"name": "rules"})
        status, _, _ = call(
            capsys, f"--preset={tmp_path / 'rules'}", "--steps=2", f"--output_dir={tmp_path}"
        )
        assert not status
        (name,) = {row["rule"] for row in rows_of(tmp_path / "update_maps.csv")}
        assert name.endswith("'bias'")
        assert (tmp_path / "tensor_responses.png").exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "Expected --preset=NAME"),
            (["--preset=nothing"], "nothing"),
            (["--preset=quadratic", "--scale=0"], "scale"),
        ],
    )
    def test_mistakes_are_one_line(self, arguments, message, capsys):
        status, _, err = call(capsys, *arguments)
        assert status in (1, 2)
        assert message in err
        assert "Traceback" not in err


class TestTensorResponses:
    def test_without_anything_learned_they_are_adams(self):
        rule = small_tensorwise(momenta=((0.9, 0.999),), fan_in_exponent=0.0)
        *weights, kernel, bias = rule.get_weights()
        rule.set_weights([*weights, 0.0 * kernel, bias])
        responses = tensor_responses(rule, steps=60, side=6)
        for response in responses.values():
            np.testing.assert_allclose(response.step_sizes, 3e-3 * np.exp(-1.0), rtol=1e-5)
        same = responses["the same in each step"]
        np.testing.assert_allclose(same.sizes, same.step_sizes, rtol=1e-3)
        assert same.cosines.min() > 0.7  # The sign of the gradient, not the gradient.
        noisy = responses["the same, with three times as much noise"]
        assert noisy.sizes[-1] < 0.6 * same.sizes[-1]
        alternating = responses["one and its opposite in turn"]
        assert alternating.sizes[-1] < 0.1 * same.sizes[-1]

    def test_they_are_the_same_every_time(self):
        first, second = (tensor_responses(small_tensorwise(), 3, 4) for _ in range(2))
        for name, response in first.items():
            np.testing.assert_array_equal(response, second[name])

    @pytest.mark.parametrize("arguments", [{"steps": 0}, {"side": 0}])
    def test_wrong_arguments_are_refused(self, arguments):
        with pytest.raises(ValueError, match="must be positive. Received"):
            tensor_responses(small_tensorwise(), **arguments)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
