"""Tests of what all commands share: this module is one.

For example: add --number=1
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags, logging

import l2l_keras
from l2l_keras.scripts import (
    _console,
    benchmark,
    evaluate,
    explain,
    meta_train,
    reproduce,
    transfer,
)

COMMANDS = (benchmark, evaluate, explain, meta_train, reproduce, transfer)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(l2l_keras.__file__).parents[1])}
FLAGS = flags.FlagValues()
NUMBER = _console.define_in(FLAGS).multi_count("number", [], "A number to add.")
ERRORS = ["user", "own code", "interrupt"]
ERROR = _console.define_in(FLAGS, "Testing").enum("error", None, ERRORS, "An error.")


def main(argv):
    logging.warning("a library's warning")
    if ERROR.value == "user":
        raise _console.UserError("Expected\nsomething else.")
    if ERROR.value == "own code":
        error = _console.UserError("It failed.")
        error.place = "  File x\n    code\n"
        raise error
    if ERROR.value == "interrupt":
        raise KeyboardInterrupt
    print(10 // sum(NUMBER.value))


@pytest.fixture(name="run")
def run_fixture(monkeypatch, capsys):
    """Runs the command, and returns its exit status and what it prints."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["add.py", *arguments])
        with pytest.raises(SystemExit) as error:
            _console.run(main, FLAGS)
        return error.value.code, *capsys.readouterr()

    verbosity = flags.FLAGS.verbosity if flags.FLAGS.is_parsed() else None
    yield run
    if verbosity is not None:
        flags.FLAGS.verbosity = verbosity
    FLAGS.unparse_flags()
    for name in ("number", "error"):
        FLAGS[name].unparse()


@pytest.mark.parametrize(
    "arguments, status, message",
    [
        (["--nomber=1"], _console.UsageError.status, "Unknown command line flag 'nomber'"),
        (["--number=x"], _console.UsageError.status, "flag --number=x: invalid"),
        (["1", "2"], _console.UsageError.status, "Expected flags only. Received: '1 2'"),
        (["--error=user"], _console.UserError.status, "Expected something else."),
        (["--error=interrupt"], _console.Interrupted.status, "interrupted"),
    ],
)
def test_an_error_of_the_user_is_one_line(run, arguments, status, message):
    code, output, error = run(*arguments)
    assert (code, output) == (status, "")
    assert error.startswith(f"add: {message}") and error.count("\n") == 1


def test_an_error_in_the_user_s_own_code_comes_with_its_place(run):
    status, output, error = run("--error=own code")
    assert (status, output) == (_console.UserError.status, "")
    assert error == "  File x\n    code\nadd: It failed.\n"


def test_success_prints_only_what_the_command_prints(run):
    assert run("--number=2", "--number=3") == (None, "2\n", "")


def test_other_errors_are_not_hidden(run):
    with pytest.raises(ZeroDivisionError):
        run()


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_the_docstring_and_the_flags_of_the_command(run, flag):
    status, output, error = run(flag)
    assert (status, error) == (0, "")
    assert output.startswith(f"{__doc__.strip()}\n\nFlags:\n")
    assert "\nFlags:\n  --number: A number to add.;" in output
    assert "\n\nTesting:\n  --error: <user|own code|interrupt>: An error.\n" in output
    assert "--verbosity" not in output


def test_version_is_shown(run):
    assert run("--version") == (0, f"add (l2l-keras) {l2l_keras.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_neither_imports_keras(command, flag):
    arguments = [sys.executable, "-X", "importtime", "-m", command.__name__, flag]
    shown = subprocess.run(arguments, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert all(line.startswith("import time:") for line in shown.stderr.splitlines())
    assert "l2l_keras.scripts._console" in imported
    assert not imported & {"keras", "tensorflow", "numpy"}
    assert (l2l_keras.__version__ in shown.stdout) == (flag == "--version")


def test_an_installed_command_does_not_import_keras_either(tmp_path):
    program = tmp_path / "l2l-explain"
    program.write_text(
        "import sys\nfrom l2l_keras.scripts.explain import console\n"
        "try:\n    console()\nfinally:\n    print('keras' in sys.modules)\n"
    )
    arguments = [sys.executable, program, "--version"]
    shown = subprocess.run(arguments, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert shown.stdout == f"l2l-explain (l2l-keras) {l2l_keras.__version__}\nFalse\n"


@pytest.mark.parametrize(
    ("command", "flag", "end"),
    [
        (explain, "--preset=quadratci", "(did you mean 'quadratic'?)"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (benchmark, "--json=/dev/null/file", "'/dev/null' (File exists)"),
                (evaluate, "--task=nothing", "Received: 'nothing'"),
                (meta_train, "--task=nothing", "Received: 'nothing'"),
                (reproduce, "--figure=quadratics --output_dir=/dev/null/x", "(Not a directory)"),
                (transfer, "--study=nothing.py", "Received: 'nothing.py'"),
            ]
        ),
    ],
    ids=lambda value: getattr(value, "__name__", "").rpartition(".")[2],
)
def test_tensorflow_s_own_messages_are_not_shown(command, flag, end):
    """These errors are of the libraries that are loaded by then."""
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    arguments = [sys.executable, "-m", command.__name__, *flag.split()]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    (line,) = ended.stderr.splitlines()
    name = command.__name__.rpartition(".")[2]
    assert line.startswith(f"{name}: ") and line.endswith(end)


def test_flags_name_what_there_is():
    """They are defined without what they name, which takes long to import."""
    assert sorted(_console.TASKS) == l2l_keras.tasks.names()
    for name in _console.RULES.values():
        assert issubclass(getattr(l2l_keras.rules, name), l2l_keras.rules.UpdateRule)
    for command, flag, expected in (
        (evaluate, "baseline", l2l_keras.evaluation.ALL_BASELINES),
        (meta_train, "meta_loss", l2l_keras.meta.META_LOSSES),
        (meta_train, "step_weights", l2l_keras.meta.STEP_WEIGHTS),
        (meta_train, "random_scale_of", l2l_keras.meta.RANDOM_SCALES),
        (reproduce, "figure", [*l2l_keras.reproduction.names(), "all"]),
    ):
        assert set(command.FLAGS[flag].parser.enum_values) == set(expected)


def test_commands_keep_their_flags_to_themselves():
    own = {flag for group in evaluate.FLAGS.flags_by_module_dict().values() for flag in group}
    assert {"preset", "task", "seed"} <= {flag.name for flag in own}
    assert not own & {flags.FLAGS[name] for name in flags.FLAGS}


def test_writable_directory_is_made_with_its_parents_but_not_below_a_file(tmp_path):
    path = _console.writable_directory(str(tmp_path / "a" / "b"))
    assert path == tmp_path / "a" / "b"
    assert list(path.iterdir()) == []
    assert _console.writable_directory(path) == path
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(_console.UserError, match="can be written to. Received: '.*file") as e:
            _console.writable_directory(path)
        assert e.value.status == _console.UserError.status


def test_options_are_python_values_or_strings():
    options = ["units=(20, 20)", "preprocessing=none"]
    parsed = {"units": (20, 20), "preprocessing": "none"}
    assert _console.parse_options("rule_option", options) == parsed
    with pytest.raises(_console.UserError, match="--rule_option=name=value. Received: .*=2x=1"):
        _console.parse_options("rule_option", ["2x=1"])


@pytest.mark.parametrize(
    "name, options, status, message",
    [
        ("nothing", [], _console.UsageError.status, "Unknown task.*quadratic.*'nothing'"),
        ("mnist_mlp", ["data_dir=x"], _console.UsageError.status, "'data_dir' is no option"),
        ("mnist_mlp", [], _console.UserError.status, "'mnist'.*{folder}"),
    ],
)
def test_get_task_says_what_is_wrong(name, options, status, message, tmp_path):
    match = message.format(folder=tmp_path)
    with pytest.raises(_console.UserError, match=match) as error:
        _console.get_task(name, data_dir=str(tmp_path), download=False, options=options)
    assert error.value.status == status


@pytest.mark.parametrize(
    "code, place, message",
    [
        (
            "def make():\n    raise ValueError('a\\nb')",
            "line 2, in make\n    raise ",
            "ValueError: a",
        ),
        (
            "def make():\n    return open('nothing')",
            "line 2, in make\n    return ",
            "FileNotF.*'nothing'",
        ),
        (
            "from l2l_keras.tasks import Quadratic\ndef make():\n    return Quadratic(0)",
            "line 3, in make\n    return Quadratic",
            "ValueError: `dimension` must be",
        ),
        (
            "import no_such_module",
            "line 1, in <module>\n    import ",
            "ModuleNotFoundError: No module",
        ),
        ("def make(:", "line 1\n    def make(:\n", "SyntaxError: invalid syntax"),
    ],
)
def test_an_error_in_the_user_s_task_keeps_its_place(code, place, message, tmp_path):
    path = tmp_path / "task.py"
    path.write_text(code)
    with pytest.raises(_console.UserError, match=f"--task={path}:make: {message}") as error:
        _console.get_task(f"{path}:make")
    assert error.value.place.startswith(f'  File "{path}", {place}')
    assert error.value.place.count("  File ") == 1
    assert error.value.status == _console.UserError.status


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
