"""Tests of `l2l-benchmark`: that it measures and writes, not how fast anything is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import l2l_keras
from l2l_keras.scripts import benchmark

COMMAND = [sys.executable, "-m", "l2l_keras.scripts.benchmark"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1])}


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
    finished = run(
        "--rounds=1", "--seconds=0", "--threads=1", "--problem=quadratic", f"--json={path}"
    )
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


@pytest.mark.parametrize("argument", ["--problem=cubic", "--rounds=0", "--seconds=-1"])
def test_mistakes_are_refused(argument):
    with pytest.raises(flags.IllegalFlagValueError, match=argument):
        benchmark.FLAGS(["l2l-benchmark", argument])


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
