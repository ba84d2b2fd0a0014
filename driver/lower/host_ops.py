"""Operators that the host executes: which ones and why, and how. LiteRT's own kernels run them, one operator at a
time, so their results are LiteRT's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Runtime
from convoy.driver.graph.tflite_writer import operator_model
from convoy.driver.litert.process import LiteRT, LiteRTError, LiteRTTimeout, LoadedModel
from convoy.driver.ort.runtime import OrtError
from convoy.driver.ort.unit import OnnxUnit

from .operands import describe

__all__ = ["HOST_KINDS", "HostOp", "OnnxHostOp", "check_host_op", "host_op", "host_reason", "run_host_op"]

HOST_KINDS = {
    "SOFTMAX": "SOFTMAX is not supported by the NPU",
    "DEQUANTIZE": "conversion between number formats at the edge of the network",
}
"""Operators that always go to the host, and why."""
_CONVERSIONS = "DEQUANTIZE", "QUANTIZE"
_STATES = "READ_VARIABLE", "ASSIGN_VARIABLE"
"""Operators on the NPU's memory, which the host does not execute."""
_RANDOM = "RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"
"""Operators that give other results each time, so that nothing could be compared."""
_NODE = re.compile(r"\s*Node number \d+ \(\w+\) failed to \w+\.?")
"""What LiteRT adds to a message; of the only operator in a file it says nothing."""
_NPU_DTYPES = np.dtype(np.int8), np.dtype(np.int16)


def host_reason(graph: Graph, op: Op, npu_kinds: frozenset[str], table_kinds: frozenset[str]) -> str | None:
    """Why the host executes an operator; None if it is left to the NPU, which may still refuse it.

    With `HOST_KINDS` this is the whole rule: operators that the NPU does not know, those with results that are not
    int8, uint8 or int16, and functions of one element that are not of 8 bits. `check_host_op` says which of them
    LiteRT's kernels take.

    Parameters
    ----------
    graph : with int8 for every activation of uint8, as from `signed_view`
    npu_kinds : operators that the NPU knows
    table_kinds : those of them that it computes by a table of 256 bytes
    """
    if op.kind in HOST_KINDS:
        return HOST_KINDS[op.kind]
    if op.kind in _STATES:
        return None
    if op.kind not in npu_kinds:
        return f"{op.kind} is not supported by the NPU"
    dtypes = [graph.tensors[index].dtype for index in op.outputs]
    if op.kind in table_kinds:
        dtypes += [graph.tensors[index].dtype for index in op.inputs[:1]]
        if op.kind in _CONVERSIONS and any(dtype != np.int8 for dtype in dtypes):
            return HOST_KINDS["DEQUANTIZE"]
    foreign = [dtype for dtype in dtypes if dtype not in _NPU_DTYPES]
    if foreign:
        return f"the NPU computes on int8, not on {foreign[0]}"
    if op.kind in table_kinds and np.dtype(np.int16) in dtypes:
        return f"the NPU computes {op.kind} by tables of 256 bytes, which int16 would not fit"
    return None


class OnnxHostOp:
    """An operator of an ONNX network on the host, by onnxruntime's kernels; otherwise as `HostOp`.

    Raises
    ------
    GraphError
        On construction, when it stands for no node of the file.
    """

    remark = ""

    def __init__(self, graph: Graph, op: Op):
        if not isinstance(op.raw, OnnxUnit):
            raise GraphError(f"{describe(graph, op)}: the ONNX file has no such operator")
        self._graph, self._op, self._unit, self._loaded = graph, op, op.raw, op.raw.load()

    def run(self, values: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """As `HostOp.run`."""
        places = {port.place for port in self._unit.inputs}
        inputs = [values[index] if place in places else np.empty(0) for place, index in enumerate(self._op.inputs)]
        try:
            return dict(zip(self._op.outputs, self._unit.run(self._loaded, inputs), strict=True))
        except OrtError as error:
            raise GraphError(f"{describe(self._graph, self._op)}: {error}") from None

    def refusal(self) -> str | None:
        """Nothing: onnxruntime has run the whole network when it was read."""
        return None


def host_op(graph: Graph, op: Op) -> HostOp | OnnxHostOp:
    """An operator of the host, ready to run, by the kernels of the network's own runtime.

    Raises
    ------
    GraphError
        When that runtime cannot be given it.
    """
    return OnnxHostOp(graph, op) if graph.runtime == Runtime.ONNXRUNTIME else HostOp(graph, op)


class HostOp:
    """An operator of the host, ready to run as often as wanted.

    Raises
    ------
    GraphError
        On construction, when it cannot be written as a file for LiteRT.
    """

    def __init__(self, graph: Graph, op: Op):
        self._graph, self._op = graph, op
        self.model, self._inputs = operator_model(graph, op)
        self._kernels = {name: LoadedModel(_PROCESS, self.model, name) for name in ("reference", "ordinary")}
        self.remark = ""
        """What is to be said of the last run, if anything."""

    def run(self, values: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """The operator's outputs by tensor index, in the graph's shapes and dtypes.

        LiteRT's reference kernel computes them. Where it refuses or aborts, LiteRT's ordinary kernel does; `remark`
        tells of it. Neither has more than its time.

        Parameters
        ----------
        values : at least the operator's activations, by tensor index

        Raises
        ------
        GraphError
            When both kernels fail, or give other shapes than the graph has.
        """
        try:
            return self._run([values[index] for index in self._inputs])
        except LiteRTError as error:
            raise GraphError(
                f"{describe(self._graph, self._op)}: LiteRT cannot execute it on the CPU: {error}"
            ) from None

    def refusal(self) -> str | None:
        """What LiteRT has against the operator, if anything: it is run on zeros, and if LiteRT minds those, as
        divisors, on ones.
        """
        errors = []
        for fill in (np.zeros, np.ones):
            try:
                self._run(
                    [
                        fill(tensor.shape, tensor.dtype)
                        for tensor in (self._graph.tensors[index] for index in self._inputs)
                    ]
                )
            except LiteRTTimeout as error:
                return str(error)
            except LiteRTError as error:
                errors.append(error)
            else:
                return None
        return str(errors[0])

    def _run(self, inputs: list[np.ndarray]) -> dict[int, np.ndarray]:
        try:
            self.remark, found = "", self._kernels["reference"].run(inputs)
        except LiteRTTimeout:
            raise
        except LiteRTError as error:
            text = _NODE.sub("", str(error))
            self.remark = f"LiteRT's reference kernel fails: {text}; its ordinary kernel ran"
            try:
                found = self._kernels["ordinary"].run(inputs)
            except LiteRTError:
                raise LiteRTError(text) from None
        results = dict(zip(self._op.outputs, found.values(), strict=True))
        for index, value in results.items():
            tensor = self._graph.tensors[index]
            if value.shape != tensor.shape or value.dtype != tensor.dtype:
                raise LiteRTError(
                    f"{tensor.name!r} is {tensor.dtype} {list(tensor.shape)} in the file, but {value.dtype} "
                    f"{list(value.shape)} there"
                )
        return results


_PROCESS = LiteRT()
"""Of all host operators here."""
_refusals: dict[bytes, str | None] = {}
"""By digest of an operator's file, what LiteRT has against it."""


def check_host_op(graph: Graph, op: Op, reason: str) -> None:
    """See to it, while the network is compiled, that an operator which the host executes for some reason will not
    fail at run.

    Raises
    ------
    GraphError
        When LiteRT's kernels do not take the operator, its dtypes or its shapes; names the operator.
    """
    name = describe(graph, op)
    if graph.runtime == Runtime.ONNXRUNTIME:
        host_op(graph, op)
        return
    if op.kind in (*_STATES, *_RANDOM) or _has_subgraph(op):
        raise GraphError(f"{name}: {reason}, and the host does not execute operators with state, chance or subgraphs")
    try:
        made = HostOp(graph, op)
    except GraphError as error:
        raise GraphError(f"{name}: {reason}, and the host cannot execute it: {error}") from None
    digest = sha256(made.model).digest()
    if digest not in _refusals:
        _refusals[digest] = made.refusal()
    if (refusal := _refusals[digest]) is not None:
        raise GraphError(f"{name}: {reason}, and LiteRT cannot execute it on the CPU: {refusal}")


def _has_subgraph(op: Op) -> bool:
    """Does it run another part of its file: WHILE, IF, CALL ...?"""
    tables = (op.raw.record.builtinOptions, op.raw.record.builtinOptions2) if op.raw is not None else ()
    return any("subgraph" in name.lower() for table in tables if table is not None for name in vars(table))


def run_host_op(graph: Graph, op: Op, values: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """`host_op(graph, op).run(values)`."""
    return host_op(graph, op).run(values)
