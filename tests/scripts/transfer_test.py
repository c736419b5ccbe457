"""Tests of `l2l-transfer`: whole studies, small."""

import contextlib
import inspect
import io
import json
import os
import runpy
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import l2l_keras
from l2l_keras import folder_lock, presets
from l2l_keras.evaluation import result_files
from l2l_keras.rules import TensorwiseLSTM
from l2l_keras.scripts import _console, transfer
from tests.studies.outcomes import line

FILE = f"""
import keras
import numpy as np
from l2l_keras.studies import Plan, Target
from l2l_keras.tasks import KerasTask

{inspect.getsource(line)}

def make_plan():
    return Plan(line(), 10, {{"steep": Target(line(3.0), 20)}})
"""
SMALL = ("--minutes=0.000001", "--seeds=2", "--tuning_seeds=1", "--baseline=SGD")
PROBLEMS = ["line", "steep"]
ROOT = Path(l2l_keras.__file__).parents[1]


def transfer_here(*arguments):
    """Runs the script in this process."""
    for name in transfer.FLAGS:
        transfer.FLAGS[name].unparse()
    transfer.FLAGS.unparse_flags()
    transfer.main(transfer.FLAGS(["l2l-transfer", *arguments]))


def printed_by(*flags):
    """What the script prints, in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        transfer_here(*flags)
    return printed.getvalue()


@pytest.fixture(name="study", scope="module")
def study_fixture(tmp_path_factory):
    """A finished study: its flags, its folder and what was printed."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "study.py").write_text(FILE)
    presets.save_preset(TensorwiseLSTM(4, seed=0), folder / "start", {"name": "start"})
    flags = (f"--study={folder / 'study.py'}", f"--rule={folder / 'start'}", *SMALL)
    return flags, folder / "out", printed_by(*flags, f"--output_dir={folder / 'out'}")


def test_it_ends_with_a_report_and_a_verdict(study):
    _, folder, printed = study
    results = json.loads((folder / "results.json").read_text())
    assert list(results["problems"]) == PROBLEMS
    assert {r["best_baseline"] for r in results["problems"].values()} == {"SGD"}
    last = printed.splitlines()[-1]
    # An untrained rule, on the easiest of problems.
    done = [line.split(": done") for line in printed.splitlines() if ": done" in line]
    stages = ["tune", "specialise", *(f"run {problem}" for problem in PROBLEMS)]
    assert [stage for stage, _ in done] == stages
    assert [left.endswith(" left)") for _, left in done] == [False, False, True, True]
    assert results["decision"] == "do not adopt" and last.startswith("Do not adopt it. line: ")
    assert str(folder / "report.html") in printed
    assert (folder / "report.html").read_text().count("<svg") >= 4
    optimizer = l2l_keras.LearnedOptimizer.from_preset(folder / "specialised" / "preset")
    assert isinstance(optimizer.rule, TensorwiseLSTM)


def curves(path):
    with np.load(path) as file:
        return file["curves"].tolist()


def test_only_what_is_missing_is_made_again_and_to_the_same_result(study):
    flags, folder, printed = study
    missing = [folder / "runs" / "steep" / f"{name}.npz" for name in ("SGD", "specialised")]
    others = sorted(set(folder.rglob("*.npz")) - set(missing))
    before, times = [curves(path) for path in missing], [path.stat().st_mtime_ns for path in others]
    missing[0].unlink()
    missing[1].write_bytes(b"damaged")
    again = printed_by(*flags, f"--output_dir={folder}")
    assert "steep: SGD: test: final loss" in again and "line: SGD" not in again
    assert again.splitlines()[-1].startswith(printed.splitlines()[-1][:40])
    assert [curves(path) for path in missing] == before
    assert len(times) > 5 and [path.stat().st_mtime_ns for path in others] == times


@pytest.mark.slow
def test_several_jobs_find_the_same(study, tmp_path):
    flags, folder, _ = study
    done = subprocess.run(
        [
            sys.executable,
            *("-m", "l2l_keras.scripts.transfer", *flags),
            *(f"--output_dir={tmp_path}", "--jobs=2"),
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert "steep: SGD: test: final loss" in done.stdout
    paths = sorted(path.relative_to(folder) for path in folder.rglob("runs/*/SGD*.npz"))
    assert [curves(tmp_path / path) for path in paths] == [curves(folder / path) for path in paths]


@pytest.mark.parametrize(
    ("ending", "jobs"),
    [(signal.SIGTERM, 1), pytest.param(signal.SIGINT, 2, marks=pytest.mark.slow)],
)
def test_it_ends_when_asked_to_and_continues_to_the_same_result(study, ending, jobs, tmp_path):
    flags, folder, _ = study
    command = [*flags, f"--output_dir={tmp_path}", f"--jobs={jobs}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "l2l_keras.scripts.transfer", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        # Background jobs of a shell ignore this signal, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # In the middle of the comparisons.
    next(text for text in process.stdout if "line: SGD: test: final loss" in text)
    process.send_signal(ending)
    _, stderr = process.communicate(timeout=300)  # Ends when its own processes have ended, too.
    assert process.returncode == 130 and "Traceback" not in stderr
    (message,) = [text for text in stderr.splitlines() if text.startswith("transfer: ")]
    assert message.startswith("transfer: interrupted; continue with: l2l-transfer --study=")
    assert not (tmp_path / "report.html").exists()
    assert list(tmp_path.rglob("*.tmp*")) == []

    continued = shlex.split(message.partition("l2l-transfer ")[2])
    transfer_here(*[flag for flag in continued if not flag.startswith("--jobs")])
    # Seconds aside; the rule was meta-trained before.
    for name in ("SGD", "specialised", "start"):
        for path in folder.rglob(f"runs/*/{name}*.npz"):
            assert curves(tmp_path / path.relative_to(folder)) == curves(path)
    assert (tmp_path / "report.html").exists()


def test_another_plan_in_its_folder_is_refused_where_it_matters(study, tmp_path):
    flags, folder, _ = study
    other = tmp_path / "other.py"
    other.write_text(FILE.replace("Plan(line(), 10", "Plan(line(2.0), 10"))
    with pytest.raises(_console.UsageError, match="specialised with other settings"):
        transfer_here(f"--study={other}", *flags[1:], f"--output_dir={folder}")


def test_a_folder_in_use_is_left_alone(study, tmp_path):
    flags, *_ = study
    message = f"Another process works in '{tmp_path}': .*; then continue with: l2l-transfer --"
    with folder_lock.locked(tmp_path), pytest.raises(_console.UserError, match=message):
        transfer_here(*flags, f"--output_dir={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_template_is_written_and_never_over_something(tmp_path, capsys):
    path = tmp_path / "study.py"
    transfer_here(f"--init={path}")
    assert f"l2l-transfer --study={path}" in capsys.readouterr().out
    plan = runpy.run_path(str(path))["make_plan"]()
    assert list(plan.problems)[0] == "digits" and len(plan.problems) == 7
    with pytest.raises(_console.UserError, match="does not exist"):
        transfer_here(f"--init={path}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "Expected --study=FILE"),
        (("--study=nowhere.py",), "Expected a Python file that exists"),
        (("--study=l2l_keras.studies:nothing",), "with one of its functions"),
    ],
)
def test_wrong_flags_are_refused(flags, message, tmp_path):
    with pytest.raises(_console.UserError, match=message):
        transfer_here(*flags, f"--output_dir={tmp_path}")


def test_a_result_is_kept_with_what_it_was_made_from(study):
    _, folder, _ = study
    path = folder / "runs" / "line" / "SGD.npz"
    assert result_files.load(path, {"another": "record"}) is None
    assert result_files.load(folder / "missing.npz", {}) is None


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
