"""Functions of one element as tables that LiteRT itself computes: its reference kernels are run on all 256 values."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convoy.driver.graph.graph import Graph

from .elementwise import product_table
from .functions import BINARY_KINDS, UNARY_KINDS, Function, stored_table, tabulated
from .host_ops import run_host_ops
from .operands import require
from .parts import Expansion, Parts

__all__ = ["TABLE_EXPANSIONS"]

_BYTES = np.dtype(np.int8), np.dtype(np.uint8)


def _unary(parts: Parts) -> bool:
    """A table of all 256 results, if other operands than one are constants of one element."""
    op, (target,) = parts.op, parts.op.outputs
    acts = [index for index in op.inputs if index >= 0 and ((data := parts[index].data) is None or data.size != 1)]
    require(len(acts) == 1 and parts[acts[0]].data is None, "an operator on more than one tensor")
    (source,) = acts
    if not {parts[source].dtype, parts[target].dtype} <= set(_BYTES) or parts[source].shape != parts[target].shape:
        return False
    table, note = tabulated(parts.graph, Function((op,), (source,), target))
    parts.add("TABLE", (source,), (target,), table=table)
    parts.note(note)
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
    **dict.fromkeys(UNARY_KINDS | (BINARY_KINDS - {"MAXIMUM", "MINIMUM"}), (_unary,)),
    "PRELU": (_prelu,),
}
"""By kind of operator."""
