"""What all scripts share: how they start, and how they say that something is wrong.

A script holds its flags in a `flags.FlagValues()` of its own rather than in `flags.FLAGS`, so that
several scripts, which have flags of the same names, can be imported into one program.
"""

from __future__ import annotations

import ast
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import keras
import tensorflow as tf
from absl import app, flags, logging

from l2l_keras import presets, rules, tasks

FAILURE = 1
USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it.
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
    """Something that the user can put right: it ends a script with one line, not a traceback.

    Args:
        message: What is wrong, what was expected and what was received.
        status: Exit status of the script: `FAILURE`, or `USAGE` for what is wrong on the command
            line itself.

    Example:
        >>> raise UserError("Unknown preset. Received: 'x'", USAGE)
        Traceback (most recent call last):
        l2l_keras.scripts._console.UserError: Unknown preset. Received: 'x'
    """

    def __init__(self, message: str, status: int = FAILURE) -> None:
        super().__init__(message)
        self.status = status


def run(main: Callable[[list[str]], None], script_flags: flags.FlagValues) -> NoReturn:
    """Runs a script and exits.

    The exit status is 0 after success and after `--help`, 2 after a mistake on the command line,
    130 after Ctrl-C, and 1 after any other failure. A `UserError` and Ctrl-C print one line on
    standard error.

    Args:
        main: Called with the command line without its flags. The docstring of its module is
            printed by `--help`.
        script_flags: The flags that the script defines.

    Raises:
        SystemExit: Always.

    Example:
        >>> run(main, FLAGS)  # doctest: +SKIP
    """

    def parse(argv: list[str]) -> list[str]:
        if _HELP & set(argv[1:]):
            # Abseil's own --help knows the main module only, which may be a generated one, and
            # exits with status 1.
            module = sys.modules[main.__module__]
            print((module.__doc__ or "").strip())
            print("\nFlags:", script_flags.module_help(module).split("\n", 2)[-1], sep="\n")
            sys.exit(0)
        # Abseil's own flags, such as --verbosity, are flags of every script. Warnings of the
        # libraries are left out by default: what users must know, the script says itself.
        for name in flags.FLAGS:
            flag = flags.FLAGS[name]
            if flag.name not in script_flags:  # A flag with a short name comes twice.
                script_flags[flag.name] = flag
        flags.FLAGS.mark_as_parsed()
        try:
            rest = script_flags(argv)
        except flags.Error as error:
            raise UserError(f"{error} (--help lists the flags)", USAGE) from error
        if flags.FLAGS["verbosity"].using_default_value:
            flags.FLAGS.verbosity = logging.ERROR  # type: ignore[assignment]
        if len(rest) > 1:
            raise UserError(f"Expected flags only. Received: {' '.join(rest[1:])!r}", USAGE)
        return rest

    def checked_main(argv: list[str]) -> None:
        if keras.config.backend() != "tensorflow":
            raise UserError(
                "Scripts need Keras' TensorFlow backend (set KERAS_BACKEND=tensorflow). "
                f"Received: {keras.config.backend()!r}"
            )
        main(argv)

    try:
        app.run(checked_main, flags_parser=parse)
    except UserError as error:
        message, status = str(error), error.status
    except KeyboardInterrupt:
        message, status = "interrupted", INTERRUPTED
    print(f"{Path(sys.argv[0]).stem}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def writable_directory(path: str | os.PathLike[str]) -> Path:
    """Makes a folder where it does not exist, and checks that files can be made in it.

    Args:
        path: The folder; its parents are made as well.

    Returns:
        The folder.

    Raises:
        UserError: If it cannot be made or written to.

    Example:
        >>> writable_directory("report")  # doctest: +SKIP
        PosixPath('report')
    """
    path = Path(path).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Permissions do not tell: the disk may be full or mounted read-only.
        with tempfile.NamedTemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f"Expected a folder that can be written to. Received: {str(path)!r} ({error.strerror})"
        ) from error
    return path


def get_task(
    name: str, data_dir: str | None = None, download: bool = True, options: Sequence[str] = ()
) -> tasks.Task | tasks.Mixture:
    """Returns a task, or a mixture of tasks, by its name; see `l2l_keras.tasks.get`.

    Args:
        name: Name of the task, or where to find one's own.
        data_dir: Folder of data sets, for tasks that read one; None for the default folder.
        download: Whether to download a data set that is missing.
        options: Arguments of the task; see `parse_options`.

    Returns:
        The task.

    Raises:
        UserError: If there is no such task, or its data are missing.

    Example:
        >>> get_task("quadratic").size
        1280
    """
    data_dir = None if data_dir is None else os.path.expanduser(data_dir)
    parsed = parse_options("task_option", options)
    for flag in sorted({"name", "data_dir", "download"} & set(parsed)):
        raise UserError(f"{flag!r} is no option of a task, but a flag.", USAGE)
    try:
        return tasks.get(name, data_dir=data_dir, download=download, **parsed)
    except ValueError as error:
        raise UserError(str(error), USAGE) from error
    except FileNotFoundError as error:
        raise UserError(str(error)) from error


def parse_options(flag: str, options: Sequence[str]) -> dict[str, Any]:
    """Parses options of the form `name=value`.

    Args:
        flag: Name of the flag that they are given by, for messages.
        options: The options; a value is written as in Python, and what is no Python value is a
            string.

    Returns:
        The values by name.

    Raises:
        UserError: If an option is not as described.

    Example:
        >>> parse_options("rule_option", ["units=(20, 20)", "preprocessing=none"])
        {'units': (20, 20), 'preprocessing': 'none'}
    """
    parsed = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier():
            raise UserError(f"Expected --{flag}=name=value. Received: --{flag}={option}", USAGE)
        try:
            parsed[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            parsed[name] = value
    return parsed


def split_label(preset: str) -> tuple[str, str]:
    """Splits `NAME=PRESET` where a preset is given a name.

    Args:
        preset: Name of a shipped preset, or a folder; before it, a name and `=`, or not.

    Returns:
        `(name, preset)`; the name is empty where there is none. What is a folder as it stands is
        taken as such, `=` or not.

    Example:
        >>> split_label("mine=my_rule/preset"), split_label("quadratic")
        (('mine', 'my_rule/preset'), ('', 'quadratic'))
    """
    label, equals, place = preset.partition("=")
    return (label, place) if equals and not os.path.isdir(preset) else ("", preset)


def load_preset(name: str) -> tuple[presets.Rules, dict[str, Any]]:
    """Loads a preset; see `l2l_keras.presets.load_preset`.

    Args:
        name: Name of a shipped preset, or a preset's folder.

    Returns:
        `(rule, card)`.

    Raises:
        UserError: If there is none, or it cannot be loaded.

    Example:
        >>> rule, card = load_preset("quadratic")
    """
    try:
        return presets.load_preset(name)
    except (ValueError, TypeError) as error:  # TypeError: from Keras, of an unknown class.
        raise UserError(str(error), USAGE) from error


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all.

    Args:
        path: The file.
        text: What it shall hold.

    Raises:
        UserError: If it cannot be written.

    Example:
        >>> write_text(Path("settings.json"), "{}")  # doctest: +SKIP
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{str(path)!r} could not be written: {error.strerror}") from error


def set_threads(threads: int) -> None:
    """Limits TensorFlow to a number of processor threads; call it before anything is computed.

    Args:
        threads: Threads within and between operations; 0 leaves TensorFlow its defaults.

    Example:
        >>> set_threads(1)  # doctest: +SKIP
    """
    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def peak_memory() -> int:
    """Returns the largest resident set of this process so far, in bytes.

    Example:
        >>> peak_memory() > 0
        True
    """
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
