"""Functions of one element as tables that LiteRT itself computes: its reference kernels are run on all 256 values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Tensor

from .elementwise import product_table
from .host_ops import run_host_ops
from .lut import LUT_KINDS
from .operands import require
from .parts import Expansion, Parts

__all__ = ["FLOAT_KINDS", "TABLE_EXPANSIONS", "stored_table"]

_UNARY = frozenset(["ABS", "CEIL", "COS", "EXP", "FLOOR", "LOG", "NEG", "RELU_0_TO_1"]) | frozenset(
    ["ROUND", "RSQRT", "SIGN", "SIN", "SQRT", "SQUARE"]
)
"""Functions of one element without arithmetic of ours."""
_BINARY = frozenset(["DIV", "FLOOR_DIV", "FLOOR_MOD", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE"])
"""Functions of two elements; of one where the other is constant."""
FLOAT_KINDS = _UNARY | _BINARY | LUT_KINDS | {"ADD", "SUB", "MUL", "DEQUANTIZE", "PRELU"}
"""What may stand between DEQUANTIZE and QUANTIZE."""
_BYTES = np.dtype(np.int8), np.dtype(np.uint8)


def _signed(tensor: Tensor) -> bool:
    return tensor.dtype == np.int8


def stored_table(table: np.ndarray, source: Tensor, target: Tensor) -> np.ndarray:
    """A table of the NPU: int8 (256,), for values of uint8 less 128, from the outputs for the bytes 0 .. 255."""
    found = table.view(np.uint8)
    if not _signed(source):
        found = np.roll(found, 128)
    return (found if _signed(target) else found ^ 0x80).view(np.int8)


def _variable(parts: Parts, op: Op) -> int:
    """Number of the only input that is no constant of one element.

    Raises
    ------
    GraphError
        When there is another one.
    """
    others = [
        number
        for number, index in enumerate(op.inputs)
        if index >= 0 and ((data := parts[index].data) is None or data.size != 1)
    ]
    require(len(others) == 1 and parts[op.inputs[others[0]]].data is None, "an operator on more than one tensor")
    return others[0]


def _run(parts: Parts, chain: Sequence[Op], shape: tuple[int, ...], values: np.ndarray) -> np.ndarray:
    """What operators one after another make of `values`, which are put in place of the first one's activation."""
    tensors, numbers = list(parts.graph.tensors), [_variable(parts, op) for op in chain]
    for op, number in zip(chain, numbers, strict=True):
        for index in (op.inputs[number], op.outputs[0]):
            tensors[index] = replace(tensors[index], shape=shape)
    graph = Graph("table", tuple(tensors), tuple(chain), (), ())
    for op, number in zip(chain, numbers, strict=True):
        values = run_host_ops(graph, [op], {op.inputs[number]: values})[op.outputs[0]]
    return values


def _table(parts: Parts, chain: Sequence[Op]) -> tuple[np.ndarray, str]:
    """The outputs for the bytes 0 .. 255, and what is to be said of them: the kernels may refuse some values, as
    negative ones for a root; the table has 0 for those.
    """
    source = parts[chain[0].inputs[_variable(parts, chain[0])]]
    inputs = np.arange(256, dtype=np.uint8).view(source.dtype)
    try:
        return _run(parts, chain, (256,), inputs), ""
    except GraphError:
        valid, outputs = _valid(parts, chain, inputs), np.zeros(256, parts[chain[-1].outputs[0]].dtype)
        if not valid:
            raise
        outputs[valid] = _run(parts, chain, (len(valid),), inputs[valid])
        return outputs, "inputs that LiteRT refuses give 0"


def _valid(parts: Parts, chain: Sequence[Op], inputs: np.ndarray) -> list[int]:
    """Places of the values that the kernels take one by one."""

    def is_taken(value: np.ndarray) -> bool:
        try:
            _run(parts, chain, (1,), value)
        except GraphError:
            return False
        return True

    return [place for place in range(len(inputs)) if is_taken(inputs[place : place + 1])]


def _add_table(parts: Parts, chain: Sequence[Op]) -> bool:
    """Put the table of a chain in its place."""
    source, target = chain[0].inputs[_variable(parts, chain[0])], chain[-1].outputs[0]
    if not {parts[source].dtype, parts[target].dtype} <= set(_BYTES) or parts[source].shape != parts[target].shape:
        return False
    outputs, note = _table(parts, chain)
    parts.add("TABLE", (source,), (target,), table=stored_table(outputs, parts[source], parts[target]))
    parts.note(note)
    return True


def _unary(parts: Parts) -> bool:
    """A table of all 256 results, if other operands than one are constants of one element."""
    return _add_table(parts, [parts.op])


def _float_chain(parts: Parts) -> bool:
    """Operators in float between DEQUANTIZE and QUANTIZE are one table."""
    makers = {index: op for op in parts.graph.ops for index in op.outputs}
    chain = [parts.op]
    while chain[0].kind != "DEQUANTIZE":
        index = chain[0].inputs[_variable(parts, chain[0])]
        maker, readers = makers.get(index), [op for op in parts.graph.ops if index in op.inputs]
        is_inner = len(readers) == 1 and index not in parts.graph.outputs
        if maker is None or not is_inner or maker.kind not in FLOAT_KINDS:
            return False
        chain.insert(0, maker)
    if not _add_table(parts, chain):
        return False
    parts.absorbed |= {op.index for op in chain[:-1]}
    return True


def _prelu(parts: Parts) -> bool:
    """A table for one slope; with several, the larger one of the positive part, a table, and of the product with the
    slopes. Of its negative part where the positive one is not the larger one everywhere.
    """
    (x, slopes), (y,) = parts.op.inputs, parts.op.outputs
    alpha = parts[slopes]
    values = np.unique(alpha.values)
    require(parts[x].dtype in _BYTES and parts[x].dtype == parts[y].dtype == alpha.dtype, "PRELU of other dtypes")
    inputs = np.broadcast_to(np.arange(256, dtype=np.uint8).view(parts[x].dtype)[:, None], (256, len(values)))
    wanted = _slopes(parts, values, np.ascontiguousarray(inputs))
    if len(values) == 1:
        parts.add("TABLE", (x,), (y,), table=stored_table(wanted[:, 0], parts[x], parts[y]))
        return True
    low, zero = np.iinfo(alpha.dtype).min, int(parts[x].quantisation.zero_point[0])
    is_positive = inputs[:, 0].astype(int) >= zero
    positive = np.where(is_positive, wanted[:, 0], low).astype(alpha.dtype)
    product = product_table(parts[x].quantisation, alpha.quantisation, parts[y].quantisation, values)
    part, source = parts.tensor(parts[y].shape, y), x
    is_whole = np.array_equal(np.maximum(product, positive[:, None]), wanted)
    if not is_whole:
        source = parts.tensor(parts[x].shape, x)
        negative = np.minimum(inputs[:, 0].astype(int), zero).astype(alpha.dtype)
        parts.add("TABLE", (x,), (source,), table=stored_table(negative, parts[x], parts[x]))
        product = product[negative.view(np.uint8)]
        require(
            np.array_equal(np.maximum(product, positive[:, None]), wanted),
            "LiteRT's PRELU is not made of a table, a product and a maximum",
        )
    parts.add("TABLE", (x,), (part,), table=stored_table(positive, parts[x], parts[y]))
    products = parts.tensor(parts[y].shape, y)
    parts.add("MUL", (source, slopes), (products,), activation="NONE")
    parts.add("MAXIMUM", (products, part), (y,))
    return True


def _slopes(parts: Parts, values: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """LiteRT's PRELU of `inputs` (256, n) with the slopes `values` (n,)."""
    tensors, (x, slopes), (y,) = list(parts.graph.tensors), parts.op.inputs, parts.op.outputs
    shape = 1, 256, 1, len(values)
    tensors[x], tensors[y] = (replace(tensors[index], shape=shape) for index in (x, y))
    tensors[slopes] = replace(tensors[slopes], shape=(1, 1, len(values)), data=values.reshape(1, 1, -1))
    graph = Graph("slopes", tuple(tensors), (parts.op,), (), ())
    return run_host_ops(graph, [parts.op], {x: inputs.reshape(shape)})[y].reshape(inputs.shape)


TABLE_EXPANSIONS: dict[str, tuple[Expansion, ...]] = {
    **dict.fromkeys(_UNARY | (_BINARY - {"MAXIMUM", "MINIMUM"}), (_unary,)),
    "QUANTIZE": (_float_chain,),
    "PRELU": (_prelu,),
}
"""By kind of operator."""
