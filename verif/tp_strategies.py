"""Hypothesis strategies: operators that the tensor processor makes or rearranges for, one at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from .graphs import GraphMaker
from .strategies import bytes_only, dtypes, seeds

__all__ = [
    "depth_to_space_graphs",
    "pack_graphs",
    "reduce_max_graphs",
    "tp_graphs",
    "transpose_conv_graphs",
    "transpose_graphs",
    "zoom_graphs",
]

shapes = st.tuples(st.integers(1, 16), st.integers(1, 40), st.integers(1, 9))
"""Height, width, channels."""


@st.composite
def transpose_conv_graphs(draw):
    """A transposed convolution of stride 1..4 per axis, kernels smaller and larger than it; outputs of any size that
    gives the inputs; perhaps a table behind it.
    """
    maker = GraphMaker(draw(seeds), draw(bytes_only))
    sizes = draw(st.tuples(st.integers(1, 12), st.integers(1, 24)))
    strides = draw(st.tuples(*[st.integers(1, 4)] * 2))
    kernel = [
        draw(st.one_of(st.integers(1, 4), st.integers(1, 8 if stride == 1 else 9))) for stride in strides
    ]  # as far as pads of 7 reach
    num_ic, num_oc, padding = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from(["SAME", "VALID"]))
    if padding == "SAME":
        outs = [size * stride - draw(st.integers(0, stride - 1)) for size, stride in zip(sizes, strides, strict=True)]
    else:
        outs = [
            (size - 1) * stride + taps + draw(st.integers(0, stride - 1))
            for size, stride, taps in zip(sizes, strides, kernel, strict=True)
        ]
    source = maker.tensor((1, *sizes, num_ic))
    weights = maker.weights((num_oc, *kernel, num_ic), num_oc, 0, draw(st.sampled_from([1.0, 0.3])))
    shape = 1, *outs, num_oc
    inputs = maker.constant(shape), weights, source, *([maker.bias(num_oc, num_ic)] if draw(st.booleans()) else [])
    last = maker.op(
        "TRANSPOSE_CONV",
        inputs,
        shape,
        stride_h=strides[0],
        stride_w=strides[1],
        padding=padding,
        activation=draw(st.sampled_from(["NONE", "RELU", "RELU6"])),
    )
    return maker.graph([source], [maker.op("TANH", (last,), shape) if draw(st.booleans()) else last])


@st.composite
def zoom_graphs(draw):
    """An image resized to any other size, nearest pixels or bilinear (of int8), pixels placed in all three ways."""
    kind = draw(st.sampled_from(["RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"]))
    maker = GraphMaker(draw(seeds), np.int8 if kind == "RESIZE_BILINEAR" else draw(bytes_only))
    height, width, num_c = draw(shapes)
    size = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    source = maker.tensor((1, height, width, num_c))
    place = draw(st.sampled_from(["", "align_corners", "half_pixel_centers"]))
    options = {name: name == place for name in ("align_corners", "half_pixel_centers")}
    return maker.graph([source], [maker.op(kind, (source, maker.constant(size)), (1, *size, num_c), **options)])


@st.composite
def depth_to_space_graphs(draw):
    """Channels spread over blocks of pixels."""
    maker, block = GraphMaker(draw(seeds), draw(bytes_only)), draw(st.integers(1, 4))
    height, width, num_c = draw(st.tuples(st.integers(1, 9), st.integers(1, 14), st.integers(1, 9)))
    source = maker.tensor((1, height, width, num_c * block * block))
    return maker.graph(
        [source], [maker.op("DEPTH_TO_SPACE", (source,), (1, height * block, width * block, num_c), block_size=block)]
    )


@st.composite
def pack_graphs(draw):
    """Tensors of three axes put together along a new one."""
    maker, axis = GraphMaker(draw(seeds), draw(bytes_only)), draw(st.integers(1, 3))
    shape = 1, draw(st.integers(1, 12)), draw(st.integers(1, 24))
    sources = [maker.tensor(shape, zero_point=3) for _ in range(draw(st.integers(1, 5)))]
    return maker.graph(sources, [maker.op("PACK", sources, (*shape[:axis], len(sources), *shape[axis:]), axis=axis)])


@st.composite
def reduce_max_graphs(draw):
    """The maximum of each channel of an image."""
    maker, (height, width, num_c), is_kept = (
        GraphMaker(draw(seeds), draw(bytes_only)),
        draw(shapes),
        draw(st.booleans()),
    )
    source = maker.tensor((1, height, width, num_c))
    return maker.graph(
        [source],
        [
            maker.op(
                "REDUCE_MAX",
                (source, maker.constant([1, 2])),
                (1, 1, 1, num_c) if is_kept else (1, num_c),
                keep_dims=is_kept,
            )
        ],
    )


@st.composite
def transpose_graphs(draw):
    """Rows, columns and channels in any order; of int16 channels stay channels."""
    maker, shape = GraphMaker(draw(seeds), draw(dtypes)), (1, *draw(shapes))
    order = [0, *(draw(st.permutations([1, 2])) if maker.dtype == np.int16 else draw(st.permutations([1, 2, 3]))), 3][
        :4
    ]
    source = maker.tensor(shape)
    return maker.graph(
        [source], [maker.op("TRANSPOSE", (source, maker.constant(order)), tuple(shape[axis] for axis in order))]
    )


def tp_graphs():
    """Any of these; transposed convolutions and resizes most often."""
    return st.one_of(
        transpose_conv_graphs(),
        transpose_conv_graphs(),
        zoom_graphs(),
        zoom_graphs(),
        depth_to_space_graphs(),
        pack_graphs(),
        reduce_max_graphs(),
        transpose_graphs(),
    )
