"""Tests of `l2l-explain`."""

import csv
import sys

import pytest

from l2l_keras import presets, rules
from l2l_keras.scripts import explain


@pytest.fixture(name="call")
def call_fixture(capsys, monkeypatch, tmp_path):
    """Runs the script in this process; returns its exit status, output and errors."""

    def call(*arguments):
        explain.FLAGS.unparse_flags()
        for name in explain.FLAGS:
            explain.FLAGS[name].unparse()
        monkeypatch.setattr(sys, "argv", ["l2l-explain", f"--output_dir={tmp_path}", *arguments])
        with pytest.raises(SystemExit) as ended:
            explain.console()
        return ended.value.code, *capsys.readouterr()

    return call


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_an_elementwise_rule(call, tmp_path):
    status, out, _ = call("--preset=mnist_mlp")
    assert not status
    assert str(tmp_path / "update_maps.png") in out
    assert (tmp_path / "update_maps.png").read_bytes().startswith(b"\x89PNG")
    rows = [row for row in rows_of(tmp_path / "update_maps.csv") if row["which"] == "first step"]
    # It descends, and so does Adam beside it.
    assert {row["rule"] for row in rows} == {"mnist_mlp", "Adam, learning rate 0.001"}
    assert len(rows) == 2 * 121
    assert all(float(row["x"]) * float(row["update"]) <= 0.0 for row in rows)


def test_groups_of_elementwise_and_tensorwise_rules(call, tmp_path):
    groups = {"bias": rules.RNNprop((4,), seed=0), ".*": rules.TensorwiseLSTM(4, seed=0)}
    presets.save_preset(groups, tmp_path / "rules", {"name": "rules"})
    status, _, _ = call(f"--preset={tmp_path / 'rules'}", "--steps=2")
    assert not status
    adam = {"Adam, learning rate 0.001"}
    names = {row["rule"] for row in rows_of(tmp_path / "update_maps.csv")}
    assert names == {"rules, group 'bias'"} | adam
    assert (tmp_path / "tensor_responses.png").read_bytes().startswith(b"\x89PNG")
    rows = rows_of(tmp_path / "tensor_responses.csv")
    assert len(rows) == 2 * 5 * 2
    assert {row["rule"] for row in rows} == {"rules, group '.*'"} | adam


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Expected --preset=NAME"),
        (["--preset=nothing"], "nothing"),
        (["--preset=quadratic", "--scale=0"], "scale"),
    ],
)
def test_a_mistake_ends_with_one_line(call, arguments, message):
    status, _, err = call(*arguments)
    assert status in (1, 2)
    assert message in err
    assert "Traceback" not in err


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
