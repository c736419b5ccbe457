"""What all commands share: how they define flags, start, and report what the user did wrong."""

from __future__ import annotations

import ast
import functools
import importlib
import os
import resource
import shlex
import signal
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags, logging

import l2l_keras

# Names, as those of flags elsewhere: `--help` does not wait for what they name.
RULES = {
    "coordinatewise_lstm": "CoordinatewiseLSTM",
    "global_averaging_lstm": "GlobalAveragingLSTM",
    "momentum_lstm": "MomentumLSTM",
    "ntm_bfgs": "NTMBFGS",
    "rnnprop": "RNNprop",
    "tensorwise_lstm": "TensorwiseLSTM",
}
TASKS = (
    "cifar_convnet",
    "digits_convnet",
    "digits_mlp",
    "general",
    "mnist_mlp",
    "neural_art",
    "quadratic",
)
BASELINES = ["Adam", "RMSprop", "NAG", "SGD", "Adam (default)", "AdamW + cosine"]
_HELP = {
    f"{dash}{name}" for dash in ("-", "--") for name in ("?", "h", "help", "helpshort", "helpfull")
}


class UserError(Exception):
    """An error that the user can fix: it ends a command with one line, not with a traceback."""

    status = 1
    place = ""  # Lines to show before it: where in the user's own code it happened.


class UsageError(UserError):
    """A flag is wrong."""

    status = 2


class Interrupted(UserError):
    """The user pressed Ctrl-C."""

    status = 130  # 128 + SIGINT, as shells have it.


def define_in(values: flags.FlagValues, heading: str = "Flags") -> Any:
    """Returns absl's functions that define flags, such as `.string`, for the flags of one command.

    Each command has flag values of its own, so that one program can import several commands with
    flags of the same names. `--help` shows these flags under the heading.
    """
    # Abseil groups flags by the name of the module that defines them.
    define = functools.partial(functools.partial, flag_values=values, module_name=heading)
    return types.SimpleNamespace(
        boolean=define(flags.DEFINE_boolean),
        count=define(flags.DEFINE_integer, lower_bound=1),
        enum=define(flags.DEFINE_enum),
        float=define(flags.DEFINE_float),
        integer=define(flags.DEFINE_integer),
        list=define(flags.DEFINE_list),
        multi_count=define(flags.DEFINE_multi_integer, lower_bound=1),
        multi_enum=define(flags.DEFINE_multi_enum),
        multi_string=define(flags.DEFINE_multi_string),
        positive=define(flags.DEFINE_float, lower_bound=1e-12),
        string=define(flags.DEFINE_string),
    )


def run(main: Callable[[list[str]], None], script_flags: flags.FlagValues) -> NoReturn:
    """Runs a command and exits: with one line and a status after a `UserError` or Ctrl-C.

    A request to end, as batch systems send it (SIGTERM), is like Ctrl-C.

    `main` is called with the command line without its flags; `--help` prints the docstring of its
    module. Neither it nor `--version` imports Keras.
    """
    program = Path(sys.argv[0]).stem

    def parse(argv: list[str]) -> list[str]:
        if _HELP & set(argv[1:]):
            # Abseil's own --help knows the main module only, and exits with status 1.
            print((sys.modules[main.__module__].__doc__ or "").strip())
            for heading in script_flags.flags_by_module_dict():
                print(script_flags.module_help(heading))
            print("\n  --help, --version: This text, or the version.")
            sys.exit(0)
        if "--version" in argv[1:]:
            print(f"{program} (l2l-keras) {l2l_keras.__version__}")
            sys.exit(0)
        # Every command has Abseil's own flags, such as --verbosity.
        for name in flags.FLAGS:
            flag = flags.FLAGS[name]
            if flag.name not in script_flags:  # A flag with a short name comes twice.
                script_flags[flag.name] = flag
        flags.FLAGS.mark_as_parsed()
        try:
            rest = script_flags(argv)
        except flags.Error as error:
            raise UsageError(f"{error} (--help lists the flags)") from error
        if flags.FLAGS["verbosity"].using_default_value:  # No warnings of the libraries.
            flags.FLAGS.verbosity = logging.ERROR  # type: ignore[assignment]
        if len(rest) > 1:
            raise UsageError(f"Expected flags only. Received: {' '.join(rest[1:])!r}")
        _import_keras()
        return rest

    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # As nohup sets it.
            # The processes that a command runs are ended too.
            signal.signal(ending, signal.default_int_handler)
    try:
        app.run(main, flags_parser=parse)
    except UserError as error:
        place, message, status = error.place, str(error), error.status
    except KeyboardInterrupt:
        place, message, status = "", "interrupted", Interrupted.status
    print(f"{place}{program}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _import_keras() -> None:
    """Imports Keras and TensorFlow, which shall not report that it starts."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] != "0":
        # While it is loaded, its C++ code writes messages whatever this variable says.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
    try:
        import keras

        importlib.import_module("l2l_keras.preset_names")  # Which a user's own code may compile by.
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
    if keras.config.backend() != "tensorflow":
        raise UserError(
            "The commands need Keras' TensorFlow backend (set KERAS_BACKEND=tensorflow). "
            f"Received: {keras.config.backend()!r}"
        )


def writable_directory(path: str | os.PathLike[str]) -> Path:
    """Makes a folder and its parents if needed, and checks that files can be made in it."""
    path = Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Permissions are not enough: the disk may be full or mounted read-only.
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UserError(
            f"Expected a folder that can be written to. Received: {str(path)!r} ({error.strerror})"
        ) from error
    return path


def get_task(
    name: str, data_dir: str | None = None, download: bool = True, options: Sequence[str] = ()
) -> l2l_keras.tasks.Task | l2l_keras.tasks.Mixture:
    """Returns a task, or a mixture of tasks, by its name and `name=value` options."""
    parsed = parse_options("task_option", options)
    for flag in sorted({"name", "data_dir", "download"} & set(parsed)):
        raise UsageError(f"{flag!r} is no option of a task, but a flag.")
    data_dir = data_dir and os.path.expanduser(data_dir)
    get = functools.partial(l2l_keras.tasks.get, data_dir=data_dir, download=download, **parsed)
    return call_users_code("task", get, name)


def call_users_code(flag: str, function: Callable[[str], Any], name: str) -> Any:
    """Calls a function of this package that runs the code that a flag names."""
    try:
        return function(name)
    except Exception as error:
        if place := _place_in_own_code(error):
            failed = UserError(f"--{flag}={name}: {type(error).__name__}: {error}")
            failed.place = place
            raise failed from error
        if isinstance(error, ValueError):
            raise UsageError(str(error)) from error
        if isinstance(error, FileNotFoundError):
            raise UserError(str(error)) from error
        raise


def command_line(program: str, script_flags: flags.FlagValues) -> str:
    """Returns the command that is running as one types it."""
    own = [
        script_flags[name]
        for name in script_flags
        if name not in flags.FLAGS and script_flags[name].present
    ]
    arguments = [argument for flag in own for argument in flag.serialize().split("\n")]
    return shlex.join([program, *arguments])


def _place_in_own_code(error: Exception) -> str:
    """Returns the lines of a traceback that are in the user's code; none if the error is ours."""
    import keras

    # Python's own files, those of this package, and those of the packages installed with Keras.
    folders = (
        Path(os.__file__).parent,
        Path(l2l_keras.__file__).parent,
        Path(keras.__file__).parents[1],
    )
    others = ("<", *(f"{folder}{os.sep}" for folder in folders))
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(others)]
    # A syntax error has its place in its own text.
    syntax = traceback.format_exception_only(error)[:-1] if isinstance(error, SyntaxError) else []
    return "".join([*traceback.format_list(own), *syntax])


def parse_options(flag: str, options: Sequence[str]) -> dict[str, Any]:
    """Parses options `name=value` of a flag: Python values, and strings where they are none."""
    parsed = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"Expected --{flag}=name=value. Received: --{flag}={option}")
        try:
            parsed[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            parsed[name] = value
    return parsed


def load_preset(name: str) -> tuple[l2l_keras.presets.Rules, dict[str, Any]]:
    """Loads the rule and the card of a preset, by its name or folder, or from a hub."""
    try:
        return l2l_keras.presets.load_preset(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except (ImportError, OSError) as error:
        raise UserError(str(error)) from error


def peak_memory() -> int:
    """Returns the largest resident set of this process so far, in bytes."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
