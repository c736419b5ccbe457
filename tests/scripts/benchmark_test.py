"""Tests of `l2l-benchmark`: that it measures and writes, not how fast anything is."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
from absl import flags

import l2l_keras
from l2l_keras.scripts import _console, benchmark

QUICK = ("--rounds=1", "--seconds=0", "--threads=1")
PACKAGE = str(Path(l2l_keras.__file__).parents[1])
# Operations per element of the matrix products of a 2x20 LSTM with one input, and with two.
ONE_INPUT, TWO_INPUTS = (2 * (80 * (k + 20) + 80 * (20 + 20) + 20) for k in (1, 2))


@pytest.fixture(name="run")
def run_fixture(tmp_path, capsys):
    """Runs the command in this process; returns its JSON and the lines that it prints."""

    def run(*arguments):
        path = tmp_path / "new" / "speed.json"
        benchmark.main(benchmark.FLAGS(["l2l-benchmark", *arguments, f"--json={path}"]))
        content = json.loads(path.read_text())
        output, progress = capsys.readouterr()
        assert progress.startswith("[1/")
        return content, output.splitlines()

    yield run
    for name in benchmark.FLAGS:
        benchmark.FLAGS[name].unparse()


def test_meta_training_is_measured(run):
    content, (machine, _, heading, _, row) = run(*QUICK, "--problem=quadratic")
    assert (content["what"], content["threads"]) == ("meta_train", 1)
    assert {"l2l_keras", "keras", "tensorflow"} <= set(content["versions"])
    assert f"threads: 1, Keras {content['versions']['keras']}" in machine
    (result,) = content["results"]
    assert (result["problem"], result["weights"]) == ("quadratic", 1280)
    assert result["version"] == content["versions"]["tensorflow"]
    assert result["first call, s"] > 0
    # TensorFlow alone takes a few hundred megabytes.
    assert 1e2 < result["peak, MB"] < 1e4
    # The backward pass counts as two forward passes.
    operations = result["steps/s"] * 3 * ONE_INPUT * 1280
    share = operations / (result["sgemm, GFLOP/s"] * 1e9)
    assert result["of sgemm"] == pytest.approx(share, rel=1e-6)
    assert re.split("  +", heading.strip()) == list(result)
    shown = [value if isinstance(value, str) else f"{value:.4g}" for value in result.values()]
    assert row.split() == shown


def check_applied(result, operations, state_bytes):
    """Checks the quantities of a case against each other."""
    share = operations / result["ns/weight"] / result["sgemm, GFLOP/s"]
    assert result["of sgemm"] == pytest.approx(share, rel=1e-6)
    assert result["state, B/weight"] == pytest.approx(state_bytes)
    assert result["times Adam"] == pytest.approx(result["ns/weight"] / result["(Adam)"])
    assert result["first call, s"] > 0 and result["(Adam), s"] > 0
    if Path("/proc/self/clear_refs").exists():
        assert 0 <= result["scratch, MB"] < 1e3
        assert 0 <= result["with compilers, MB"] < 1e3


def test_steps_are_measured_on_every_backend(run):
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    sizes = ("--coordinates=50", "--variables=3", "--state_dtype=bfloat16")
    content, lines = run(*QUICK, "--what=apply", *sizes)
    assert [line.split()[0] for line in lines[-len(backends) :]] == backends
    assert [result["backend"] for result in content["results"]] == backends
    for result in content["results"]:
        # The state: hidden and cell of two layers, 2 bytes each.
        check_applied(result, TWO_INPUTS, 2 * 2 * (20 + 20))


def test_presets_are_applied_to_matrices_and_compared_with_another_version(run, tmp_path):
    rule = l2l_keras.rules.TensorwiseLSTM(units=4, momenta=((0.9, 0.99),), orthogonal=(0,), seed=0)
    l2l_keras.LearnedOptimizer(rule).save_to_preset(tmp_path / "mine")
    sizes = ("--coordinates=60", "--columns=5", "--variables=3")
    preset = f"--preset={tmp_path / 'mine'}"
    arguments = (*QUICK, "--what=apply", "--backend=jax", preset, *sizes, f"--against={PACKAGE}")
    own, other = run(*arguments)[0]["results"]
    for result in (own, other):
        # A momentum and an average of squares per weight; and per tensor, hidden and cell state,
        # the rate, the steps, the size of the last step, and whether it began as zeros.
        check_applied(result, 0, 4 * (2 * 60 + 3 * (2 * 4 + 4)) / 60)
        assert (result["rule"], result["of"]) == (str(tmp_path / "mine"), PACKAGE)
    assert own["speed"] == pytest.approx(other["ns/weight"] / own["ns/weight"])
    assert other["speed"] == 1.0


@pytest.mark.parametrize(
    "argument",
    ["--problem=cubic", "--rounds=0", "--seconds=-1", "--backend=numpy", "--rule=adam"]
    + ["--coordinates=0", "--variables=0", "--state_dtype=float16"],
)
def test_mistakes_are_refused(argument):
    with pytest.raises(flags.IllegalFlagValueError, match=argument):
        benchmark.FLAGS(["l2l-benchmark", argument])


@pytest.mark.parametrize(
    "sizes",
    [
        ("--coordinates=3", "--variables=4"),
        ("--coordinates=10000", "--variables=3", "--columns=5000"),
        ("--coordinates=10000", "--variables=1", "--columns=7"),
    ],
)
def test_variables_without_rows_are_refused(run, sizes):
    with pytest.raises(_console.UsageError, match="multiple of --columns, with a row"):
        run("--what=apply", *sizes)


def test_a_measurement_that_fails_says_why(run):
    sizes = ("--coordinates=7", "--variables=1")
    with pytest.raises(_console.UserError, match="'rule': 'none'.* failed: .*`preset` must be"):
        run(*QUICK, "--what=apply", "--backend=jax", "--preset=none", *sizes)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
