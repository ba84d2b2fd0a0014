"""LiteRT outside this process, so that a model on which it aborts or never ends takes nothing with it."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from convoy.driver.errors import GraphError

__all__ = ["LiteRT", "LiteRTError", "LiteRTTimeout", "LoadedModel", "start_server"]

_SERVER = Path(__file__).with_name("server.py")
_LOCK = RLock()
SECONDS = "CONVOY_LITERT_SECONDS"
"""The environment variable that says how long LiteRT may take for an answer: to load a model, or to run it once."""
_DEFAULT_SECONDS, _MAX_SECONDS = 600, 10_000_000


class LiteRTError(GraphError):
    """LiteRT refuses a model, cannot run it, or has died of it. The message says nothing of which model."""


class LiteRTTimeout(LiteRTError):
    """LiteRT takes longer than it may."""


class _Server:
    """The process of `server.py` that the others are copies of."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", str(_SERVER)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
                )
            except OSError:
                self.control.close()
                raise

    def connect(self) -> Connection:
        """A connection to a new copy."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(self.control, [b"c"], [theirs.fileno()])
            return Connection(ours.detach())

    def stop(self) -> None:
        """End it and its copies."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.control.close()


_servers: dict[int, _Server] = {}
"""By the process that started it: after a fork the parent's is still here, and is not to be touched."""


def start_server() -> _Server:
    """The server of this process, started unless it runs.

    It needs a moment to be ready, in which the caller may do something else.

    Raises
    ------
    LiteRTError
        When it cannot be started.
    """
    with _LOCK:
        server = _servers.get(os.getpid())
        if server is not None and server.process.poll() is not None:
            server.stop()
            server = None
        if server is None:
            try:
                server = _servers[os.getpid()] = _Server()
            except OSError as error:
                raise LiteRTError(f"its process cannot be started: {error.strerror}") from None
        return server


@atexit.register
def _stop_server() -> None:
    if server := _servers.pop(os.getpid(), None):
        server.stop()


class LiteRT:
    """One process of LiteRT and the models in it.

    It starts when first used; after it has died another one takes its place, without any model.
    """

    def __init__(self) -> None:
        self._connection: Connection | None = None
        self._owner = 0
        self.generation = 0
        """Number of processes that there have been."""
        self.dropped: list[tuple[int, int]] = []
        """Generations and numbers of models that nobody needs any more."""

    def request(self, name: str, *arguments: Any) -> Any:
        """The answer of a method of `server.Models`.

        Raises
        ------
        LiteRTError
            When LiteRT refuses, or its process ends without an answer.
        LiteRTTimeout
            When it takes longer than it may.
        GraphError
            When `SECONDS` is not a number of seconds.
        """
        with _LOCK:
            self.connect()
            dropped, self.dropped = self.dropped, []
            for generation, number in dropped:
                if generation == self.generation:
                    self._exchange("drop", (number,))
            has_worked, answer = self._exchange(name, arguments)
        if not has_worked:
            raise LiteRTError(answer)
        return answer

    def connect(self) -> None:
        """See to it that there is a process."""
        if self._connection is None or self._owner != os.getpid() or self._has_died():
            self._connection, self._owner = None, os.getpid()
            try:
                self._connection = start_server().connect()
            except OSError:
                raise LiteRTError("its process ends as it starts") from None
            self.generation += 1

    def _has_died(self) -> bool:
        """Has the process ended between two requests? Then there is something to read: the end."""
        assert self._connection is not None
        try:
            return self._connection.poll()
        except OSError:
            return True

    def _exchange(self, name: str, arguments: tuple) -> tuple[bool, Any]:
        limit = _seconds()
        connection, self._connection = self._connection, None
        assert connection is not None
        started = time.monotonic()
        try:
            connection.send((limit, name, arguments))
            answer = connection.recv()
        except (EOFError, OSError):
            connection.close()
            if time.monotonic() - started >= limit:
                raise LiteRTTimeout(f"it gave no answer within {limit} s; set {SECONDS} to wait longer") from None
            raise LiteRTError("it aborts (its process ended without an answer)") from None
        self._connection = connection
        return answer


def _seconds() -> int:
    text = os.environ.get(SECONDS) or str(_DEFAULT_SECONDS)
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 0 < int(text) <= _MAX_SECONDS):
        raise GraphError(f"{SECONDS}={text}: give whole seconds, 1 to {_MAX_SECONDS:,}")
    return int(text)


class LoadedModel:
    """A model on LiteRT's kernels, in a process that it shares with others; loaded when first needed, and again if
    that process has died since.

    Parameters
    ----------
    kernels : "reference" (BUILTIN_REF), or "ordinary": the optimised ones without delegates
    keeps_tensors : `run` gives every tensor, not only the outputs
    """

    def __init__(self, process: LiteRT, model: bytes, kernels: str = "reference", keeps_tensors: bool = False):
        self._process, self._model, self._kernels, self._keeps_tensors = process, model, kernels, keeps_tensors
        self._place = 0, 0
        self.relabelled: list[str] = []
        """Once loaded: operators whose version was lowered to the last one that these kernels' registry knows, as
        text.
        """

    def load(self) -> None:
        """Make it ready to run.

        Raises
        ------
        LiteRTError
            When LiteRT refuses the model.
        """
        self._process.connect()
        if self._place[0] != self._process.generation:
            number, self.relabelled = self._process.request("load", self._model, self._kernels, self._keeps_tensors)
            self._place = self._process.generation, number

    def run(self, inputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """Outputs, or every tensor that has a value, by index.

        Raises
        ------
        LiteRTError
            When LiteRT cannot run the model, or an input has another shape or dtype.
        """
        with _LOCK:
            self.load()
            return self._process.request(
                "run", self._place[1], [np.asarray(values, order="C") for values in inputs], self._keeps_tensors
            )

    def trial(self) -> dict[int, np.ndarray]:
        """As `run`, on values that LiteRT takes: zeros, or ones, or else noise.

        Raises
        ------
        LiteRTError
            When LiteRT can run the model on none of them; of zeros then.
        """
        with _LOCK:
            self.load()
            return self._process.request("trial", self._place[1], self._keeps_tensors)

    def __del__(self) -> None:
        if self._place[0]:
            self._process.dropped.append(self._place)
