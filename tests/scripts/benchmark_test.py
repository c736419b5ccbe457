"""Tests of `l2l-benchmark`: that it measures and writes, not how fast anything is."""

import importlib.util
import json
import math
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
    for flag in benchmark.FLAGS.get_flags_for_module(benchmark.__name__):
        flag.unparse()


def test_meta_training_is_measured(run):
    content, (machine, _, heading, row) = run(*QUICK, "--problem=quadratic")
    assert (content["what"], content["threads"]) == ("meta_train", 1)
    assert {"l2l_keras", "keras", "tensorflow"} <= set(content["versions"])
    assert f"threads: 1, tensorflow {content['versions']['tensorflow']}" in machine
    (result,) = content["results"]
    assert (result["problem"], result["coordinates"]) == ("quadratic", 1280)
    assert result["first_call_seconds"] > 0
    # TensorFlow alone takes a few hundred megabytes.
    assert 1e8 < result["peak_memory_bytes"] < 1e10
    # The backward pass counts as two forward passes.
    operations = result["steps_per_second"] * 3 * ONE_INPUT * 1280
    share = operations / (result["sgemm_gflops"] * 1e9)
    assert result["sgemm_share"] == pytest.approx(share, rel=1e-6)
    assert heading.split()[0] == "problem"
    assert row.split()[:2] == ["quadratic", f"{result['steps_per_second']:.0f}"]


def check_applied(result, operations, state_bytes):
    """Checks the quantities of a case against each other."""
    share = operations / result["ns_per_coordinate"] / result["sgemm_gflops"]
    assert result["sgemm_share"] == pytest.approx(share, rel=1e-6)
    assert result["state_bytes_per_coordinate"] == pytest.approx(state_bytes)
    ratio = result["ns_per_coordinate"] / result["adam_ns_per_coordinate"]
    assert result["times_adam"] == pytest.approx(ratio)
    for name in ("copy_bytes_per_second", "first_call_seconds", "adam_first_call_seconds"):
        assert result[name] > 0
    if Path("/proc/self/clear_refs").exists():
        assert 0 <= result["scratch_bytes"] < 1e9
        assert 0 <= result["steady_scratch_bytes"] < 1e9


def test_steps_are_measured_on_every_backend(run):
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    content, (machine, _, heading, *rows) = run(
        *(*QUICK, "--what=apply", "--coordinates=50", "--variables=3", "--state_dtype=bfloat16")
    )
    assert [result["backend"] for result in content["results"]] == backends
    assert heading.split()[:5] == ["backend", "rule", "weights", "variables", "ns/weight"]
    for result, row in zip(content["results"], rows, strict=True):
        # The state: hidden and cell of two layers, 2 bytes each.
        check_applied(result, TWO_INPUTS, 2 * 2 * (20 + 20))
        assert f"{result['backend']} {result['backend_version']}" in machine
        speed = f"{result['ns_per_coordinate']:.1f}"
        assert row.split()[:5] == [result["backend"], "coordinatewise_lstm", "50", "3", speed]


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
        assert (result["rule"], result["folder"]) == (str(tmp_path / "mine"), PACKAGE)
    ratio = other["ns_per_coordinate"] / own["ns_per_coordinate"]
    assert math.isclose(own["speed"], ratio) and other["speed"] == 1.0


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
    with pytest.raises(_console.UserError, match="multiple of --columns, with a row") as error:
        run("--what=apply", *sizes)
    assert error.value.status == _console.USAGE


def test_a_measurement_that_fails_says_why(run):
    sizes = ("--coordinates=7", "--variables=1")
    with pytest.raises(_console.UserError, match="'rule': 'none'.* failed: .*`preset` must be"):
        run(*QUICK, "--what=apply", "--backend=jax", "--preset=none", *sizes)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
