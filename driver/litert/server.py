"""LiteRT in processes of its own, as a program that the driver starts: one process waits, and a copy of it serves
each `LiteRT` of the driver.

Standard input is a socket. Over it comes one socket for each copy wanted; when it closes, the program ends. A copy
answers the requests that come over its own socket until that closes; LiteRT aborts on some models or needs too long,
and then the copy dies alone.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RESOLVERS = {"reference": OpResolverType.BUILTIN_REF, "ordinary": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES}
"""LiteRT's sets of kernels by the names that the driver calls them."""
MAX_MEMORY_BYTES = 16 << 30
"""Of each copy; the address space of the libraries is part of it."""
_HANDLE = np.object_
"""The dtype of a variable's handle: LiteRT crashes when asked for its value."""
_UNKNOWN_VERSION = re.compile(r"Didn't find op for builtin opcode '(\w+)' version '(\d+)'")


class Models:
    """The models of one copy; each method is a request."""

    def __init__(self) -> None:
        self._models: dict[int, Interpreter] = {}
        self._last = 0

    def load(self, model: bytes, kernels: str, keeps_tensors: bool) -> tuple[int, list[str]]:
        """The number of a model made ready to run, and its operators whose version was lowered to one that these
        kernels know.
        """
        relabelled: list[str] = []
        if kernels == "reference":
            model, relabelled = known_versions(model)
        interpreter = Interpreter(
            model_content=model,
            experimental_op_resolver_type=RESOLVERS[kernels],
            experimental_preserve_all_tensors=keeps_tensors,
            num_threads=1,
        )
        interpreter.allocate_tensors()
        self._last += 1
        self._models[self._last] = interpreter
        return self._last, relabelled

    def run(self, number: int, inputs: Sequence[np.ndarray], is_all: bool) -> dict[int, np.ndarray]:
        """The model's outputs, or every tensor that has a value, by index."""
        interpreter = self._models[number]
        resized = [
            (detail["index"], values.shape)
            for detail, values in zip(interpreter.get_input_details(), inputs, strict=True)
            if -1 in detail["shape_signature"] and tuple(detail["shape"]) != values.shape
        ]
        for index, shape in resized:
            interpreter.resize_tensor_input(index, shape)
        if resized:
            interpreter.allocate_tensors()
        for detail, values in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(detail["index"], values)
        interpreter.invoke()
        if is_all:
            return _valued(interpreter, has_run=True)[0]
        return {
            detail["index"]: _value(interpreter, detail)
            for detail in interpreter.get_output_details()
            if detail["dtype"] != _HANDLE
        }

    def trial(self, number: int, is_all: bool) -> dict[int, np.ndarray]:
        """As `run`, on values that LiteRT takes: zeros, or ones, or else noise."""
        errors = []
        for inputs in _samples(self._models[number]):
            try:
                return self.run(number, inputs, is_all)
            except (RuntimeError, ValueError) as error:
                errors.append(error)
        raise errors[0]

    def shapes(self, model: bytes) -> tuple[dict[int, tuple[int, ...]], set[int], str]:
        """Shapes of every tensor that has a value once all are allocated; if that does not give each a value, after
        a run; the tensors whose shape depends on the values of that; and why it cannot be run, if so.
        """
        number, _ = self.load(model, "reference", True)
        interpreter = self._models[number]
        values, num_missing = _valued(interpreter)
        found, varying, problem = {index: value.shape for index, value in values.items()}, set(), ""
        if num_missing:
            try:
                found = {index: value.shape for index, value in self.trial(number, True).items()}
                *_, noise = _samples(interpreter)
                others = {index: value.shape for index, value in self.run(number, noise, True).items()}
                varying = {index for index, shape in others.items() if found.get(index) != shape}
                found = others | found
            except (RuntimeError, ValueError) as error:
                problem = _text(error)
        self.drop(number)
        return found, varying, problem

    def drop(self, number: int) -> None:
        """Forget a model."""
        self._models.pop(number, None)


def _samples(interpreter: Interpreter) -> Iterator[list[np.ndarray]]:
    """Values for the inputs: zeros, ones, and noise in the middle of what their types hold."""
    details = interpreter.get_input_details()
    for fill in (np.zeros, np.ones):
        yield [fill(detail["shape"], detail["dtype"]) for detail in details]
    rng = np.random.default_rng(0)
    yield [np.asarray(40 * rng.standard_normal(detail["shape"])).astype(detail["dtype"]) for detail in details]


def _value(interpreter: Interpreter, detail: dict[str, Any]) -> np.ndarray:
    """A tensor after a run; LiteRT gives no value to one without elements."""
    has_elements = np.all(detail["shape"])
    return interpreter.get_tensor(detail["index"]) if has_elements else np.zeros(detail["shape"], detail["dtype"])


def _valued(interpreter: Interpreter, *, has_run: bool = False) -> tuple[dict[int, np.ndarray], int]:
    """The tensors that have a value, by index, and the number of the others; handles of variables are neither. Only
    after a run a tensor may have no elements.
    """
    found, num_missing = {}, 0
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] == _HANDLE:
            continue
        try:
            found[detail["index"]] = _value(interpreter, detail) if has_run else interpreter.get_tensor(detail["index"])
        except ValueError:
            num_missing += 1
    return found, num_missing


def known_versions(model: bytes) -> tuple[bytes, list[str]]:
    """A model whose operators have versions that the registry of the reference kernels knows, and what was changed,
    as text.

    That registry lags behind the ordinary one, for the same kernels: a version that the ordinary one knows is lowered
    to the reference's last one. A version only says which types and options a kernel must know, and the sources of both
    sets, which are the same, know those of the ordinary registry.
    """
    relabelled: dict[tuple[str, int], int] = {}
    while True:
        try:
            Interpreter(model_content=model, experimental_op_resolver_type=RESOLVERS["reference"])
        except ValueError as error:
            found = _UNKNOWN_VERSION.search(str(error))
            if not found or int(found[2]) <= 1:
                raise
            kind, version = found[1], int(found[2])
            if not relabelled:
                Interpreter(model_content=model, experimental_op_resolver_type=RESOLVERS["ordinary"])
            first = next(
                (key for key, lowered in relabelled.items() if key[0] == kind and lowered == version), (kind, version)
            )
            model, relabelled[first] = with_version(model, kind, version, version - 1), version - 1
        else:
            return model, [
                f"{kind} of version {version} as version {lowered}" for (kind, version), lowered in relabelled.items()
            ]


def with_version(model: bytes, kind: str, version: int, lowered: int) -> bytes:
    """A model in which operators of one kind and version have another version."""
    from ai_edge_litert import schema_py_generated as schema

    changed, builtin = bytearray(model), getattr(schema.BuiltinOperator, kind)
    table = schema.Model.GetRootAs(changed, 0)
    for index in range(table.OperatorCodesLength()):
        code = table.OperatorCodes(index)
        if max(code.BuiltinCode(), code.DeprecatedBuiltinCode()) == builtin and code.Version() == version:
            record = code._tab
            struct.pack_into("<i", changed, record.Pos + record.Offset(8), lowered)
    return bytes(changed)


def serve(connection: Connection) -> None:
    """Answer requests (seconds, method, arguments) by (did it work, value or text of the error) until the connection
    closes.

    After so many seconds without an answer a signal ends the process, whatever LiteRT is at.
    """
    models = Models()
    while True:
        try:
            seconds, name, arguments = connection.recv()
        except (EOFError, OSError):
            return
        answer: tuple[bool, Any]
        signal.alarm(seconds)
        try:
            answer = True, getattr(models, name)(*arguments)
        except Exception as error:
            answer = False, _text(error)
        signal.alarm(0)
        connection.send(answer)


def _text(error: Exception) -> str:
    """An error on one line."""
    unknown = _UNKNOWN_VERSION.search(str(error))
    return (
        f"it has no kernel for {unknown[1]} of version {unknown[2]}"
        if unknown
        else " ".join(str(error).split()) or type(error).__name__
    )


def main() -> None:
    """Wait for sockets, and serve each in a copy of this process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(
        resource.RLIMIT_AS, (MAX_MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, hard), hard)
    )
    control = socket.socket(fileno=sys.stdin.fileno())
    while True:
        _, handles, *_ = socket.recv_fds(control, 1, 1)
        if not handles:
            return
        if os.fork() == 0:
            control.close()
            serve(Connection(handles[0]))
            os._exit(0)
        os.close(handles[0])


if __name__ == "__main__":
    main()
