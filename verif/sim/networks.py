"""Small random networks, drawn from a `random.Random`: the same state gives the same network.

The strategies of hypothesis are wider; what they draw also depends on which modules are loaded, and a test must be
replayable alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from convoy.driver.graph.graph import Graph
from convoy.verif.graphs import GraphMaker
from convoy.verif.strategies import LUT_OPTIONS, out_size

__all__ = ["KINDS", "random_network"]


def _source(rng: random.Random, maker: GraphMaker, max_rows: int = 7, max_cols: int = 11, max_c: int = 5) -> int:
    return maker.tensor((1, rng.randint(2, max_rows), rng.randint(2, max_cols), rng.randint(1, max_c)), zero_point=3)


def _conv(rng: random.Random, maker: GraphMaker, source: int, is_depthwise: bool = False, max_kernel: int = 5) -> int:
    """A convolution of any kind on a tensor; its result."""
    _, *sizes, num_ic = maker.tensors[source].shape
    strides, pads = [rng.choice([1, 1, 2, 3]) for _ in sizes], [rng.choice([0, 0, 1, 2, 7]) for _ in range(4)]
    kernel = [rng.randint(1, min(max_kernel, size + sum(pads[2 * n : 2 * n + 2]))) for n, size in enumerate(sizes)]
    num_oc = num_ic * rng.randint(1, 2) if is_depthwise else rng.randint(1, 7)
    outs = [out_size(size, kernel[n], strides[n], 1, *pads[2 * n : 2 * n + 2]) for n, size in enumerate(sizes)]
    shape = (1, *kernel, num_oc) if is_depthwise else (num_oc, *kernel, num_ic)
    weights = maker.weights(shape, num_oc, 3 if is_depthwise else 0, rng.choice([1.0, 0.5, 0.2, 0.05]))
    bias = maker.bias(num_oc, maker.tensors[weights].data.size // num_oc, is_long=is_depthwise)
    return maker.op(
        "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D",
        (source, weights, bias),
        (1, *outs, num_oc),
        pads=tuple(pads),
        stride_h=strides[0],
        stride_w=strides[1],
        dilation_h=1,
        dilation_w=1,
        activation=rng.choice(["NONE", "RELU", "RELU6"]),
    )


def _depthwise(rng: random.Random, maker: GraphMaker, source: int) -> int:
    return _conv(rng, maker, source, is_depthwise=True)


def _large(rng: random.Random, maker: GraphMaker, source: int) -> int:
    return _conv(rng, maker, source, max_kernel=9)


def _fully_connected(rng: random.Random, maker: GraphMaker, source: int) -> int:
    num_ic, num_oc = int(np.prod(maker.tensors[source].shape)), rng.randint(1, 9)
    flat = maker.op("RESHAPE", (source,), (1, num_ic), new_shape=(1, num_ic))
    weights = maker.weights((num_oc, num_ic), num_oc, 0, rng.choice([1.0, 0.3]))
    last = maker.op("FULLY_CONNECTED", (flat, weights, maker.bias(num_oc, num_ic)), (1, num_oc))
    return maker.op("RESHAPE", (last,), (1, 1, 1, num_oc), new_shape=(1, 1, 1, num_oc))


def _pool(rng: random.Random, maker: GraphMaker, source: int) -> int:
    _, *sizes, num_c = maker.tensors[source].shape
    kernel, strides = [rng.randint(1, min(4, size)) for size in sizes], [rng.randint(1, 3) for _ in sizes]
    outs = [(size - taps) // stride + 1 for size, taps, stride in zip(sizes, kernel, strides, strict=True)]
    return maker.op(
        rng.choice(["MAX_POOL_2D", "AVERAGE_POOL_2D"]),
        (source,),
        (1, *outs, num_c),
        padding="VALID",
        filter_h=kernel[0],
        filter_w=kernel[1],
        stride_h=strides[0],
        stride_w=strides[1],
        activation=rng.choice(["NONE", "RELU6"]),
    )


def _fused_pool(rng: random.Random, maker: GraphMaker, source: int) -> int:
    """A 3x3 convolution that keeps the size, and a maximum pool that the NN engine may fuse with it."""
    size = rng.choice([2, 3])
    _, height, width, num_ic = maker.tensors[source].shape
    rows, cols = (
        max(3, extent - (extent % 2 == 0)) if size == 3 else extent + extent % 2 for extent in (height, width)
    )
    pads = (1, 1 + rows - height, 1, 1 + cols - width)
    num_oc = rng.randint(1, 5)
    weights = maker.weights((num_oc, 3, 3, num_ic), num_oc, 0)
    last = maker.op(
        "CONV_2D",
        (source, weights, maker.bias(num_oc, 9 * num_ic)),
        (1, rows, cols, num_oc),
        pads=pads,
        stride_h=1,
        stride_w=1,
        dilation_h=1,
        dilation_w=1,
        activation="NONE",
    )
    return maker.op(
        "MAX_POOL_2D",
        (last,),
        (1, (rows - size) // 2 + 1, (cols - size) // 2 + 1, num_oc),
        padding="VALID",
        filter_h=size,
        filter_w=size,
        stride_h=2,
        stride_w=2,
        activation="NONE",
    )


def _two_operands(rng: random.Random, maker: GraphMaker, source: int) -> int:
    kind = rng.choice(["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"])
    shape = maker.tensors[source].shape
    info = np.iinfo(maker.dtype)
    other_shape = rng.choice([shape, (1, 1, 1, shape[3]), shape])
    data = maker.rng.integers(info.min, info.max + 1, other_shape).astype(maker.dtype)
    quant = maker.tensors[source].quant
    is_same = kind in ("MAXIMUM", "MINIMUM")
    other = maker.tensor(
        other_shape,
        data=data,
        scale=float(quant.scale[0]) if is_same else rng.choice([0.05, 0.02, 0.11]),
        zero_point=int(quant.zero_point[0]) if is_same else None,
    )
    return maker.op(kind, (source, other), shape, **({} if is_same else {"activation": rng.choice(["NONE", "RELU"])}))


def _residual(rng: random.Random, maker: GraphMaker, source: int) -> int:
    """A convolution that keeps the shape and the sum of its result and what it read."""
    shape = maker.tensors[source].shape
    weights = maker.weights((shape[3], 3, 3, shape[3]), shape[3], 0)
    last = maker.op(
        "CONV_2D",
        (source, weights, maker.bias(shape[3], 9 * shape[3])),
        shape,
        pads=(1, 1, 1, 1),
        stride_h=1,
        stride_w=1,
        dilation_h=1,
        dilation_w=1,
        activation="NONE",
    )
    return maker.op("ADD", (last, source), shape, activation=rng.choice(["NONE", "RELU"]))


def _table(rng: random.Random, maker: GraphMaker, source: int) -> int:
    kind = rng.choice(sorted(LUT_OPTIONS))
    return maker.op(kind, (source,), maker.tensors[source].shape, **LUT_OPTIONS[kind])


def _conv_table(rng: random.Random, maker: GraphMaker, source: int) -> int:
    """A convolution and a table on its outputs, which the NN engine does with it."""
    last = _conv(rng, maker, source)
    return maker.op("LEAKY_RELU", (last,), maker.tensors[last].shape, alpha=0.2)


def _pad(rng: random.Random, maker: GraphMaker, source: int) -> int:
    _, height, width, num_c = maker.tensors[source].shape
    top, bottom, left, right = (rng.randint(0, 3) for _ in range(4))
    pads = maker.constant([[0, 0], [top, bottom], [left, right], [0, 0]])
    return maker.op("PAD", (source, pads), (1, height + top + bottom, width + left + right, num_c))


def _transpose(rng: random.Random, maker: GraphMaker, source: int) -> int:
    shape = maker.tensors[source].shape
    order = [0, 2, 1, 3]
    return maker.op("TRANSPOSE", (source, maker.constant(order)), tuple(shape[axis] for axis in order))


def _zoom(rng: random.Random, maker: GraphMaker, source: int) -> int:
    shape = maker.tensors[source].shape
    size = rng.randint(1, 9), rng.randint(1, 9)
    return maker.op(
        "RESIZE_BILINEAR",
        (source, maker.constant(size)),
        (1, *size, shape[3]),
        align_corners=False,
        half_pixel_centers=rng.random() < 0.5,
    )


KINDS: dict[str, Callable[[random.Random, GraphMaker, int], int]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "large kernel": _large,
    "fully connected": _fully_connected,
    "pool": _pool,
    "fused pool": _fused_pool,
    "two operands": _two_operands,
    "residual": _residual,
    "table": _table,
    "fused table": _conv_table,
    "pad": _pad,
    "transpose": _transpose,
    "bilinear": _zoom,
}
"""Each adds one to three operators behind a tensor and gives the result."""
_BYTES_ONLY = ("table", "fused table", "bilinear", "residual", "fully connected")


def random_network(rng: random.Random, kind: str, max_kinds: int = 1) -> Graph:
    """A network that begins with one of `KINDS`, on random values, and goes on with up to `max_kinds` - 1 others."""
    dtypes = (
        [np.int8]
        if kind == "bilinear"
        else [np.int8, np.int8, np.uint8]
        if kind in _BYTES_ONLY
        else [np.int8, np.int8, np.uint8, np.int16]
    )
    maker = GraphMaker(rng.getrandbits(32), rng.choice(dtypes))
    source = last = _source(rng, maker)
    others = [
        other
        for other in KINDS
        if other not in _BYTES_ONLY or (maker.dtype == np.int8) or (other != "bilinear" and maker.dtype != np.int16)
    ]
    for name in [kind, *(rng.choice(others) for _ in range(rng.randrange(max_kinds)))]:
        last = KINDS[name](rng, maker, last)
    return maker.graph([source], [last])
