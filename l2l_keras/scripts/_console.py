"""What all commands share: how they define flags, start, and report what the user did wrong."""

from __future__ import annotations

import ast
import functools
import os
import resource
import sys
import tempfile
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import keras
from absl import app, flags, logging

import l2l_keras
from l2l_keras import presets, rules

if TYPE_CHECKING:
    from l2l_keras import tasks

RULES = {
    "coordinatewise_lstm": rules.CoordinatewiseLSTM,
    "global_averaging_lstm": rules.GlobalAveragingLSTM,
    "momentum_lstm": rules.MomentumLSTM,
    "ntm_bfgs": rules.NTMBFGS,
    "rnnprop": rules.RNNprop,
    "tensorwise_lstm": rules.TensorwiseLSTM,
}
_HELP = {
    f"{dash}{name}" for dash in ("-", "--") for name in ("?", "h", "help", "helpshort", "helpfull")
}


class UserError(Exception):
    """An error that the user can fix: it ends a command with one line, not with a traceback."""

    status = 1


class UsageError(UserError):
    """A flag is wrong."""

    status = 2


class Interrupted(UserError):
    """The user pressed Ctrl-C."""

    status = 130  # 128 + SIGINT, as shells have it.


def define_in(values: flags.FlagValues) -> Any:
    """Returns absl's functions that define flags, such as `.string`, for the flags of one command.

    Each command has flag values of its own, so that one program can import several commands with
    flags of the same names.
    """
    define = functools.partial(functools.partial, flag_values=values)
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

    `main` is called with the command line without its flags; `--help` prints the docstring of its
    module.
    """

    def parse(argv: list[str]) -> list[str]:
        if _HELP & set(argv[1:]):
            # Abseil's own --help knows the main module only, and exits with status 1.
            module = sys.modules[main.__module__]
            print((module.__doc__ or "").strip())
            print("\nFlags:", script_flags.module_help(module).split("\n", 2)[-1], sep="\n")
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
        if keras.config.backend() != "tensorflow":
            raise UserError(
                "The commands need Keras' TensorFlow backend (set KERAS_BACKEND=tensorflow). "
                f"Received: {keras.config.backend()!r}"
            )
        return rest

    try:
        app.run(main, flags_parser=parse)
    except UserError as error:
        message, status = str(error), error.status
    except KeyboardInterrupt:
        message, status = "interrupted", Interrupted.status
    print(f"{Path(sys.argv[0]).stem}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


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
) -> tasks.Task | tasks.Mixture:
    """Returns a task, or a mixture of tasks, by its name and `name=value` options."""
    parsed = parse_options("task_option", options)
    for flag in sorted({"name", "data_dir", "download"} & set(parsed)):
        raise UsageError(f"{flag!r} is no option of a task, but a flag.")
    try:
        data_dir = data_dir and os.path.expanduser(data_dir)
        return l2l_keras.tasks.get(name, data_dir=data_dir, download=download, **parsed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    except FileNotFoundError as error:
        raise UserError(str(error)) from error


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


def load_preset(name: str) -> tuple[presets.Rules, dict[str, Any]]:
    """Loads the rule and the card of a preset, by its name or folder."""
    try:
        return presets.load_preset(name)
    except (ValueError, TypeError) as error:  # TypeError: from Keras, of an unknown class.
        raise UsageError(str(error)) from error


def peak_memory() -> int:
    """Returns the largest resident set of this process so far, in bytes."""
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
