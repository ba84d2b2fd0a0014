"""How a command ends: its exit code, and one line on stderr when something is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import typer

from convoy.spec.config import ConfigError

from .errors import DeviceError, GraphError

__all__ = ["exit_code_of"]

DEBUG = "CONVOY_DEBUG"
"""Environment variable: if it is set, errors are shown with their tracebacks."""
MAX_MESSAGE = 2000
"""Characters of a message that are shown."""
MAX_WORD = 300
"""Characters of a word, such as a path or a number, that are shown."""
_USAGE_ERROR: Any = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException")


class OutputError(Exception):
    """Standard output takes no more; the cause is the system's error."""


class _Output:
    """Standard output whose errors are told from all others."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise OutputError from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise OutputError from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def exit_code_of(command: Callable[[], int | None]) -> int:
    """Run a command: 0 or what it returns; 1 an error in Convoy itself; 2 the user can mend it; 130 interrupted; 141
    no one reads the output any more.

    Errors are one line on stderr.
    """
    before = sys.stdout
    if before is not None:
        if hasattr(before, "reconfigure"):
            before.reconfigure(errors="backslashreplace")
        sys.stdout = _Output(before)  # type: ignore[assignment]
    try:
        code = command() or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BaseException as error:
        if os.environ.get(DEBUG):
            import traceback

            traceback.print_exc()
        return _exit_code(error)
    finally:
        sys.stdout = before


def _exit_code(error: BaseException) -> int:
    match error:
        case SystemExit():
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        case KeyboardInterrupt() | typer.Abort():
            return 130
        case OutputError():
            with suppress(OSError, ValueError):
                os.dup2(
                    os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
                )  # what is left is not written when the interpreter ends
            return (
                141
                if isinstance(error.__cause__, BrokenPipeError)
                else _refuse(f"standard output cannot be written: {error.__cause__.strerror}")
            )
        case GraphError() | ConfigError() | DeviceError():
            return _refuse(error)
        case OSError():
            return _refuse(f"{error.filename}: {error.strerror}" if error.filename else error)
        case MemoryError():
            return _refuse(
                f"not enough memory ({str(error) or 'no detail'}); take a smaller model or input, or fewer --jobs"
            )
        case RecursionError():
            return _refuse("the input is nested too deeply to be worked on; make it simpler")
        case BrokenExecutor():
            return _refuse("a process that worked on this has died, perhaps for lack of memory; try --jobs 1")
        case _USAGE_ERROR():
            return _refuse(error.format_message())
        case _:
            return _report_bug(error)


def _report_bug(error: BaseException) -> int:
    """One line about an error that no one has thought of; exit code 1."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""
    _refuse(
        f"internal error, {type(error).__name__}{where}: {error}; please report it with what the same command says "
        f"under {DEBUG}=1"
    )
    return 1


def _refuse(error: object) -> int:
    """One line on stderr; exit code 2."""
    words = str(error).split()
    if not os.environ.get(DEBUG):
        words = [
            word if len(word) <= MAX_WORD else f"{word[: MAX_WORD // 2]}...{word[-MAX_WORD // 2 :]}" for word in words
        ]
    text = " ".join(words)
    text = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
    if len(text) > MAX_MESSAGE and not os.environ.get(DEBUG):
        text = f"{text[: MAX_MESSAGE // 4]} ... {text[-3 * MAX_MESSAGE // 4 :]}"
    if sys.stderr is not None:
        sys.stderr.write(f"convoy: {text}\n")
    return 2
