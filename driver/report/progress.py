"""What a command shows on stderr while it works: a line that moves on a terminal; elsewhere a line for each long
step, and signs of life.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

__all__ = ["Status", "bar", "restore_interrupt", "spinner"]

QUIET_SECONDS = 30.0
"""Without a terminal, something is said at least this often."""


class Status(Protocol):
    """What `spinner` gives."""

    def __call__(self, text: str) -> None:
        """Change the text that moves."""

    def step(self, text: str) -> None:
        """The same; without a terminal it is a line of its own.

        For steps that take long and are rare, such as compiling a model.
        """


@contextmanager
def bar(text: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar while the block runs; gives a function that sets its text, what is done and the total."""
    with _shown(text, has_bar=True) as shown:
        yield shown.update


@contextmanager
def spinner(text: str) -> Iterator[Status]:
    """A text that moves while the block runs."""
    with _shown(text, has_bar=False) as shown:
        yield shown


def restore_interrupt() -> None:
    """For worker processes: an interrupt ends them without a traceback."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _shown(text: str, has_bar: bool) -> Iterator[_Moving | _Lines]:
    from rich.console import Console

    console = Console(stderr=True)
    shown = _Moving(console, text, has_bar) if console.is_terminal else _Lines(text)
    with shown:
        yield shown


class _Moving:
    """One line of text, a spinner or a bar, and the time."""

    def __init__(self, console, text: str, has_bar: bool):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns: list[ProgressColumn] = [BarColumn(), MofNCompleteColumn()] if has_bar else [SpinnerColumn()]
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            *columns,
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task(text, total=None)

    def __enter__(self) -> _Moving:
        self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._progress.stop()

    def __call__(self, text: str) -> None:
        self._progress.update(self._task, description=text)

    step = __call__

    def update(self, text: str, done: int, total: int) -> None:
        """Text, what is done and the total."""
        self._progress.update(self._task, description=text, completed=done, total=total)


class _Lines:
    """Lines, the text of the moment among them when nothing has been said for `QUIET_SECONDS`."""

    def __init__(self, text: str):
        self._text, self._start = text, time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> _Lines:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def __call__(self, text: str) -> None:
        self._text = text

    def step(self, text: str) -> None:
        """Say it at once."""
        self._text = text
        _say(text)

    def update(self, text: str, done: int, total: int) -> None:
        """Text, what is done and the total."""
        self._text = f"{text} ({done} of {total})" if total else text

    def _live(self) -> None:
        while not self._ended.wait(QUIET_SECONDS):
            _say(f"{self._text}, {time.monotonic() - self._start:.0f} s")


def _say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"convoy: {text}\n")
        sys.stderr.flush()
