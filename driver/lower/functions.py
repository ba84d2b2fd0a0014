"""Operators whose results depend on one tensor of bytes, element by element: each such part of a network is a function
of one byte, and what its runtime makes of the 256 values is a table. Likewise sums and products in float of two bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Runtime, Tensor

from .host_ops import run_host_ops
from .lut import LUT_KINDS
from .operands import require
from .tensor_rules import tensor_obstacle

__all__ = [
    "BINARY_KINDS",
    "FLOAT_KINDS",
    "UNARY_KINDS",
    "Function",
    "find_functions",
    "paired",
    "source_of",
    "stored_table",
    "table_of",
    "tabulated",
]

UNARY_KINDS = frozenset(["ABS", "CEIL", "COS", "EXP", "FLOOR", "LOG", "NEG", "RELU_0_TO_1"]) | frozenset(
    ["ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE"]
)
"""Functions of one element without arithmetic of ours."""
BINARY_KINDS = frozenset(["DIV", "FLOOR_DIV", "FLOOR_MOD", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE"])
"""Functions of two elements; of one where the other is constant."""
PAIR_KINDS = frozenset(["ADD", "SUB", "MUL"])
"""What may bring two activations together in float."""
FLOAT_KINDS = UNARY_KINDS | BINARY_KINDS | LUT_KINDS | PAIR_KINDS | {"DEQUANTIZE", "PRELU"}
"""What may stand between DEQUANTIZE and QUANTIZE."""
_LOGIC_KINDS = frozenset(
    ["EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL", "LOGICAL_AND", "LOGICAL_OR"]
) | frozenset(["LOGICAL_NOT", "SELECT", "SELECT_V2", "CAST"])
"""What may stand within a function besides."""
_BYTES = np.dtype(np.int8), np.dtype(np.uint8)


@dataclass(frozen=True)
class Function:
    """Operators that make one tensor of bytes of one or two others, element by element."""

    ops: tuple[Op, ...]
    """In order; the last one writes `target`."""
    sources: tuple[int, ...]
    target: int
    pair: Op | None = None
    """Of two sources: the operator that brings them together; the first source is that of its first operand."""


def find_functions(graph: Graph, kept: Collection[int] = ()) -> tuple[tuple[Function, ...], frozenset[int]]:
    """The functions of one byte in a network that are more than tables one after another, each as long as possible,
    those of two bytes that are sums, differences or products in float, and the positions of the operators that nobody
    needs then.

    What others read of a function's inner results is the source where that is possible; otherwise it is made as before.

    Parameters
    ----------
    kept : indices of operators that belong to no function
    """
    return _Finder(graph, kept).find()


class _Finder:
    def __init__(self, graph: Graph, kept: Collection[int]):
        self.graph = graph
        self.makers = {index: position for position, op in enumerate(graph.ops) for index in op.outputs}
        self.is_elementwise = [op.index not in kept and _is_elementwise(graph, op) for op in graph.ops]
        self.sources: dict[int, list[int]] = {}
        """By tensor, those that it is a function of, nearest first: itself, and what all ways to it lead through."""
        for op, is_elementwise in zip(graph.ops, self.is_elementwise, strict=True):
            if is_elementwise and _has_one_shape(graph, op):
                first, *others = (self._sources(index) for index in self._acts(op))
                common = [index for index in first if all(index in other for other in others)]
                self.sources[op.outputs[0]] = [op.outputs[0], *common]

    def _sources(self, tensor: int) -> list[int]:
        return self.sources.get(tensor, [tensor])

    def _acts(self, op: Op) -> list[int]:
        return [index for index in op.inputs if self.graph.tensors[index].data is None]

    def _is_byte(self, tensor: int) -> bool:
        return self.graph.tensors[tensor].dtype in _BYTES

    def find(self) -> tuple[tuple[Function, ...], frozenset[int]]:
        wanted = set(self.graph.outputs)
        for op, is_elementwise in zip(self.graph.ops, self.is_elementwise, strict=True):
            if not is_elementwise or len(self._sources(op.outputs[0])) == 1:
                wanted.update(op.inputs)
        while True:
            functions, needed, idle = self._cover(wanted)
            if needed <= wanted:
                return functions, idle
            wanted |= needed

    def _cover(self, wanted: set[int]) -> tuple[tuple[Function, ...], set[int], frozenset[int]]:
        """Functions that begin at `wanted` tensors where they can, what is read then, and the positions of operators
        that are idle.
        """
        functions, needed, idle = list[Function](), set(self.graph.outputs), set[int]()
        for position in reversed(range(len(self.graph.ops))):
            op = self.graph.ops[position]
            if not self.is_elementwise[position]:
                needed.update(op.inputs)
            elif op.outputs[0] not in needed:
                idle.add(position)
            elif (found := self._function(op.outputs[0], wanted)) is not None:
                functions.append(found)
                needed.update(found.sources)
            else:
                needed.update(op.inputs)
        return tuple(reversed(functions)), needed, frozenset(idle)

    def _function(self, target: int, wanted: set[int]) -> Function | None:
        if not self._is_byte(target):
            return None
        sources = [index for index in self._sources(target)[1:] if self._is_byte(index)]
        if not sources:
            return self._pair(target)
        source = next((index for index in sources if index in wanted), sources[-1])
        ops = self._between({source}, target)
        return None if self._is_chain(ops) else Function(ops, (source,), target)

    def _between(self, sources: Collection[int], target: int) -> tuple[Op, ...]:
        """The operators that a tensor depends on behind the sources."""
        positions, todo = set[int](), [target]
        while todo:
            index = todo.pop()
            if index not in sources and self.makers[index] not in positions:
                positions.add(self.makers[index])
                todo += self._acts(self.graph.ops[self.makers[index]])
        return tuple(self.graph.ops[position] for position in sorted(positions))

    def _is_chain(self, ops: Sequence[Op]) -> bool:
        """Is each operator a function of one byte by itself, and of one operand?"""
        acts = [self._acts(op) for op in ops]
        return all(len(inputs) == 1 and self._is_byte(inputs[0]) for inputs in acts)

    def _pair(self, target: int) -> Function | None:
        """A function of two bytes, with functions in float of either of them and behind what brings them together."""
        pair = self.makers[target]
        while len(acts := self._acts(self.graph.ops[pair])) == 1:
            if self._is_byte(acts[0]) or not self._is_inner(acts[0]):
                return None
            pair = self.makers[acts[0]]
        op = self.graph.ops[pair]
        if self.graph.runtime != Runtime.LITERT or op.kind not in PAIR_KINDS or not all(map(self._is_inner, acts)):
            return None
        nearest = [next((index for index in self._sources(act) if self._is_byte(index)), None) for act in acts]
        a, b = nearest
        if a is None or b is None or a == b or {a, b} & set(acts):
            return None
        return Function(self._between({a, b}, target), (a, b), target, op)

    def _is_inner(self, tensor: int) -> bool:
        return tensor in self.makers and self.is_elementwise[self.makers[tensor]]


def _is_elementwise(graph: Graph, op: Op) -> bool:
    """Does an operator compute each element of its result from the same element of activations, and of constants of
    one value?
    """
    if op.part is not None or op.host_reason or len(op.outputs) != 1 or not op.inputs or min(op.inputs) < 0:
        return False
    target, tensors = graph.tensors[op.outputs[0]], [graph.tensors[index] for index in op.inputs]
    if any(tensor.is_dynamic or tensor.is_variable for tensor in (target, *tensors)) or not target.shape:
        return False
    acts = [tensor for tensor in tensors if tensor.data is None]
    if not acts or not all(_is_uniform(tensor) for tensor in tensors if tensor.data is not None):
        return False
    if any(len(tensor.shape) != len(target.shape) for tensor in acts):
        return False
    if graph.runtime == Runtime.ONNXRUNTIME:
        return "table" in op.options or "pairs" in op.options
    return op.kind in FLOAT_KINDS | _LOGIC_KINDS and tensor_obstacle(graph, op) is None


def _has_one_shape(graph: Graph, op: Op) -> bool:
    acts = [graph.tensors[index] for index in op.inputs if graph.tensors[index].data is None]
    return all(tensor.shape == graph.tensors[op.outputs[0]].shape for tensor in acts)


def _is_uniform(tensor: Tensor) -> bool:
    """Have all elements of a constant one value?"""
    flat = tensor.values.reshape(-1)
    has_one_scale = tensor.quant is None or tensor.quant.scale.size == 1
    return flat.size > 0 and flat.dtype.kind in "biuf" and has_one_scale and bool((flat == flat[0]).all())


def tabulated(graph: Graph, function: Function) -> tuple[np.ndarray, str]:
    """The table of a function of one byte as the NPU has it, as from `stored_table`, and what is to be said of it:
    kernels may refuse some values, as negative ones for a root; the table has 0 for those.

    Raises
    ------
    GraphError
        When the network's runtime does not compute it.
    """
    source, target = graph.tensors[function.sources[0]], graph.tensors[function.target]
    if graph.runtime == Runtime.ONNXRUNTIME:
        return _looked_up(graph, function), ""
    inputs = np.arange(256, dtype=np.uint8).view(source.dtype)
    try:
        outputs, note = _run(graph, function, inputs), ""
    except GraphError:
        valid, outputs = _valid(graph, function, inputs), np.zeros(256, target.dtype)
        if not valid:
            raise
        outputs[valid] = _run(graph, function, inputs[valid])
        note = "inputs that LiteRT refuses give 0"
    return stored_table(outputs, source, target), note


def source_of(graph: Graph, op: Op) -> int | None:
    """The tensor of bytes that the only result of an operator is a function of, element by element; None if there is
    none.
    """
    is_table = op.kind == "TABLE" and not op.host_reason
    if not is_table and (op.part is not None or not _is_elementwise(graph, op) or not _has_one_shape(graph, op)):
        return None
    acts = {index for index in op.inputs if graph.tensors[index].data is None}
    is_byte = all(graph.tensors[index].dtype in _BYTES for index in (*acts, *op.outputs))
    return acts.pop() if len(acts) == 1 and is_byte else None


def table_of(graph: Graph, op: Op) -> np.ndarray:
    """The table of an operator that `source_of` finds a source of, as from `tabulated`.

    Raises
    ------
    GraphError
        When the network's runtime does not compute it.
    """
    (source,) = {index for index in op.inputs if graph.tensors[index].data is None}
    if "table" in op.options:
        return op.options["table"]
    return tabulated(graph, Function((op,), (source,), op.outputs[0]))[0]


def stored_table(table: np.ndarray, source: Tensor, target: Tensor) -> np.ndarray:
    """A table of the NPU: int8 (256,), for values of uint8 less 128, from the outputs for the bytes 0 .. 255."""
    found = table.view(np.uint8)
    if source.dtype != np.int8:
        found = np.roll(found, 128)
    return (found if target.dtype == np.int8 else found ^ 0x80).view(np.int8)


def _looked_up(graph: Graph, function: Function) -> np.ndarray:
    """What tables and pairs of onnxruntime's results make of all bytes."""
    values = {function.sources[0]: np.arange(256, dtype=np.uint8).view(np.int8)}

    def value(index: int) -> np.ndarray:
        tensor = graph.tensors[index]
        if tensor.data is None:
            return values[index]
        constant = tensor.data.reshape(-1)[:1]
        return (constant ^ 0x80).view(np.int8) if tensor.dtype == np.uint8 else constant

    for op in function.ops:
        if "pairs" in op.options:
            a, b = (value(index).astype(int) + 128 for index in op.inputs)
            values[op.outputs[0]] = op.options["pairs"][a, b]
        else:
            require(len(op.inputs) == 1, f"{len(op.inputs)} operands of a table")
            values[op.outputs[0]] = op.options["table"][value(op.inputs[0]).view(np.uint8)]
    return values[function.target]


def paired(graph: Graph, function: Function) -> np.ndarray:
    """What LiteRT's reference kernels make of each pair of bytes of a function of two: int8 (256, 256), both from -128
    (uint8 less 128), and so are the results.

    Raises
    ------
    GraphError
        When they do not compute it.
    """
    inputs = [
        axis.reshape(-1) if graph.tensors[index].dtype == np.uint8 else (axis.reshape(-1) ^ 0x80).view(np.int8)
        for index, axis in zip(function.sources, np.indices((256, 256)).astype(np.uint8), strict=True)
    ]
    found = _run(graph, function, *inputs).reshape(256, 256)
    return (found ^ 0x80).view(np.int8) if found.dtype == np.uint8 else found


def _run(graph: Graph, function: Function, *values: np.ndarray) -> np.ndarray:
    """What LiteRT's reference kernels make of `values` (n,) of each source."""
    tensors, size = list(graph.tensors), len(values[0])
    for index in {index for op in function.ops for index in (*op.inputs, *op.outputs)}:
        tensor, ones = tensors[index], (1,) * len(tensors[index].shape)
        if tensor.data is None:
            tensors[index] = replace(tensor, shape=(*ones[1:], size))
        else:
            tensors[index] = replace(tensor, shape=ones, data=tensor.data.reshape(-1)[:1].reshape(ones))
    alone = Graph("table", tuple(tensors), function.ops, (), ())
    given = {index: value.reshape(tensors[index].shape) for index, value in zip(function.sources, values, strict=True)}
    return run_host_ops(alone, function.ops, given)[function.target].reshape(-1)


def _valid(graph: Graph, function: Function, inputs: np.ndarray) -> list[int]:
    """Places of the values that the kernels take one by one."""

    def is_taken(value: np.ndarray) -> bool:
        try:
            _run(graph, function, value)
        except GraphError:
            return False
        return True

    return [place for place in range(len(inputs)) if is_taken(inputs[place : place + 1])]
