"""Tests of what all scripts share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

import l2l_keras
from l2l_keras.scripts import _console, evaluate

SCRIPT = '''"""Adds numbers, or fails.

For example: add --number=1
"""
import sys
from absl import flags, logging
from l2l_keras.scripts import _console

FLAGS = flags.FlagValues()
NUMBER = flags.DEFINE_multi_integer("number", [], "A number to add.", flag_values=FLAGS)
FAIL = flags.DEFINE_string("fail", None, "How to fail.", flag_values=FLAGS)

def main(argv):
    logging.warning("a library's warning")
    if FAIL.value == "user":
        raise _console.UserError("Expected\\nsomething else.")
    if FAIL.value == "interrupt":
        raise KeyboardInterrupt
    if FAIL.value == "bug":
        raise ZeroDivisionError
    print(sum(NUMBER.value))

if __name__ == "__main__":
    for case in sys.argv[1].split(";"):
        sys.argv[1:] = case.split()
        for flag in FLAGS.get_flags_for_module(sys.argv[0]):
            flag.unparse()
        print("case", case, flush=True)
        print("case", case, file=sys.stderr, flush=True)
        try:
            _console.run(main, FLAGS)
        except SystemExit as stop:
            print("status", stop.code)
        except ZeroDivisionError:
            print("bug")
'''
CASES = {
    "--number=1 --number=2": ("3\nstatus None", ""),
    "--help": ("help", ""),
    "-h": ("help", ""),
    "--nomber=1": ("status 2", "add: Unknown command line flag 'nomber'"),
    "--number=x": ("status 2", "add: flag --number=x: invalid"),
    "1 2": ("status 2", "add: Expected flags only. Received: '1 2'"),
    "--fail=user": ("status 1", "add: Expected something else."),
    "--fail=interrupt": ("status 130", "add: interrupted"),
    "--fail=bug": ("bug", ""),
}


@pytest.fixture(name="outcomes", scope="module")
def outcomes_fixture(tmp_path_factory):
    """Output and error of all cases, run one after another: every start takes seconds."""
    path = tmp_path_factory.mktemp("scripts") / "add.py"
    path.write_text(SCRIPT)
    command = [sys.executable, str(path), ";".join(CASES)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1]),
        "TF_CPP_MIN_LOG_LEVEL": "3",  # Not our lines.
    }
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=environment
    )
    assert finished.returncode == 0, finished.stderr

    def by_case(text):
        parts = text.split("case ")[1:]
        assert len(parts) == len(CASES), text
        return {case: part.partition("\n")[2] for case, part in zip(CASES, parts, strict=True)}

    return by_case(finished.stdout), by_case(finished.stderr)


@pytest.mark.parametrize("case", [case for case in CASES if "h" not in case[:3]])
def test_run_ends_with_a_status_and_at_most_one_line(case, outcomes):
    output, error = (streams[case] for streams in outcomes)
    expected_output, expected_error = CASES[case]
    assert output.strip() == expected_output
    assert error.startswith(expected_error)
    assert error.count("\n") == bool(expected_error)


@pytest.mark.parametrize("case", ["--help", "-h"])
def test_help_shows_the_docstring_and_the_scripts_own_flags(case, outcomes):
    output, error = (streams[case] for streams in outcomes)
    assert output.startswith("Adds numbers, or fails.\n\nFor example: add --number=1\n\nFlags:\n")
    assert "\n  --number: A number to add.;" in output
    assert "--verbosity" not in output
    assert output.endswith("status 0\n")
    assert not error


def test_scripts_keep_their_flags_to_themselves():
    own = set(evaluate.FLAGS.get_flags_for_module(evaluate.__name__))
    assert {"preset", "task", "seed"} <= {flag.name for flag in own}
    assert not own & {flags.FLAGS[name] for name in flags.FLAGS}


def test_writable_directory_is_made_with_its_parents(tmp_path):
    path = _console.writable_directory(str(tmp_path / "a" / "b"))
    assert path == tmp_path / "a" / "b"
    assert list(path.iterdir()) == []
    assert _console.writable_directory(path) == path


def test_writable_directory_refuses_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(_console.UserError, match="can be written to. Received: '.*file") as e:
            _console.writable_directory(path)
        assert e.value.status == _console.FAILURE


def test_a_label_is_split_from_a_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rate=1").mkdir()
    assert _console.split_label("quadratic") == ("", "quadratic")
    assert _console.split_label("mine=my_rule/preset") == ("mine", "my_rule/preset")
    assert _console.split_label("rate=1") == ("", "rate=1")  # A folder.
    assert _console.split_label("mine=rate=1") == ("mine", "rate=1")


def test_get_task():
    assert _console.get_task("quadratic").name == "quadratic"


def test_get_task_says_what_is_wrong(tmp_path):
    with pytest.raises(_console.UserError, match="Unknown task.*quadratic.*'nothing'") as error:
        _console.get_task("nothing")
    assert error.value.status == _console.USAGE
    with pytest.raises(_console.UserError, match=f"'mnist'.*{tmp_path}") as error:
        _console.get_task("mnist_mlp", data_dir=str(tmp_path), download=False)
    assert error.value.status == _console.FAILURE


def test_get_task_finds_mixtures_too(tmp_path):
    file = tmp_path / "mixture.py"
    file.write_text(
        "from l2l_keras.tasks import Mixture, Quadratic\n"
        "def make():\n"
        "    return Mixture({'a': Quadratic()})\n"
    )
    assert list(_console.get_task(f"{file}:make").members) == ["a"]


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
