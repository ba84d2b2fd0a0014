"""Hypothesis strategies: random layers over the whole range of the contract, memories, and configurations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from convoy.driver.graph.graph import Op, Variable
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import FEATURES, NpuConfig

from .graphs import GraphMaker

__all__ = [
    "LUT_OPTIONS",
    "TABLE_ROOTS",
    "configs",
    "conv_graphs",
    "cut_graphs",
    "elementwise_graphs",
    "fully_connected_graphs",
    "fused_pool_graphs",
    "layer_graphs",
    "lut_graphs",
    "memory_models",
    "move_graphs",
    "out_size",
    "pool_graphs",
    "residual_graphs",
    "state_graphs",
]

seeds = st.integers(0, 2**32 - 1)
bytes_only = st.sampled_from([np.int8, np.int8, np.int8, np.uint8])
"""Dtypes of activations that all operators take."""
dtypes = st.one_of(bytes_only, st.just(np.int16))
"""Of convolutions, fully connected layers, moves, pools and operations on two tensors."""


LACKING = [(), (), (), *((name,) for name in FEATURES), FEATURES]
"""Units that a configuration is without."""


@st.composite
def configs(draw, *, may_lack: bool = False) -> NpuConfig:
    """Configurations far apart, most of them small enough to force tiling; if they `may_lack` units, most do."""
    lanes = draw(st.sampled_from([8, 16, 32]))
    return NpuConfig(
        num_cores=draw(st.sampled_from([1, 2, 4, 8, 16])),
        num_lanes=lanes,
        num_acc_entries=draw(st.sampled_from([16, 64])),
        post_lanes=draw(st.sampled_from([1, 4, lanes // 2])),
        stripe_bytes=draw(st.sampled_from([4096, 65536])),
        window_words=draw(st.sampled_from([32, 64])),
        port_bits=draw(st.sampled_from([32, 64, 256])),
        tp_lanes=draw(st.sampled_from([1, 2, 4])),
        tp_buffer_bytes=draw(st.sampled_from([1024, 16384])),
        pool_line_bytes=draw(st.sampled_from([16, 64])),
        pool_channels=draw(st.sampled_from([16, 64])),
        **dict.fromkeys(draw(st.sampled_from(LACKING)) if may_lack else (), False),
    )


@st.composite
def memory_models(draw) -> MemoryModel:
    """Memories fast and slow, smooth and stalling."""
    return MemoryModel(
        latency_cycles=draw(st.sampled_from([1, 7, 32, 150])),
        stall_percent=draw(st.sampled_from([0, 0, 20, 60])),
        seed=draw(st.integers(0, 1000)),
        is_shared=draw(st.booleans()),
    )


def out_size(size, kernel, stride, dilation, before, after):
    """Output extent of a convolution along one axis."""
    return (size + before + after - (kernel - 1) * dilation - 1) // stride + 1


def _same_pads(size, kernel, stride, dilation):
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


@st.composite
def conv_graphs(draw, max_kernel: int | None = None, dtypes=dtypes):
    """A convolution or depthwise convolution: kernels 1 ..

    11*stride-1 (or `max_kernel`) per axis, the largest and the least of both axes more often than by chance, strides
    1..8, native ones most often, dilation, pads 0..7, down to a weight in fifty.
    """
    maker = GraphMaker(draw(seeds), draw(dtypes))
    height, width = draw(st.integers(1, 40)), draw(st.one_of(st.integers(1, 70), st.integers(1, 9)))
    steps = st.one_of(st.integers(1, 2), st.integers(1, 2), st.integers(3, 8))
    stride = draw(st.sampled_from([st.tuples(steps, steps)] * 5 + [st.just((2, 2))]).flatmap(lambda stride: stride))
    limits = [min(11 * step - 1, max_kernel or 99) for step in stride]
    any_kernel = st.tuples(*[st.one_of(st.integers(1, min(5, limit)), st.integers(1, limit)) for limit in limits])
    kernel = draw(
        st.sampled_from(
            [any_kernel] * 8 + [st.just((1, 1))] + [st.just(tuple(limits))] * (6 if stride == (2, 2) else 1)
        ).flatmap(lambda kernel: kernel)
    )
    is_large = kernel[0] * kernel[1] > 100
    dilation = tuple(draw(st.integers(1, 2 if taps <= 5 else 1)) for taps in kernel)
    options = {
        "stride_h": stride[0],
        "stride_w": stride[1],
        "dilation_h": dilation[0],
        "dilation_w": dilation[1],
        "activation": draw(st.sampled_from(["NONE", "RELU", "RELU6", "RELU_N1_TO_1"])),
    }
    is_same = draw(st.booleans())
    pads = draw(st.tuples(*[st.integers(0, 7)] * 4))
    axes = list(zip((height, width), kernel, stride, dilation, strict=True))
    sizes = [out_size(*axis, *pads[2 * n : 2 * n + 2]) for n, axis in enumerate(axes)]
    if is_same or min(sizes) < 1:
        options["padding"] = "SAME"
        sizes = [-(-height // stride[0]), -(-width // stride[1])]
        if max(sum((_same_pads(*axis) for axis in axes), ())) > 7:
            height, width = height + (kernel[0] - 1) * dilation[0], width + (kernel[1] - 1) * dilation[1]
            options["padding"] = "VALID"
            sizes = [out_size(size, *axis[1:], 0, 0) for size, axis in zip((height, width), axes, strict=True)]
    else:
        options["pads"] = pads
    num_ic, is_depthwise = draw(st.integers(1, 4 if is_large else 9)), draw(st.booleans())
    density = draw(st.sampled_from([1.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.0]))
    num_oc = num_ic * draw(st.integers(1, 3)) if is_depthwise else draw(st.integers(1, 8 if is_large else 20))
    source = maker.tensor((1, height, width, num_ic))
    if is_depthwise:
        weights = maker.weights((1, *kernel, num_oc), num_oc, 3, density)
    else:
        weights = maker.weights((num_oc, *kernel, num_ic), num_oc, 0, density)
    bias = maker.bias(num_oc, maker.tensors[weights].data.size // num_oc, is_long=is_depthwise)
    kind = "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D"
    return maker.graph([source], [maker.op(kind, (source, weights, bias), (1, *sizes, num_oc), **options)])


@st.composite
def fully_connected_graphs(draw, dtypes=dtypes):
    """A fully connected layer, batched or not, on a flat or a 4D tensor; int16 with factors that the NPU has."""
    maker = GraphMaker(draw(seeds), draw(dtypes))
    batch, num_ic, num_oc = draw(st.integers(1, 5)), draw(st.integers(1, 300)), draw(st.integers(1, 40))
    source = maker.tensor(draw(st.sampled_from([(batch, num_ic), (batch, 1, 1, num_ic)])))
    weights = maker.weights((num_oc, num_ic), draw(st.sampled_from([num_oc, 1])), 0, draw(st.sampled_from([1.0, 0.3])))
    if maker.dtype == np.int16:
        tensor = maker.tensors[weights]
        maker.tensors[weights] = replace(
            tensor, quant=replace(tensor.quant, scale=np.exp2(np.round(np.log2(tensor.quant.scale))))
        )
    bias = maker.bias(num_oc, num_ic)
    return maker.graph([source], [maker.op("FULLY_CONNECTED", (source, weights, bias), (batch, num_oc))])


@st.composite
def pool_graphs(draw, dtypes=dtypes, kinds=("MAX_POOL_2D", "AVERAGE_POOL_2D")):
    """Maximum or average pooling of any window and stride, and more often of those that networks have."""
    maker = GraphMaker(draw(seeds), draw(dtypes))
    height, width, num_ic = draw(st.integers(1, 40)), draw(st.integers(1, 40)), draw(st.integers(1, 20))
    usual = st.sampled_from([(2, 2, 2, 2), (3, 3, 2, 2), (1, 2, 1, 2)])
    kernel_h, kernel_w, stride_h, stride_w = draw(st.one_of(st.tuples(*[st.integers(1, 6)] * 4), usual))
    kernel_h, kernel_w, is_same = min(kernel_h, height), min(kernel_w, width), draw(st.booleans())
    source = maker.tensor((1, height, width, num_ic))
    sizes = (
        (-(-height // stride_h), -(-width // stride_w))
        if is_same
        else ((height - kernel_h) // stride_h + 1, (width - kernel_w) // stride_w + 1)
    )
    target = maker.op(
        draw(st.sampled_from(kinds)),
        (source,),
        (1, *sizes, num_ic),
        padding="SAME" if is_same else "VALID",
        filter_h=kernel_h,
        filter_w=kernel_w,
        stride_h=stride_h,
        stride_w=stride_w,
        activation=draw(st.sampled_from(["NONE", "RELU6"])),
    )
    return maker.graph([source], [target])


@st.composite
def elementwise_graphs(draw, dtypes=dtypes, kinds=("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM")):
    """A sum, difference, product, maximum or minimum of two tensors with scales of their own; some axes of one are
    1, or it is constant.
    """
    maker = GraphMaker(draw(seeds), draw(dtypes))
    kind = draw(st.sampled_from(kinds))
    shape = (1, *draw(st.tuples(*[st.integers(1, 30)] * 3)))
    kept = draw(st.one_of(st.just((True,) * 3), st.tuples(*[st.booleans()] * 3)))
    shapes = [shape, (1, *(size if keep else 1 for size, keep in zip(shape[1:], kept, strict=True)))]
    has_constant = draw(st.booleans())
    info = np.iinfo(maker.dtype)
    data = maker.rng.integers(info.min, info.max + 1, shapes[1]).astype(maker.dtype) if has_constant else None
    if kind in ("MAXIMUM", "MINIMUM"):
        operands = [maker.tensor(shapes[0], zero_point=3), maker.tensor(shapes[1], data=data, zero_point=3)]
    else:
        factors = st.floats(0.0002, 0.01) if maker.dtype == np.int16 else st.floats(0.02, 0.5)
        scales = factors if kind == "MUL" else st.floats(0.001, 1.0)
        operands = [maker.tensor(shapes[0], scale=draw(scales)), maker.tensor(shapes[1], data=data, scale=draw(scales))]
    inputs = operands[:1] if has_constant else operands
    if draw(st.booleans()):
        operands = operands[::-1]
    options = {"activation": draw(st.sampled_from(["NONE", "RELU"]))} if kind in ("ADD", "SUB", "MUL") else {}
    return maker.graph(inputs, [maker.op(kind, operands, shape, **options)])


@st.composite
def move_graphs(draw):
    """Pads, slices, concatenations, resizes, and means over the image (not of int16)."""
    kind = draw(st.sampled_from(["PAD", "STRIDED_SLICE", "CONCATENATION", "RESIZE_NEAREST_NEIGHBOR", "MEAN"]))
    maker = GraphMaker(draw(seeds), draw(bytes_only if kind == "MEAN" else dtypes))
    shape = height, width, num_c = draw(st.tuples(st.integers(1, 16), st.integers(1, 40), st.integers(1, 9)))
    source = maker.tensor((1, *shape), zero_point=3)
    if kind == "PAD":
        top, bottom, left, right = pads = draw(st.tuples(*[st.integers(0, 9)] * 4))
        target = maker.op(
            kind,
            (source, maker.constant([[0, 0], pads[:2], pads[2:], [0, 0]])),
            (1, height + top + bottom, width + left + right, num_c),
        )
    elif kind == "STRIDED_SLICE":
        begins = [draw(st.integers(0, size - 1)) for size in shape]
        ends = [draw(st.integers(begin + 1, size)) for begin, size in zip(begins, shape, strict=True)]
        steps = draw(st.tuples(*[st.integers(1, 3)] * 2, st.integers(1, 1 if maker.dtype == np.int16 else 3)))
        parts = [maker.constant(values) for values in ([0, *begins], [1, *ends], [1, *steps])]
        masks = dict.fromkeys(("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0)
        target = maker.op(
            kind, (source, *parts), (1, *(len(range(*part)) for part in zip(begins, ends, steps, strict=True))), **masks
        )
    elif kind == "CONCATENATION":
        axis, sizes = draw(st.integers(1, 3)), draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
        others = [maker.tensor((*(1, *shape)[:axis], size, *(1, *shape)[axis + 1 :]), zero_point=3) for size in sizes]
        total = sum(sizes) + shape[axis - 1]
        target = maker.op(
            kind,
            (source, *others),
            (*(1, *shape)[:axis], total, *(1, *shape)[axis + 1 :]),
            axis=axis,
            activation="NONE",
        )
        return maker.graph([source, *others], [target])
    elif kind == "RESIZE_NEAREST_NEIGHBOR":
        size = height * draw(st.integers(1, 4)), width * draw(st.integers(1, 4))
        target = maker.op(
            kind,
            (source, maker.constant(size)),
            (1, *size, num_c),
            align_corners=False,
            half_pixel_centers=draw(st.booleans()),
        )
    else:
        source = maker.tensor(
            (1, min(height, 12), min(width, 12), num_c), scale=draw(st.sampled_from([0.05, 0.1, 0.043]))
        )
        target = maker.op(kind, (source, maker.constant([1, 2])), (1, num_c))
    return maker.graph([source], [target])


LUT_OPTIONS: dict[str, dict] = {
    "LOGISTIC": {},
    "TANH": {},
    "HARD_SWISH": {},
    "LEAKY_RELU": {"alpha": 0.1},
    "GELU": {"approximate": False},
    "QUANTIZE": {},
    "RELU": {},
    "RELU6": {},
}
"""Unary operators that both LiteRT's reference kernels and the NPU know, with options."""


TABLE_ROOTS = {
    "convolution": conv_graphs(max_kernel=3, dtypes=bytes_only),
    "FULLY_CONNECTED": fully_connected_graphs(bytes_only),
    "ADD": elementwise_graphs(bytes_only, ["ADD"]),
    "MAX_POOL_2D": pool_graphs(bytes_only, ["MAX_POOL_2D"]),
    "AVERAGE_POOL_2D": pool_graphs(bytes_only, ["AVERAGE_POOL_2D"]),
}
"""Layers that tables are fused into, each of which a campaign has to hit."""


@st.composite
def lut_graphs(draw):
    """A layer or nothing, followed by one or two operators that are tables; fused unless the result between is an
    output too.
    """
    kinds = draw(st.lists(st.sampled_from(sorted(LUT_OPTIONS)), min_size=1, max_size=2))
    graph = draw(
        st.sampled_from([*TABLE_ROOTS.values(), elementwise_graphs(bytes_only), st.none()]).flatmap(lambda root: root)
    )
    maker = GraphMaker(draw(seeds), graph.tensors[0].dtype.type if graph else draw(bytes_only))
    if graph is None:
        inputs = [maker.tensor((1, *draw(st.tuples(*[st.integers(1, 30)] * 3))))]
        outputs, last = [], inputs[0]
    else:
        maker.tensors, maker.ops = list(graph.tensors), list(graph.ops)
        inputs, last = graph.inputs, graph.outputs[0]
        outputs = draw(st.sampled_from([[], [], [], [last]]))
    for kind in kinds:
        last = maker.op(kind, (last,), maker.tensors[last].shape, **LUT_OPTIONS[kind])
    return maker.graph(inputs, [*outputs, last])


@st.composite
def residual_graphs(draw):
    """A convolution, perhaps through a table, and a sum of its result and an earlier tensor of other scale; fused
    where that is faster.
    """
    graph = draw(conv_graphs(max_kernel=4, dtypes=bytes_only))
    maker = GraphMaker(draw(seeds), graph.tensors[0].dtype.type)
    maker.tensors, maker.ops = list(graph.tensors), []
    shape = maker.tensors[graph.outputs[0]].shape
    other = maker.tensor(shape, scale=draw(st.floats(0.01, 0.5)))
    inputs = [*graph.inputs, other]
    if draw(st.booleans()):
        other = maker.op("TANH", (other,), shape)
    maker.ops.append(replace(graph.ops[0], index=len(maker.ops)))
    last = graph.outputs[0]
    if draw(st.booleans()):
        last = maker.op("LEAKY_RELU", (last,), shape, alpha=0.2)
    operands = (last, other) if draw(st.booleans()) else (other, last)
    return maker.graph(inputs, [maker.op("ADD", operands, shape, activation=draw(st.sampled_from(["NONE", "RELU"])))])


@st.composite
def cut_graphs(draw):
    """An image cut in parts of equal or any sizes, in blocks (not of int16, which LiteRT does not rearrange), or
    down to a box.
    """
    kind, axis, block = (
        draw(st.sampled_from(["SLICE", "SPLIT", "SPLIT_V", "SPACE_TO_DEPTH"])),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
    )
    maker = GraphMaker(draw(seeds), draw(bytes_only if kind == "SPACE_TO_DEPTH" else dtypes))
    shape = [1, *draw(st.tuples(st.integers(1, 9), st.integers(1, 14), st.integers(1, 9)))]
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    if kind == "SPACE_TO_DEPTH":
        source = maker.tensor((1, shape[1] * block, shape[2] * block, shape[3]), zero_point=3)
        return maker.graph(
            [source], [maker.op(kind, (source,), (*shape[:3], shape[3] * block * block), block_size=block)]
        )
    if kind == "SLICE":
        begins = [0, *(draw(st.integers(0, size - 1)) for size in shape[1:])]
        extents = [1, *(draw(st.integers(1, size - begin)) for begin, size in zip(begins[1:], shape[1:], strict=True))]
        source = maker.tensor(shape, zero_point=3)
        return maker.graph(
            [source], [maker.op(kind, (source, maker.constant(begins), maker.constant(extents)), extents)]
        )
    if kind == "SPLIT":
        sizes = [sizes[0]] * len(sizes)
    source = maker.tensor([*shape[:axis], sum(sizes), *shape[axis + 1 :]], zero_point=3)
    inputs = (
        (maker.constant(axis), source) if kind == "SPLIT" else (source, maker.constant(sizes), maker.constant(axis))
    )
    parts = [maker.tensor([*shape[:axis], size, *shape[axis + 1 :]], zero_point=3) for size in sizes]
    maker.ops.append(Op(len(maker.ops), kind, inputs, tuple(parts)))
    return maker.graph([source], parts)


@st.composite
def state_graphs(draw):
    """A network over one shape with up to three variables, read and assigned in any order: values pass through
    tables, sums, moves and convolutions.
    """
    maker = GraphMaker(draw(seeds), draw(bytes_only))
    shape = 1, *draw(st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 6)))
    sources = [maker.tensor(shape, zero_point=2) for _ in range(draw(st.integers(1, 2)))]
    values, num_variables, outputs = list(sources), draw(st.integers(1, 3)), []
    for _ in range(draw(st.integers(2, 9))):
        kind = draw(st.sampled_from(["READ", "READ", "ASSIGN", "ASSIGN", "TANH", "ADD", "CONV_2D", "PAD", "RESHAPE"]))
        value = draw(st.sampled_from(values))
        if kind == "READ":
            values.append(maker.read(draw(st.integers(0, num_variables - 1)), shape, zero_point=2))
        elif kind == "ASSIGN":
            maker.assign(draw(st.integers(0, num_variables - 1)), value)
        elif kind == "TANH":
            values.append(maker.op(kind, (value,), shape))
        elif kind == "ADD":
            values.append(maker.op(kind, (value, draw(st.sampled_from(values))), shape, activation="NONE"))
        elif kind == "CONV_2D":
            weights = maker.weights((shape[3], 3, 1, shape[3]), shape[3], 0)
            scale = maker.tensors[value].quant.scale[0] * maker.tensors[weights].quant.scale[0]
            bias = maker.tensor(
                (shape[3],), np.int32, maker.rng.integers(-2000, 2000, shape[3]).astype(np.int32), scale, zero_point=0
            )
            values.append(
                maker.op(kind, (value, weights, bias), shape, stride_h=1, stride_w=1, padding="SAME", activation="RELU")
            )
        elif kind == "PAD":
            outputs.append(
                maker.op(
                    kind,
                    (value, maker.constant([[0, 0], [1, 0], [0, 2], [0, 0]])),
                    (1, shape[1] + 1, shape[2] + 2, shape[3]),
                )
            )
        else:
            flat = maker.op(
                kind, (value,), (1, shape[1] * shape[2], shape[3]), new_shape=(1, shape[1] * shape[2], shape[3])
            )
            values.append(maker.op(kind, (flat,), shape, new_shape=shape))
    used = any("variable" in op.options for op in maker.ops)
    initial = maker.rng.integers(0, 256, (num_variables, *shape)).astype(maker.dtype)
    variables = tuple(Variable(f"v{n}", shape, initial.dtype, initial[n]) for n in range(num_variables))
    outputs.append(maker.op("ADD", (values[-1], draw(st.sampled_from(values))), shape, activation="NONE"))
    graph = replace(
        maker.graph(sources, list(dict.fromkeys([*outputs, *draw(st.lists(st.sampled_from(values), max_size=2))]))),
        variables=variables,
    )
    assume(used and not set(graph.outputs) & set(sources))
    return graph


@st.composite
def fused_pool_graphs(draw):
    """A convolution, perhaps through a table (not of int16), and a maximum pool of stride 2 without pads on its
    outputs; most often one that the NN engine can fuse.
    """
    graph = draw(conv_graphs(max_kernel=4))
    size = draw(st.sampled_from([2, 3]))
    if draw(st.sampled_from([True, True, True, False])):
        graph = _grown(graph, draw(st.integers(size, 12)))
    maker = GraphMaker(draw(seeds), graph.tensors[0].dtype.type)
    maker.tensors, maker.ops = list(graph.tensors), list(graph.ops)
    last = graph.outputs[0]
    _, height, width, num_oc = shape = maker.tensors[last].shape
    if maker.dtype != np.int16 and draw(st.booleans()):
        last = maker.op("LEAKY_RELU", (last,), shape, alpha=0.2)
    size = min(size, height, width)
    target = maker.op(
        "MAX_POOL_2D",
        (last,),
        (1, (height - size) // 2 + 1, (width - size) // 2 + 1, num_oc),
        padding="VALID",
        filter_h=size,
        filter_w=size,
        stride_h=2,
        stride_w=2,
        activation=draw(st.sampled_from(["NONE", "RELU6"])),
    )
    return maker.graph(graph.inputs, [target])


def _grown(graph, least):
    """A convolution with larger extents, so that its outputs are at least `least`."""
    (op,), tensors = graph.ops, list(graph.tensors)
    source, target = (tensors[index] for index in (op.inputs[0], op.outputs[0]))
    more = [max(0, least - extent) for extent in target.shape[1:3]]
    for tensor, steps in ((source, (op.options["stride_h"], op.options["stride_w"])), (target, (1, 1))):
        batch, height, width, num_c = tensor.shape
        shape = batch, height + more[0] * steps[0], width + more[1] * steps[1], num_c
        tensors[tensor.index] = replace(tensor, shape=shape)
    return replace(graph, tensors=tuple(tensors))


def layer_graphs():
    """Any layer that the NPU executes; convolutions most often."""
    kinds = [
        *[conv_graphs()] * 6,
        fully_connected_graphs(),
        *[pool_graphs(), elementwise_graphs(), move_graphs()] * 2,
        *[lut_graphs()] * 4,
        residual_graphs(),
        fused_pool_graphs(),
    ]
    return st.sampled_from(kinds).flatmap(lambda graphs: graphs)
