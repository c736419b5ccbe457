"""Tests of what all commands share: this module is one.

For example: add --number=1
"""

import sys

import pytest
from absl import flags, logging

from l2l_keras.scripts import _console, evaluate

FLAGS = flags.FlagValues()
NUMBER = flags.DEFINE_multi_integer("number", [], "A number to add.", flag_values=FLAGS)
ERROR = flags.DEFINE_enum("error", None, ["user", "interrupt"], "An error.", flag_values=FLAGS)


def main(argv):
    logging.warning("a library's warning")
    if ERROR.value == "user":
        raise _console.UserError("Expected\nsomething else.")
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
    assert "\n  --number: A number to add.;" in output
    assert "--verbosity" not in output


def test_commands_keep_their_flags_to_themselves():
    own = set(evaluate.FLAGS.get_flags_for_module(evaluate.__name__))
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


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
