"""What a command shows on stderr while it works; nothing when stderr is not a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

__all__ = ["bar", "spinner"]


@contextmanager
def bar(text: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar while the block runs; gives a function that sets its text, what is done and the total."""
    from rich.progress import BarColumn, MofNCompleteColumn

    with _shown(text, BarColumn(), MofNCompleteColumn()) as update:
        yield lambda changed, done, total: update(description=changed, completed=done, total=total)


@contextmanager
def spinner(text: str) -> Iterator[Callable[[str], None]]:
    """A text that moves while the block runs; gives a function that changes it."""
    from rich.progress import SpinnerColumn

    with _shown(text, SpinnerColumn()) as update:
        yield lambda changed: update(description=changed)


@contextmanager
def _shown(text: str, *columns: ProgressColumn) -> Iterator[Callable[..., None]]:
    """One line of text, `columns` and the time; gives the function that updates it."""
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    shown = TextColumn("{task.description}"), *columns, TimeElapsedColumn()
    with Progress(*shown, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        yield lambda **changes: progress.update(task, **changes)
