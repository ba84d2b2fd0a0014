"""Pools that vanish into the convolution behind them."""

from __future__ import annotations

from convoy.driver.graph.graph import Op

from .operands import require_same_quant
from .parts import Expansion, Parts

__all__ = ["POOL_EXPANSIONS"]


def _strided_source(parts: Parts) -> bool:
    """A convolution of one tap that alone reads a pool of one pixel takes the pool's stride."""
    op, pool = parts.op, _one_pixel_pool(parts, parts.op.inputs[0])
    if pool is None or tuple(parts[op.inputs[1]].shape[1:3]) != (1, 1) or any(op.options.get("pads", ())):
        return False
    require_same_quant(parts[pool.inputs[0]], parts[op.inputs[0]])
    strides = {name: op.options.get(name, 1) * pool.options.get(name, 1) for name in ("stride_h", "stride_w")}
    parts.absorbed.add(pool.index)
    parts.add(op.kind, (pool.inputs[0], *op.inputs[1:]), op.outputs, **op.options | strides)
    parts.note(f"with operator {pool.number} {pool.kind}, whose own result is not stored")
    return True


def _one_pixel_pool(parts: Parts, tensor: int) -> Op | None:
    """The pool of windows of one pixel that makes a tensor which nothing else reads."""
    graph = parts.graph
    pool = next((op for op in graph.ops if tensor in op.outputs), None)
    if pool is None or pool.kind not in ("AVERAGE_POOL_2D", "MAX_POOL_2D") or pool.index in parts.taken:
        return None
    options = pool.options
    is_alone = sum(tensor in op.inputs for op in graph.ops) == 1 and tensor not in graph.outputs
    is_plain = options.get("activation", "NONE") == "NONE" and not any(options.get("pads", ()))
    is_one_pixel = (options["filter_h"], options["filter_w"]) == (1, 1)
    return pool if is_alone and is_plain and is_one_pixel else None


POOL_EXPANSIONS: dict[str, tuple[Expansion, ...]] = {"CONV_2D": (_strided_source,)}
"""By kind of operator; to be tried before others."""
