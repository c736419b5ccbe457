"""Tests of `l2l-benchmark`: that it measures and writes, not how fast anything is."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import l2l_keras
from l2l_keras.scripts import _console, benchmark

COMMAND = [sys.executable, "-m", "l2l_keras.scripts.benchmark"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1])}
QUICK = ("--rounds=1", "--seconds=0", "--threads=1")


def run(*arguments):
    """Runs the script as a command."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=ENVIRONMENT,
    )


def test_it_prints_a_table_and_writes_json(tmp_path):
    path = tmp_path / "new" / "speed.json"
    finished = run(*QUICK, "--problem=quadratic", f"--json={path}")
    assert finished.returncode == 0, finished.stderr
    content = json.loads(path.read_text())
    assert content["threads"] == 1
    assert {"l2l_keras", "keras", "tensorflow"} <= set(content["versions"])
    (result,) = content["results"]
    assert result["problem"] == "quadratic"
    assert result["coordinates"] == 1280
    assert result["steps_per_second"] > 0
    assert result["first_call_seconds"] > 0
    # TensorFlow alone takes a few hundred megabytes.
    assert 1e8 < result["peak_memory_bytes"] < 1e10
    # Matrix products of a 2x20 LSTM with one input: 2 operations a weight, coordinate and pass, of
    # which the backward pass counts as two.
    operations = 6 * 1280 * (80 * (1 + 20) + 80 * (20 + 20) + 20)
    share = result["steps_per_second"] * operations / (result["sgemm_gflops"] * 1e9)
    assert result["sgemm_share"] == pytest.approx(share, rel=1e-6)

    heading, row = finished.stdout.splitlines()[-2:]
    assert heading.split()[0] == "problem"
    assert row.split()[:2] == ["quadratic", f"{result['steps_per_second']:.0f}"]
    assert "threads: 1" in finished.stdout
    assert "Traceback" not in finished.stderr


def check_applied(result, operations, state_bytes):
    """Holds the figures of one case to each other."""
    share = operations / result["ns_per_coordinate"] / result["sgemm_gflops"]
    assert result["sgemm_share"] == pytest.approx(share, rel=1e-6)
    assert result["state_bytes_per_coordinate"] == state_bytes
    assert result["adam_state_bytes_per_coordinate"] == 8
    positive = ("adam_ns_per_coordinate", "copy_bytes_per_second", "build_seconds")
    for name in (*positive, "times_adam", "first_call_seconds", "adam_first_call_seconds"):
        assert result[name] > 0
    if Path("/proc/self/clear_refs").exists():
        for name in ("scratch_bytes", "steady_scratch_bytes"):
            assert 0 <= result[name] < 1e9
        per_coordinate = result["scratch_bytes"] / result["coordinates"]
        assert result["scratch_bytes_per_coordinate"] == per_coordinate


def test_steps_of_learned_optimizers_are_measured(tmp_path):
    path = tmp_path / "speed.json"
    finished = run(
        *QUICK,
        "--what=apply",
        "--backend=tensorflow",
        "--rule=coordinatewise_lstm",
        "--rule=rnnprop",
        "--coordinates=50",
        "--variables=3",
        f"--json={path}",
    )
    assert finished.returncode == 0, finished.stderr
    progress = [line for line in finished.stderr.splitlines() if line.startswith("[")]
    case = "--backend=tensorflow --rule={} --coordinates=50 --variables=3 --columns=0"
    case += " --state_dtype=float32"
    assert progress[0] == f"[1/2] {case.format('coordinatewise_lstm')}"
    assert progress[1].startswith(f"[2/2] {case.format('rnnprop')}  (about 0:")

    content = json.loads(path.read_text())
    assert (content["what"], content["threads"]) == ("apply", 1)
    lstm, rnnprop = content["results"]
    names = ("backend", "rule", "coordinates", "variables", "state_dtype")
    assert [lstm[name] for name in names] == [
        "tensorflow",
        "coordinatewise_lstm",
        50,
        3,
        "float32",
    ]
    assert lstm["backend_version"] == content["versions"]["tensorflow"]
    # Matrix products of a 2x20 LSTM with two inputs: 2 operations a weight. Its state: hidden and
    # cell, 4 bytes each.
    check_applied(lstm, 2 * (80 * (2 + 20) + 80 * (20 + 20) + 20), 4 * 2 * (20 + 20))
    # RNNprop keeps two moments besides, each with what corrects its bias.
    check_applied(rnnprop, 2 * (80 * (2 + 20) + 80 * (20 + 20) + 20), 4 * (2 * (20 + 20) + 4))

    heading, row, _ = finished.stdout.splitlines()[-3:]
    assert len(heading) == len(row)
    assert heading.split()[:5] == ["backend", "rule", "coordinates", "variables", "ns/coord."]
    speed = f"{lstm['ns_per_coordinate']:.1f}"
    assert row.split()[:5] == ["tensorflow", "coordinatewise_lstm", "50", "3", speed]


def test_presets_are_applied_to_matrices(tmp_path):
    rule = l2l_keras.rules.TensorwiseLSTM(units=4, momenta=((0.9, 0.99),), orthogonal=(0,), seed=0)
    l2l_keras.LearnedOptimizer(rule).save_to_preset(tmp_path / "mine")
    finished = run(
        *QUICK,
        "--what=apply",
        "--backend=tensorflow",
        f"--preset={tmp_path / 'mine'}",
        "--coordinates=60",
        "--columns=5",
        "--variables=3",
        f"--json={tmp_path / 'speed.json'}",
    )
    assert finished.returncode == 0, finished.stderr
    (result,) = json.loads((tmp_path / "speed.json").read_text())["results"]
    assert result["preset"] == str(tmp_path / "mine")
    # A momentum and an average of squares a weight; of each of the three tensors, hidden and cell
    # state, the rate, the steps, how far the last one went and whether it began as zeros.
    state = 4 * (2 * 60 + 3 * (2 * 4 + 4))
    assert result["state_bytes_per_coordinate"] == pytest.approx(state / 60)


def test_steps_are_measured_on_every_backend(tmp_path):
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    path = tmp_path / "speed.json"
    finished = run(
        *QUICK,
        "--what=apply",
        *(f"--backend={backend}" for backend in backends),
        "--coordinates=7",
        "--variables=7",
        "--state_dtype=bfloat16",
        f"--json={path}",
    )
    assert finished.returncode == 0, finished.stderr
    results = json.loads(path.read_text())["results"]
    assert [result["backend"] for result in results] == backends
    for result in results:
        check_applied(result, 2 * (80 * (2 + 20) + 80 * (20 + 20) + 20), 2 * 2 * (20 + 20))
        assert f"{result['backend']} {result['backend_version']}" in finished.stdout


def test_scratch_memory_that_is_not_known_is_a_dash():
    assert benchmark._megabytes(None) == benchmark._bytes(None) == "-"
    assert benchmark._megabytes(1_500_000) == "1.5 MB"


@pytest.mark.parametrize(
    "argument",
    [
        "--problem=cubic",
        "--rounds=0",
        "--seconds=-1",
        "--what=use",
        "--backend=numpy",
        "--rule=adam",
        "--coordinates=0",
        "--variables=0",
        "--state_dtype=float16",
    ],
)
def test_mistakes_are_refused(argument):
    with pytest.raises(flags.IllegalFlagValueError, match=argument):
        benchmark.FLAGS(["l2l-benchmark", argument])


@pytest.fixture(name="parse")
def parse_fixture():
    """Parses flags, for the length of a test."""
    yield lambda *arguments: benchmark.FLAGS(["l2l-benchmark", *arguments])
    for flag in benchmark.FLAGS.get_flags_for_module(benchmark.__name__):
        flag.unparse()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--what=apply", "--coordinates=3", "--variables=4"],
            "as many --coordinates as --variables. Received: 3 and 4",
        ),
        (
            ["--what=apply", "--columns=5000", "--coordinates=10000", "--variables=3"],
            "as many rows as --variables. Received: 2 and 3",
        ),
        (["--what=apply", "--columns=7"], "multiple of --columns. Received: 10000 and 7"),
        (["--what=apply", "--rule=rnnprop", "--preset=quadratic"], "--rule or --preset."),
        (["--what=apply", "--variables=1", "--preset=none"], "Received: 'none'"),
        (
            ["--what=apply", "--problem=quadratic"],
            "--problem is a flag of --what=meta_train. Received: --what=apply",
        ),
        (["--backend=jax"], "--backend is a flag of --what=apply. Received: --what=meta_train"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(arguments, message, parse):
    parse(*arguments)
    with pytest.raises(_console.UserError, match=message) as error:
        benchmark.main(["l2l-benchmark"])
    assert error.value.status == _console.USAGE


def test_a_backend_that_is_not_installed_is_refused(parse, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorflow" or None)
    parse("--what=apply", "--backend=jax")
    with pytest.raises(_console.UserError, match="those installed, tensorflow. Received: jax"):
        benchmark.main(["l2l-benchmark"])


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
