"""Operators that move values, and means: files of random networks, compiled and run on the golden machine, against
LiteRT.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.spec.config import PRESETS
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import QUANT, check_model, one_op
from convoy.verif.strategies import configs

PROPERTY = settings(deadline=None, max_examples=25, derandomize=True)
sizes, channels = st.integers(1, 14), st.integers(1, 9)


@PROPERTY
@given(sizes, st.integers(1, 60), channels, st.tuples(*[st.integers(0, 9)] * 4), configs())
def test_pad(height, width, num_c, pads, config):
    shape = 1, height + pads[0] + pads[1], width + pads[2] + pads[3], num_c
    check_model(one_op("PAD", (1, height, width, num_c), shape, [[[0, 0], pads[:2], pads[2:], [0, 0]]]), config)


@PROPERTY
@given(st.data(), configs())
def test_slices(data, config):
    shape = (1, *(data.draw(sizes) for _ in range(3)))
    begins = [data.draw(st.integers(0, size - 1)) for size in shape]
    if data.draw(st.booleans()):
        extents = [data.draw(st.integers(1, size - begin)) for size, begin in zip(shape, begins, strict=True)]
        check_model(one_op("SLICE", shape, extents, [begins, extents]), config)
        return
    steps, mask = [1, *(data.draw(st.integers(1, 3)) for _ in range(3))], data.draw(st.integers(0, 15))
    ends = [data.draw(st.integers(begin + 1, size)) for size, begin in zip(shape, begins, strict=True)]
    begins = [data.draw(st.sampled_from([begin, begin - size])) for size, begin in zip(shape, begins, strict=True)]
    chosen = [
        len(range(size)[None if mask >> axis & 1 else begin : end : step])
        for axis, (size, begin, end, step) in enumerate(zip(shape, begins, ends, steps, strict=True))
    ]
    check_model(one_op("STRIDED_SLICE", shape, chosen, [begins, ends, steps], beginMask=mask), config)


@PROPERTY
@given(sizes, sizes, channels, st.integers(1, 4), st.integers(1, 7), st.booleans(), configs())
def test_resize(height, width, num_c, times_h, times_w, is_half, config):
    shape = height * times_h, width * times_w
    check_model(
        one_op(
            "RESIZE_NEAREST_NEIGHBOR", (1, height, width, num_c), (1, *shape, num_c), [shape], halfPixelCenters=is_half
        ),
        config,
    )


@PROPERTY
@given(sizes, sizes, channels, st.integers(1, 3), st.integers(1, 4), configs())
def test_split(height, width, num_c, axis, num_parts, config):
    builder, shape = ModelBuilder("split"), [1, height, width, num_c]
    part = list(shape)
    shape[axis] *= num_parts
    source = builder.tensor(shape, np.int8, *QUANT)
    targets = [builder.tensor(part, np.int8, *QUANT) for _ in range(num_parts)]
    builder.op("SPLIT", [builder.tensor((), np.int32, data=np.array(axis - 4)), source], targets, numSplits=num_parts)
    check_model(builder.finish([source], targets), config)


@PROPERTY
@given(st.integers(1, 6), st.integers(1, 9), channels, st.integers(1, 4), configs())
def test_space_to_depth(height, width, num_c, block, config):
    check_model(
        one_op(
            "SPACE_TO_DEPTH",
            (1, height * block, width * block, num_c),
            (1, height, width, num_c * block * block),
            [],
            blockSize=block,
        ),
        config,
    )


@PROPERTY
@given(sizes, sizes, st.lists(channels, min_size=1, max_size=4), st.integers(1, 3), configs())
def test_concatenation_of_inputs(height, width, extents, axis, config):
    builder = ModelBuilder("concatenation")
    shape = [1, height, width, 5]
    sources = [builder.tensor([*shape[:axis], extent, *shape[axis + 1 :]], np.int8, *QUANT) for extent in extents]
    target = builder.tensor([*shape[:axis], sum(extents), *shape[axis + 1 :]], np.int8, *QUANT)
    builder.op("CONCATENATION", sources, [target], axis=axis - 4)
    check_model(builder.finish(sources, [target]), config)


def pool(builder, source, shape):
    target = builder.tensor(shape, np.int8, *QUANT)
    builder.op("MAX_POOL_2D", [source], [target], padding=0, filterHeight=3, filterWidth=3, strideH=1, strideW=1)
    return target


def concatenate(builder, sources, shape):
    target = builder.tensor(shape, np.int8, *QUANT)
    builder.op("CONCATENATION", sources, [target], axis=3)
    return target


@pytest.mark.parametrize("config", ["Q", "S"])
def test_concatenations_within_a_network(config):
    """Parts made in place, a part of two results, a result within a result, a part used later, a result used twice."""
    builder, shape = ModelBuilder("network"), (1, 9, 7)
    source = builder.tensor((*shape, 4), np.int8, *QUANT)
    a = pool(builder, source, (*shape, 4))
    b = pool(builder, a, (*shape, 4))
    ab = concatenate(builder, [a, b], (*shape, 8))
    c = pool(builder, b, (*shape, 4))
    abc = concatenate(builder, [ab, c, a], (*shape, 16))
    d = pool(builder, a, (*shape, 4))
    twice = concatenate(builder, [d, d, source], (*shape, 12))
    last = concatenate(builder, [pool(builder, abc, (*shape, 16)), twice], (*shape, 28))
    plan = check_model(builder.finish([source], [last, ab]), PRESETS[config])
    assert plan.placements[a].addr == plan.placements[ab].addr == plan.placements[abc].addr
    assert plan.placements[b].addr == plan.placements[ab].addr + 4 * 63
    assert plan.steps[0].engines[2] == "alias"


IMAGE = (1, 6, 5, 8)
QUANTS = {np.int8: (0.05, 3), np.uint8: (0.05, 130), np.int16: (0.05, 0)}


def joined(kind, dtype, shapes, out, axis, **options) -> bytes:
    builder = ModelBuilder()
    sources = [builder.tensor(shape, dtype, *QUANTS[dtype]) for shape in shapes]
    target = builder.tensor(out, dtype, *QUANTS[dtype])
    builder.op(kind, sources, [target], axis=axis, **options)
    return builder.finish(sources, [target])


def parted(dtype, shape, axis) -> bytes:
    builder = ModelBuilder()
    source = builder.tensor(shape, dtype, *QUANTS[dtype])
    part = tuple(np.delete(shape, axis))
    targets = [builder.tensor(part, dtype, *QUANTS[dtype]) for _ in range(shape[axis])]
    builder.op("UNPACK", [source], targets, num=shape[axis], axis=axis)
    return builder.finish([source], targets)


def turned(shape, order):
    return "TRANSPOSE", shape, tuple(shape[axis] for axis in order), [order], {}


SINGLE = {
    "a row": ("STRIDED_SLICE", IMAGE, (1, 5, 8), [[0, 2, 0, 0], [1, 3, 5, 8], [1] * 4], {"shrinkAxisMask": 2}),
    "the last step": ("STRIDED_SLICE", (1, 9, 8), (1, 8), [[0, -1, 0], [1, 0, 8], [1] * 3], {"shrinkAxisMask": 2}),
    "a channel": ("STRIDED_SLICE", IMAGE, (1, 6, 5), [[0, 0, 0, 3], [1, 6, 5, 4], [1] * 4], {"shrinkAxisMask": 8}),
    "an ellipsis": ("STRIDED_SLICE", IMAGE, (1, 6, 5, 3), [[0, 2], [0, 5], [1, 1]], {"ellipsisMask": 1}),
    "a new axis": ("STRIDED_SLICE", (1, 6, 8), (1, 6, 1, 8), [[0] * 4, [1, 6, 0, 8], [1] * 4], {"newAxisMask": 4}),
    "backwards": ("STRIDED_SLICE", IMAGE, IMAGE, [[0, -1, 0, 0], [1, -7, 5, 8], [1, -1, 1, 1]], {}),
    "some channels": ("GATHER", IMAGE, (1, 6, 5, 4), [[0, 3, 6, 1]], {"axis": 3}),
    "one row by its number": ("GATHER", IMAGE, (1, 5, 8), [2], {"axis": 1}),
    "tiles": ("TILE", IMAGE, (1, 12, 5, 16), [[1, 2, 1, 2]], {}),
    "mirrored": ("MIRROR_PAD", IMAGE, (1, 8, 9, 8), [[[0, 0], [1, 1], [2, 2], [0, 0]]], {"mode": 0}),
    "mirrored with the edge": ("MIRROR_PAD", IMAGE, (1, 8, 5, 9), [[[0, 0], [1, 1], [0, 0], [0, 1]]], {"mode": 1}),
    "more channels": ("PAD", IMAGE, (1, 9, 5, 14), [[[0, 0], [1, 2], [0, 0], [2, 4]]], {}),
    "pads of a batch": ("PAD", (3, 6, 5, 4), (3, 8, 5, 4), [[[0, 0], [1, 1], [0, 0], [0, 0]]], {}),
    "a row beyond the buffer": ("PAD", (1, 16400, 1), (1, 16410, 1), [[[0, 0], [3, 7], [0, 0]]], {}),
    "batch and channels": turned((3, 6, 5, 8), [3, 2, 1, 0]),
    "groups of channels": turned((1, 3, 4, 2, 5), [0, 1, 2, 4, 3]),
    "five axes": turned((2, 3, 4, 2, 5), [4, 2, 0, 3, 1]),
}


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("name", SINGLE)
def test_moves_of_any_axes(name, dtype):
    kind, shape, out, constants, options = SINGLE[name]
    check_model(one_op(kind, shape, out, constants, QUANTS[dtype], QUANTS[dtype], dtype, **options), PRESETS["Q"])


@pytest.mark.parametrize(
    "model",
    [
        parted(np.int8, IMAGE, 1),
        parted(np.int16, (1, 7, 3), 2),
        parted(np.uint8, (3, 7, 4, 2), 0),
        joined("CONCATENATION", np.int8, [(2, 3, 4, 5), (1, 3, 4, 5)], (3, 3, 4, 5), 0),
        joined("CONCATENATION", np.int16, [(1, 3, 4, 5, 2), (1, 3, 4, 1, 2)], (1, 3, 4, 6, 2), 3),
        joined("PACK", np.int8, [(3, 4, 5)] * 2, (2, 3, 4, 5), 0, valuesCount=2),
        joined("PACK", np.int16, [(1, 3, 4, 5)] * 2, (1, 3, 4, 2, 5), 3, valuesCount=2),
    ],
)
def test_parts_along_any_axis(model):
    check_model(model, PRESETS["Q"])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (one_op("TILE", (1, 2, 2, 3), (1, 40, 40, 3), [[1, 20, 20, 1]]), "400 pieces; the limit is 256"),
        (
            one_op("STRIDED_SLICE", (2, 3, 2, 3, 2), (2, 1, 2, 1, 2), [[0] * 5, [2, 1, 2, 1, 2], [1] * 5]),
            "not neighbours",
        ),
    ],
)
def test_refusals(model, message):
    with pytest.raises(GraphError, match=message):
        compile_graph(read_tflite(model), PRESETS["Q"], is_strict=True)


def test_what_litert_leaves_unwritten_is_refused():
    model = one_op("STRIDED_SLICE", (1, 4, 5), (1, 5), [[0, 2, 0], [1, 3, 5], [1, -1, 1]], shrinkAxisMask=2)
    with pytest.raises(GraphError, match=r"STRIDED_SLICE .*leaves the result unwritten .*; use 1"):
        compile_graph(read_tflite(model), PRESETS["Q"])


def test_boxes_in_one_piece_stay_in_place():
    """Frames of a video, and channels: slices, packs and concatenations of them are no work."""
    builder = ModelBuilder()

    def integers(*values):
        return builder.tensor(np.shape(values), np.int32, data=np.array(values))

    def act(*shape):
        return builder.tensor(shape, np.int8, *QUANT)

    def pool(source, *shape):
        target = act(*shape)
        builder.op("MAX_POOL_2D", [source], [target], filterHeight=2, filterWidth=1, strideH=1, strideW=1, padding=1)
        return target

    video, frames = act(3, 1, 7, 5, 4), []
    for n in range(3):
        frames.append(act(1, 7, 5, 4))
        begins, ends, steps = integers(n, 0, 0, 0, 0), integers(n + 1, 1, 7, 5, 4), integers(1, 1, 1, 1, 1)
        builder.op("STRIDED_SLICE", [video, begins, ends, steps], frames[-1:], shrinkAxisMask=1)
    pooled = [pool(frame, 1, 6, 5, 4) for frame in frames]
    packed, middle = act(3, 6, 5, 4), act(1, 6, 5, 4)
    builder.op("CONCATENATION", pooled, [packed], axis=0)
    builder.op("SLICE", [packed, integers(1, 0, 0, 0), integers(1, 6, 5, 4)], [middle])
    halves = [act(1, 6, 5, 2) for _ in range(2)]
    builder.op("SPLIT", [builder.tensor((), np.int32, data=np.array(3)), middle], halves, numSplits=2)
    results = [pool(half, 1, 5, 5, 2) for half in halves]
    joined = act(1, 5, 5, 4)
    builder.op("CONCATENATION", results, [joined], axis=3)
    plan = check_model(builder.finish([video], [packed, joined]), PRESETS["Q"])
    (step,) = plan.steps
    moved = {op.index for op in plan.graph.ops if op.kind != "MAX_POOL_2D"}
    assert {step.engines[index] for index in moved} == {"alias"}
