"""Files that a user names: what is read is a file and of a sane size, what is written takes nothing else's place."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import GraphError

__all__ = ["check_outputs", "is_folder_name", "open_file", "read_file", "write_file", "writing"]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


@contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    """A regular file opened for reading; nothing waits for the other end of a pipe.

    Raises
    ------
    GraphError
        When it does not exist, may not be read, or is a folder, a pipe or a device.
    """
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    except IsADirectoryError:
        raise GraphError(f"{path}: cannot be read: it is a folder; give a file") from None
    except (OSError, ValueError) as error:
        raise GraphError(f"{path}: cannot be read: {_reason(error)}") from None
    with file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise GraphError(f"{path}: cannot be read: it is {_kind(mode)}; give a file")
        yield file


def read_file(path: Path, max_bytes: int) -> bytes:
    """What a regular file holds.

    Raises
    ------
    GraphError
        As from `open_file`, and when there are more than `max_bytes`.
    """
    with open_file(path) as file:
        try:
            content = b"" if os.fstat(file.fileno()).st_size > max_bytes else file.read(max_bytes + 1) or b""
            size = max(len(content), os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise GraphError(f"{path}: cannot be read: {_reason(error)}") from None
    if size > max_bytes:
        raise GraphError(f"{path}: cannot be read: {size:,} bytes; at most {max_bytes:,} are taken")
    return content


def check_outputs(
    read: Iterable[Path | None], files: Mapping[str, Path | None], folders: Mapping[str, Path | None] | None = None
) -> None:
    """Refuse, before any work, what could not be written in the end.

    Parameters
    ----------
    read : files that the command reads; none may be overwritten
    files, folders : the option that names it -> what is to be written, if anything; folders need not exist

    Raises
    ------
    GraphError
        When a path is of the wrong kind, its folder does not exist or may not be written, or two paths are the same
        file.
    """
    taken = {_identity(path): f"{path}, which is read" for path in read if path is not None}
    for option, path in files.items():
        if path is None:
            continue
        _check_output(option, path)
        if not path.exists() or path.is_file():
            if (same := taken.get(_identity(path))) is not None:
                raise GraphError(f"{option} {path}: would overwrite {same}; give another name")
            taken[_identity(path)] = f"the output of {option}"
    for option, path in (folders or {}).items():
        if path is None:
            continue
        existing = next(parent for parent in (path, *path.absolute().parents) if _exists(option, parent))
        if not existing.is_dir():
            raise GraphError(f"{option} {path}: {existing} is not a folder")
        if not os.access(existing, os.W_OK | os.X_OK):
            raise GraphError(f"{option} {path}: no permission to write in {existing}")


def is_folder_name(option: str, path: Path) -> bool:
    """Is this a folder, or, of what does not exist yet, the name of one: without a suffix?

    Raises
    ------
    GraphError
        When the system does not take it as a path.
    """
    return path.is_dir() if _exists(option, path) else not path.suffix


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file, text in UTF-8. What could not be written whole is removed.

    Raises
    ------
    GraphError
        When it cannot be written; the message names it.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with (
        writing(path),
        open(path, "wb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK, 0o666)) as file,
    ):
        os.set_blocking(file.fileno(), True)
        try:
            file.write(data)
            file.flush()
        except OSError:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                with suppress(OSError):
                    path.unlink()
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Errors of the system in the block are errors of writing `path`."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise GraphError(f"{path}: cannot be written: {_reason(error)}") from None


def _check_output(option: str, path: Path) -> None:
    if _exists(option, path):
        if path.is_dir():
            raise GraphError(f"{option} {path}: is a folder; name a file")
        if not os.access(path, os.W_OK):
            raise GraphError(f"{option} {path}: no permission to write it")
        return
    if not path.parent.is_dir():
        raise GraphError(f"{option} {path}: {path.parent} is not a folder; create it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise GraphError(f"{option} {path}: no permission to write in {path.parent}")


def _exists(option: str, path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise GraphError(f"{option} {path}: {_reason(error)}") from None
    return True


def _identity(path: Path) -> object:
    """Equal for two names of one file."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "not a file")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
