"""Operators that the host executes: which ones and why, and how. LiteRT's own kernels run them, so their results are
LiteRT's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256

import numpy as np

from convoy.driver.graph.fold import RANDOM_KINDS, STATE_KINDS
from convoy.driver.graph.graph import Graph, GraphError, Op, Runtime
from convoy.driver.graph.tflite_group import called_ops, called_subgraphs, group_model
from convoy.driver.litert.process import LiteRT, LiteRTError, LiteRTTimeout, LoadedModel

from .onnx_host import OnnxHostGroup
from .operands import describe

__all__ = ["HOST_KINDS", "HostGroup", "check_host_ops", "host_group", "host_reason", "run_host_ops"]

HOST_KINDS = {"SOFTMAX": "SOFTMAX is not supported by the NPU", "DEQUANTIZE": "conversion between number formats"}
"""Operators that always go to the host, and why."""
_CONVERSIONS = "DEQUANTIZE", "QUANTIZE"
_NODE = re.compile(r"\s*Node number \d+ \(\w+\) failed to \w+\.?")
"""What LiteRT adds to a message; of the only operator in a file it says nothing."""
_SIZE_DTYPES = np.dtype(np.int32), np.dtype(np.int64)
_NPU_DTYPES = np.dtype(np.int8), np.dtype(np.int16)


def host_reason(graph: Graph, op: Op, npu_kinds: frozenset[str], table_kinds: frozenset[str]) -> str | None:
    """Why the host executes an operator; None if it is left to the NPU, which may still refuse it.

    With `HOST_KINDS` this is the whole rule: operators that the NPU does not know, those with results that are not
    int8, uint8 or int16, and functions of one element that are not of 8 bits. `check_host_ops` says which of them
    LiteRT's kernels take.

    Parameters
    ----------
    graph : with int8 for every activation of uint8, as from `signed_view`
    npu_kinds : operators that the NPU knows
    table_kinds : those of them that it computes by a table of 256 bytes
    """
    if op.kind in HOST_KINDS:
        return HOST_KINDS[op.kind]
    if op.kind in STATE_KINDS:
        return None
    if any(graph.tensors[index].is_variable for index in op.inputs if index >= 0):
        return f"{op.kind} keeps a state of its own"
    if any(graph.tensors[index].is_dynamic for index in (*op.inputs, *op.outputs) if index >= 0):
        return "shapes depend on values"
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


class HostGroup:
    """Operators of the host that follow one another, ready to run as often as wanted: one file for LiteRT, so that
    values between them do not leave it.

    Parameters
    ----------
    ops : in an order in which they can be executed
    outputs : what `run` gives, tensors that they write; None: all of these

    Raises
    ------
    GraphError
        On construction, when an operator cannot be written as a file for LiteRT.
    """

    def __init__(self, graph: Graph, ops: Sequence[Op], outputs: Sequence[int] | None = None):
        self._graph, self.ops = graph, tuple(ops)
        made = tuple(dict.fromkeys(index for op in ops for index in op.outputs))
        self._outputs = made if outputs is None else tuple(outputs)
        self._keeps_all = len(ops) > 1 and set(made) == set(self._outputs)
        last = {index for op in ops for index in op.inputs}
        ends = tuple(index for index in made if index not in last) or made
        self._read = {*graph.outputs, *(index for op in graph.ops for index in op.inputs)}
        """What somebody wants; LiteRT may leave other results of a loop without a value."""
        group = group_model(graph, ops, ends if self._keeps_all else self._outputs)
        self.model, self._inputs, self._places = group.data, group.inputs, group.places
        self.has_state = any(graph.tensors[index].is_variable for op in ops for index in op.inputs if index >= 0)
        self._process = LiteRT() if self.has_state else _PROCESS
        self._kernels = {
            name: LoadedModel(self._process, self.model, name, self._keeps_all) for name in ("reference", "ordinary")
        }
        self._started: int | None = None
        """The generation of the process that holds the state."""
        self._alone: list[HostGroup] = []
        """Each operator by itself, once that has been needed."""
        self.remarks: dict[int, str] = {}
        """By operator index, what is to be said of the last run, if anything."""

    def reset_state(self) -> None:
        """Let the operators begin anew, with states of zero."""
        if self.has_state:
            self._kernels["reference"] = LoadedModel(self._process, self.model, "reference", self._keeps_all)
            self._started = None

    def run(self, values: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """The operators' outputs by tensor index, in the graph's shapes and dtypes.

        LiteRT's reference kernels compute them. Where one refuses or aborts, each operator runs by itself, and that one
        by LiteRT's ordinary kernel; `remarks` tells of it. None has more than its time.

        Parameters
        ----------
        values : at least the activations that the operators read from others, by tensor index

        Raises
        ------
        GraphError
            When both kernels fail, or give other shapes than the graph has, or the state of an operator is lost.
        """
        try:
            inputs = [values[index] for index in self._inputs]
            return self._run(inputs)
        except LiteRTError as error:
            raise GraphError(f"{self._name()}: LiteRT cannot execute it on the CPU: {error}") from None
        except _NotTogether:
            return self._run_alone(values)

    def refusal(self) -> str | None:
        """What LiteRT has against the operators, if anything: they are run on zeros, and if LiteRT minds those, as
        divisors, on other values. What may have no end then, or needs sizes that other operators compute, is prepared
        only.
        """
        try:
            if not self._may_try():
                self._kernels["reference"].load()
            else:
                self._run(None)
        except (_NotTogether, LiteRTError) as error:
            return _NODE.sub("", str(error))
        finally:
            self.reset_state()
        return None

    def _may_try(self) -> bool:
        made = {index for op in self._graph.ops for index in op.outputs}
        has_sizes = any(index in made and self._graph.tensors[index].dtype in _SIZE_DTYPES for index in self._inputs)
        return not has_sizes and not any(op.raw is not None and called_subgraphs(op.raw.record) for op in self.ops)

    def _name(self) -> str:
        first = describe(self._graph, self.ops[0])
        return first if len(self.ops) == 1 else f"{first} to {describe(self._graph, self.ops[-1])}"

    def _run(self, inputs: list[np.ndarray] | None) -> dict[int, np.ndarray]:
        """On some values, or on any that LiteRT takes."""
        reference = self._kernels["reference"]
        try:
            self.remarks, found = {}, self._go_on(inputs) if self.has_state else _answer(reference, inputs)
        except LiteRTTimeout:
            raise
        except LiteRTError as error:
            text = _NODE.sub("", str(error))
            if self.has_state:
                raise LiteRTError(text) from None
            if len(self.ops) > 1:
                raise _NotTogether(text) from None
            self.remarks = {self.ops[0].index: f"LiteRT's reference kernel fails: {text}; its ordinary kernel ran"}
            try:
                found = _answer(self._kernels["ordinary"], inputs)
            except LiteRTError:
                raise LiteRTError(text) from None
        results = {index: found[self._places[index]] for index in self._outputs if self._places[index] in found}
        for index in self._outputs:
            if index not in results and index in self._read:
                raise LiteRTError(f"{self._graph.tensors[index].name!r} has no value there")
        for index, value in results.items():
            tensor = self._graph.tensors[index]
            is_other_shape = value.shape != tensor.shape and not tensor.is_dynamic
            if is_other_shape or value.dtype != tensor.dtype:
                raise LiteRTError(
                    f"{tensor.name!r} is {tensor.dtype} {list(tensor.shape)} in the file, but {value.dtype} "
                    f"{list(value.shape)} there"
                )
        return results

    def _go_on(self, inputs: list[np.ndarray] | None) -> dict[int, np.ndarray]:
        """A run from where the last one ended."""
        self._kernels["reference"].load()
        if self._started not in (None, self._process.generation):
            raise LiteRTError("its process has ended, and the state of the operators with it")
        self._started = self._process.generation
        return _answer(self._kernels["reference"], inputs)

    def _run_alone(self, values: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
        """Each operator by itself."""
        self._alone = self._alone or [HostGroup(self._graph, [op]) for op in self.ops]
        self.remarks, known = {}, dict(values)
        for group in self._alone:
            known |= group.run(known)
            self.remarks |= group.remarks
        return {index: known[index] for index in self._outputs}


def _answer(model: LoadedModel, inputs: list[np.ndarray] | None) -> dict[int, np.ndarray]:
    return model.trial() if inputs is None else model.run(inputs)


def host_group(graph: Graph, ops: Sequence[Op], outputs: Sequence[int] | None = None) -> HostGroup | OnnxHostGroup:
    """Operators of the host, ready to run, by the kernels of the network's own runtime; otherwise as `HostGroup`.

    Raises
    ------
    GraphError
        When that runtime cannot be given an operator.
    """
    group = OnnxHostGroup if graph.runtime == Runtime.ONNXRUNTIME else HostGroup
    return group(graph, ops, outputs)


class _NotTogether(Exception):
    """LiteRT fails on several operators, which may yet run one by one."""


_PROCESS = LiteRT()
"""Of all host operators here that keep no state."""
_refusals: dict[bytes, str | None] = {}
"""By digest of a file, what LiteRT has against it."""


def check_host_ops(graph: Graph, ops: Sequence[Op], reasons: Sequence[str]) -> None:
    """See to it, while the network is compiled, that operators which the host executes one after another, for some
    reasons, will not fail at run.

    Raises
    ------
    GraphError
        When LiteRT's kernels do not take an operator, its dtypes or its shapes; names it.
    """
    if graph.runtime == Runtime.ONNXRUNTIME:
        OnnxHostGroup(graph, ops)  # onnxruntime has run them when the network was read
        return
    for op, reason in zip(ops, reasons, strict=True):
        name = describe(graph, op)
        kinds = [op.kind, *(kind for kind, _ in called_ops(op))]
        if chance := next((kind for kind in kinds if kind in RANDOM_KINDS), None):
            raise GraphError(f"{name}: {reason}, and nothing could be compared with {chance}, whose results are random")
        if op.kind in STATE_KINDS or any(kind in (*STATE_KINDS, "VAR_HANDLE") for kind in kinds):
            raise GraphError(f"{name}: {reason}, and the host does not execute operators on the network's variables")
    if len(ops) > 1:
        with suppress(GraphError):
            if _refusal(HostGroup(graph, ops)) is None:
                return
    for op, reason in zip(ops, reasons, strict=True):
        name = describe(graph, op)
        try:
            refusal = _refusal(HostGroup(graph, [op]))
        except GraphError as error:
            raise GraphError(f"{name}: {reason}, and the host cannot execute it: {error}") from None
        if refusal is not None:
            raise GraphError(f"{name}: {reason}, and LiteRT cannot execute it on the CPU: {refusal}")


def _refusal(group: HostGroup) -> str | None:
    digest = sha256(group.model).digest()
    if digest not in _refusals:
        _refusals[digest] = group.refusal()
    return _refusals[digest]


def run_host_ops(graph: Graph, ops: Sequence[Op], values: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """`host_group(graph, ops).run(values)`."""
    return host_group(graph, ops).run(values)
