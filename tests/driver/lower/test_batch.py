"""Batches: what treats images alike runs on the NPU image by image; what does not is right all the same."""

from __future__ import annotations

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import HostStep
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.lower.batch import one_image
from convoy.spec.config import PRESETS, NpuConfig
from convoy.verif.litert import ModelBuilder, add_model
from convoy.verif.models import check_model, one_op
from convoy.verif.operators import NO_REFERENCE, edited, operator_files

SMALL = NpuConfig(
    num_cores=2, num_lanes=8, num_acc_entries=16, post_lanes=2, stripe_bytes=4096, window_words=32, tp_buffer_bytes=1024
)
BATCH = 3
_SHAPES = {"TRANSPOSE_CONV": 0, "RESHAPE": 1, "SLICE": 2, "STRIDED_SLICE": 2}
"""By kind of operator, the input that says what extent the batch has."""
_WHOLE = "TILE", "BROADCAST_TO", "BATCH_TO_SPACE_ND"
"""Operators to which a batch is something else."""
_FILES = {
    dtype: {kind: model for kind, model in operator_files(dtype).items() if kind not in {*_WHOLE, *NO_REFERENCE}}
    for dtype in (np.int8, np.int16)
}


def batched(model: bytes, kind: str) -> bytes:
    """A file of one operator on one image, for several."""

    def edit(packed, subgraph):
        (op,) = subgraph.operators
        for tensor in subgraph.tensors:
            if packed.buffers[tensor.buffer].data is None and tensor.shape[0] == 1:
                tensor.shape = [BATCH, *tensor.shape[1:]]
        if kind in _SHAPES:
            buffer = packed.buffers[subgraph.tensors[op.inputs[_SHAPES[kind]]].buffer]
            extents = np.frombuffer(np.asarray(buffer.data, np.uint8).tobytes(), np.int32)
            buffer.data = np.frombuffer(np.append(np.int32(BATCH), extents[1:]).tobytes(), np.uint8)

    return edited(model, edit)


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(dtype, kind) for dtype, files in _FILES.items() for kind in files],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_operator(dtype, kind):
    """On the NPU where one image is; parts of three axes, as PACK has, are not."""
    single = compile_graph(read_tflite(_FILES[dtype][kind]), SMALL)
    num_host_steps = sum(isinstance(step, HostStep) for step in single.steps)
    check_model(batched(_FILES[dtype][kind], kind), SMALL, num_host_steps)


def network(batch: int, dtype: type = np.int8) -> bytes:
    """A convolution of stride 3, a depthwise one and a pool, a pointwise one with a sum and a table, a product with
    the means of each image, flattened into a fully connected layer.
    """
    rng, made, is_wide = np.random.default_rng(3), ModelBuilder(), dtype == np.int16
    zero = 0 if is_wide else 120 if dtype == np.uint8 else -8
    wgt_dtype, wgt_zero = (np.uint8, 128) if dtype == np.uint8 else (np.int8, 0)
    unit = 0.001 if is_wide else 0.1

    def act(*shape: int, scale: float = unit) -> int:
        return made.tensor((batch, *shape), dtype, scale, zero)

    def layer(kind: str, source: int, shape, kernel, num_oc: int, **options) -> int:
        values = rng.integers(-99, 100, kernel) + wgt_zero
        wgt = made.tensor(kernel, wgt_dtype, 0.01, wgt_zero, data=values)
        bias_dtype, target = (np.int64 if is_wide else np.int32), act(*shape)
        bias = made.tensor((num_oc,), bias_dtype, data=rng.integers(-99, 99, num_oc))
        made.op(kind, [source, wgt, bias], [target], **options)
        return target

    def op(kind: str, sources, shape, **options) -> int:
        target = act(*shape)
        made.op(kind, sources, [target], **options)
        return target

    def ints(*values) -> int:
        return made.tensor(np.shape(values), np.int32, data=np.array(values))

    image = act(15, 12, 3)
    first = layer("CONV_2D", image, (5, 4, 6), (6, 3, 3, 3), 6, strideH=3, strideW=3, padding=1)
    x = layer(
        "DEPTHWISE_CONV_2D", first, (5, 4, 6), (1, 3, 3, 6), 6, strideH=1, strideW=1, depthMultiplier=1, padding=0
    )
    x = layer("CONV_2D", x, (5, 4, 6), (6, 1, 1, 6), 6, strideH=1, strideW=1)
    x = op("ADD", [x, first], (5, 4, 6))
    if not is_wide:
        x = op("LEAKY_RELU", [x], (5, 4, 6), alpha=0.2)
        x = op("MUL", [x, op("MEAN", [x, ints(1, 2)], (1, 1, 6), keepDims=True)], (5, 4, 6))
    pooled = layer("CONV_2D", x, (4, 4, 4), (4, 2, 1, 6), 4, strideH=1, strideW=1, padding=1)
    pooled = op("MAX_POOL_2D", [pooled], (2, 2, 4), filterHeight=2, filterWidth=2, strideH=2, strideW=2, padding=1)
    flat = op("RESHAPE", [pooled, ints(batch, 16)], (16,))
    result = layer("FULLY_CONNECTED", flat, (5,), (5, 16), 5)
    return made.finish([image], [result, x])


@pytest.mark.parametrize(
    ("dtype", "config"), [(np.int8, SMALL), (np.uint8, SMALL), (np.int16, SMALL), (np.int8, PRESETS["Q"])]
)
def test_networks(dtype, config):
    check_model(network(BATCH, dtype), config, num_host_steps=dtype == np.int16)


def test_constants_are_stored_once():
    def num_bytes(batch: int) -> int:
        plan = compile_graph(read_tflite(network(batch)), SMALL, is_strict=True)
        (step,) = plan.steps
        return sum(len(data) for _, data in step.program.image[:-1])

    assert num_bytes(4) == num_bytes(2)


def with_constant() -> bytes:
    """A sum with a constant for each image."""

    def edit(packed, subgraph):
        values = np.random.default_rng(1).integers(-128, 128, (BATCH, 2, 3, 2)).astype(np.int8)
        packed.buffers[1].data = np.frombuffer(values.tobytes(), np.uint8)
        subgraph.tensors[1].buffer, subgraph.inputs = 1, subgraph.inputs[:1]

    model = add_model((BATCH, 2, 3, 2), (0.1, 3), (0.2, 1), (0.3, -4))
    return edited(
        model, lambda packed, subgraph: (packed.buffers.append(type(packed.buffers[0])()), edit(packed, subgraph))
    )


def joined() -> bytes:
    made = ModelBuilder()
    sources = [made.tensor((n, 2, 3, 4), np.int8, 0.1, 3) for n in (1, 2)]
    target = made.tensor((3, 2, 3, 4), np.int8, 0.1, 3)
    made.op("CONCATENATION", sources, [target], axis=0)
    return made.finish(sources, [target])


MIXED = {
    "order": one_op("TRANSPOSE", (2, 2, 3, 4), (2, 2, 3, 4), [[1, 0, 2, 3]]),
    "some images": one_op("SLICE", (3, 2, 3, 4), (2, 2, 3, 4), [[1, 0, 0, 0], [2, 2, 3, 4]]),
    "one image": one_op(
        "STRIDED_SLICE", (2, 2, 3, 4), (2, 3, 4), [[1, 0, 0, 0], [2, 2, 3, 4], [1, 1, 1, 1]], shrinkAxisMask=1
    ),
    "mean of images": one_op("MEAN", (3, 2, 3, 4), (1, 2, 3, 4), [[0]], keepDims=True),
    "joined": joined(),
    "a constant for each": with_constant(),
}


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_images_is_lowered_for_all_of_them(name):
    graph = read_tflite(MIXED[name])
    assert one_image(graph, graph.ops[0]) is graph
    check_model(MIXED[name], SMALL, num_host_steps=name == "a constant for each")


def test_reshapes_of_the_batch():
    """Images cut into more images and put together again, between convolutions."""
    rng, made = np.random.default_rng(5), ModelBuilder()

    def conv(source: int, shape) -> int:
        wgt = made.tensor((4, 3, 3, 4), np.int8, 0.01, 0, data=rng.integers(-99, 100, (4, 3, 3, 4)))
        target = made.tensor(shape, np.int8, 0.1, 3)
        made.op(
            "CONV_2D", [source, wgt, made.tensor((4,), np.int32, data=np.arange(4))], [target], strideH=1, strideW=1
        )
        return target

    def reshape(source: int, shape) -> int:
        target = made.tensor(shape, np.int8, 0.1, 3)
        made.op("RESHAPE", [source, made.tensor((4,), np.int32, data=np.array(shape))], [target])
        return target

    image = made.tensor((2, 6, 5, 4), np.int8, 0.1, 3)
    x = reshape(conv(image, (2, 6, 5, 4)), (6, 2, 5, 4))
    x = reshape(conv(x, (6, 2, 5, 4)), (1, 12, 5, 4))
    x = reshape(conv(x, (1, 12, 5, 4)), (2, 6, 5, 4))
    check_model(made.finish([image], [conv(x, (2, 6, 5, 4))]), SMALL)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_channel_shuffle(dtype):
    """A transposition of images that are seen with five axes meanwhile."""
    made, quant = ModelBuilder(), (0.1, 7)
    shapes = [(BATCH, 3, 5, 8), (BATCH, 3, 5, 2, 4), (BATCH, 3, 5, 4, 2), (BATCH, 3, 5, 8)]
    source, apart, across, target = (made.tensor(shape, dtype, *quant) for shape in shapes)
    order = made.tensor((5,), np.int32, data=np.array([0, 1, 2, 4, 3]))
    made.op("RESHAPE", [source, made.tensor((5,), np.int32, data=np.array(shapes[1]))], [apart])
    made.op("TRANSPOSE", [apart, order], [across])
    made.op("RESHAPE", [across, made.tensor((4,), np.int32, data=np.array(shapes[3]))], [target])
    check_model(made.finish([source], [target]), SMALL)


def test_images_in_reverse():
    ends = [[BATCH - 1, 0, 0, 1], [-BATCH - 1, 2, 3, 4], [-1, 1, 1, 1]]
    check_model(one_op("STRIDED_SLICE", (BATCH, 2, 3, 4), (BATCH, 2, 3, 3), ends), SMALL)
