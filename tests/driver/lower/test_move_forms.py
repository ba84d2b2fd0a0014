"""Moves in forms that the NPU takes."""

import numpy as np
import pytest

from convoy.driver.compile.expand import expand
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.graph.tflite_reader import load_tflite
from convoy.spec.config import PRESETS
from convoy.verif.graphs import random_values, run_plan
from convoy.verif.litert import ModelBuilder, run_reference
from convoy.verif.models import check_model

Q, IMAGE = PRESETS["Q"], (1, 6, 5, 8)
QUANTS = {np.int8: (0.05, 3), np.uint8: (0.05, 130), np.int16: (0.05, 0)}


def shuffled(dtype) -> bytes:
    """Channels in two groups change places between two pools."""
    builder, quant = ModelBuilder(), QUANTS[dtype]

    def integers(*values):
        return builder.tensor((len(values),), np.int32, data=np.array(values))

    def pool(source, **options):
        target = builder.tensor(IMAGE, dtype, *quant)
        builder.op("MAX_POOL_2D", [source], [target], filterWidth=1, strideH=1, strideW=1, **options)
        return target

    source = builder.tensor(IMAGE, dtype, *quant)
    grouped, turned = builder.tensor((1, 6, 5, 2, 4), dtype, *quant), builder.tensor((1, 6, 5, 4, 2), dtype, *quant)
    back = builder.tensor(IMAGE, dtype, *quant)
    builder.op("RESHAPE", [pool(source, filterHeight=2), integers(1, 6, 5, 2, 4)], [grouped])
    builder.op("TRANSPOSE", [grouped, integers(0, 1, 2, 4, 3)], [turned])
    builder.op("RESHAPE", [turned, integers(*IMAGE)], [back])
    return builder.finish([source], [pool(back, filterHeight=2)])


def test_two_transpositions_share_a_reshape():
    """It goes away with the first of them."""
    builder, quant = ModelBuilder(), QUANTS[np.int8]
    shapes = [(1, 4, 5, 9), (1, 9, 4, 5), (1, 3, 3, 20), (1, 3, 20, 3), (1, 3, 4, 15)]
    source, *made = [builder.tensor(shape, np.int8, *quant) for shape in shapes]
    orders = {0: (0, 3, 1, 2), 2: (0, 1, 3, 2)}
    for place, (read, result) in enumerate(zip([source, *made], made, strict=False)):
        values = np.array(orders.get(place, shapes[place + 1]))
        operand = builder.tensor(values.shape, np.int32, data=values)
        builder.op("TRANSPOSE" if place in orders else "RESHAPE", [read, operand], [result])
    check_model(builder.finish([source], [made[-1]]), Q)


def test_transpositions_in_a_row_are_one():
    """Channels are shuffled as in a network whose channels come first, and then turned back."""
    builder, quant = ModelBuilder(), QUANTS[np.int8]
    shapes = [(1, 4, 5, 6), (1, 6, 4, 5), (1, 2, 3, 4, 5), (1, 3, 2, 4, 5), (1, 6, 4, 5), (1, 4, 5, 6), (1, 3, 5, 6)]
    source, *made = [builder.tensor(shape, np.int8, *quant) for shape in shapes]
    orders = {0: (0, 3, 1, 2), 2: (0, 2, 1, 3, 4), 4: (0, 2, 3, 1)}
    for place, (read, result) in enumerate(zip([source, *made[:4]], made, strict=False)):
        values = np.array(orders.get(place, shapes[place + 1]))
        operand = builder.tensor(values.shape, np.int32, data=values)
        builder.op("TRANSPOSE" if place in orders else "RESHAPE", [read, operand], [result])
    builder.op("MAX_POOL_2D", [made[4]], [made[5]], filterHeight=2, filterWidth=1, strideH=1, strideW=1, padding=1)
    plan = check_model(builder.finish([source], [made[5]]), Q)
    assert [op.kind for op in plan.graph.ops] == ["TRANSPOSE", "MAX_POOL_2D"]


@pytest.mark.parametrize("dtype", QUANTS)
def test_shuffled_channels_are_one_copy(dtype):
    model = shuffled(dtype)
    plan = check_model(model, Q)
    assert [op.kind for op in plan.graph.ops] == ["MAX_POOL_2D", "TRANSPOSE", "MAX_POOL_2D"]
    ops = [plan.steps[0].program.ops.count(op.index) for op in plan.graph.ops]
    assert ops[1] == 1


def test_all_results_are_stored_where_operators_are_kept_apart():
    """So that a part of the network can start from any of them."""
    loaded = load_tflite(shuffled(np.int8))
    plan = compile_graph(loaded.graph, Q, keep_tensors=True, is_fusing=False)
    inputs = random_values(loaded.graph, 0)
    expected, got = run_reference(loaded.data, list(inputs.values())), run_plan(plan, dict(inputs))
    for op in loaded.graph.ops:
        np.testing.assert_array_equal(got[op.outputs[0]], expected[op.outputs[0]], err_msg=op.kind)


@pytest.mark.parametrize("dtype", QUANTS)
def test_a_constant_is_concatenated(dtype):
    info, builder = np.iinfo(dtype), ModelBuilder()
    values = np.random.default_rng(0).integers(info.min, info.max + 1, (1, 6, 5, 3))
    source, constant = (
        builder.tensor(IMAGE, dtype, *QUANTS[dtype]),
        builder.tensor(values.shape, dtype, *QUANTS[dtype], data=values),
    )
    target = builder.tensor((1, 6, 5, 11), dtype, *QUANTS[dtype])
    builder.op("CONCATENATION", [source, constant], [target], axis=3)
    check_model(builder.finish([source], [target]), Q)


@pytest.mark.parametrize("seed", range(4))
def test_concatenation_of_uint8_with_other_scales(seed):
    rng, builder = np.random.default_rng(seed), ModelBuilder()
    first = builder.tensor(IMAGE, np.uint8, float(rng.uniform(0.01, 0.1)), int(rng.integers(0, 256)))
    second = builder.tensor(IMAGE, np.uint8, 0.05, 130)
    third = builder.tensor((1, 6, 5, 3), np.uint8, 0.03, 7, data=rng.integers(0, 256, (1, 6, 5, 3)))
    target = builder.tensor((1, 6, 5, 19), np.uint8, 0.05 if seed % 2 else 0.0625, 130)
    builder.op("CONCATENATION", [first, second, third], [target], axis=3)
    model = builder.finish([first, second], [target])
    check_model(model, Q)
    assert "TABLE" in [op.kind for op in expand(load_tflite(model).graph, Q).ops]


@pytest.mark.parametrize("dtype", QUANTS)
def test_broadcast(dtype):
    builder = ModelBuilder()
    source, target = (builder.tensor(shape, dtype, *QUANTS[dtype]) for shape in ((1, 4), (1, 5, 3, 4)))
    builder.op("BROADCAST_TO", [source, builder.tensor((4,), np.int32, data=np.array([1, 5, 3, 4]))], [target])
    check_model(builder.finish([source], [target]), Q)


def test_float_is_broadcast_by_the_host():
    builder = ModelBuilder()
    source, target = builder.tensor((1, 1, 5, 1), np.float32), builder.tensor(IMAGE, np.float32)
    shape = builder.tensor((4,), np.int32, data=np.array(IMAGE))
    builder.op("BROADCAST_TO", [source, shape], [target])
    check_model(builder.finish([source], [target]), Q, num_host_steps=1)
