"""Pools that read pixels where they are: the pads before them are theirs, and their windows count them."""

import numpy as np
import pytest

from convoy.driver.lower.work import Axis, PoolWork
from convoy.driver.plan.pools import best_pool
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import TpOp
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model

Q = PRESETS["Q"]
SMALL = NpuConfig(num_cores=2, tp_buffer_bytes=1024)
FRAME = (0, 0), (1, 1), (0, 2), (0, 0)


def framed(kind, pads, kernel, stride, dtype=np.int8, zero_point=3, filler=None, is_read=False) -> bytes:
    """A PAD, or a PADV2 with `filler`, and a pool of what it makes."""
    builder, shape = ModelBuilder(), (1, 14, 17, 9)
    whole = tuple(size + sum(pad) for size, pad in zip(shape, pads, strict=True))
    out = 1, *((size - kernel) // stride + 1 for size in whole[1:3]), 9
    source, padded, target = (builder.tensor(size, dtype, 0.05, zero_point) for size in (shape, whole, out))
    inputs = [source, builder.tensor((4, 2), np.int32, data=np.array(pads))]
    if filler is not None:
        inputs.append(builder.tensor((1,), dtype, 0.05, zero_point, data=np.array([filler])))
    builder.op("PAD" if filler is None else "PADV2", inputs, [padded])
    window = {"filterHeight": kernel, "filterWidth": kernel, "strideH": stride, "strideW": stride}
    builder.op(kind, [padded], [target], padding=1, **window)
    return builder.finish([source], [target, padded] if is_read else [target])


@pytest.mark.parametrize("config", [Q, SMALL], ids=["Q", "small"])
@pytest.mark.parametrize(
    ("kind", "kernel", "stride", "options"),
    [
        ("MAX_POOL_2D", 3, 2, {}),
        ("MAX_POOL_2D", 2, 2, {"dtype": np.uint8}),
        ("MAX_POOL_2D", 3, 2, {"dtype": np.int16, "zero_point": 0}),
        ("MAX_POOL_2D", 5, 3, {"zero_point": -128}),
        ("MAX_POOL_2D", 4, 1, {"filler": -128}),
        ("MAX_POOL_2D", 3, 2, {"filler": 50}),
        ("AVERAGE_POOL_2D", 3, 2, {}),
        ("AVERAGE_POOL_2D", 3, 1, {"dtype": np.uint8}),
    ],
)
def test_pads_before_a_pool_are_its_own(kind, kernel, stride, options, config):
    frame = ((0, 0), (1, 1), (0, 1), (0, 0)) if kernel == 2 else FRAME
    plan = check_model(framed(kind, frame, kernel, stride, **options), config)
    assert [(op.kind, op.note) for op in plan.graph.ops] == [
        (kind, f"reads what operator 0 {'PADV2' if 'filler' in options else 'PAD'} would read")
    ]


@pytest.mark.parametrize(
    ("kind", "pads", "kernel", "stride", "options"),
    [
        ("MAX_POOL_2D", FRAME, 3, 1, {}),
        ("MAX_POOL_2D", ((0, 0), (3, 0), (0, 0), (0, 0)), 3, 2, {"zero_point": -128}),
        ("AVERAGE_POOL_2D", FRAME, 3, 3, {}),
        ("AVERAGE_POOL_2D", FRAME, 3, 2, {"dtype": np.int16, "zero_point": 0}),
    ],
    ids=["stride 1", "nothing but pads", "stride 3", "int16"],
)
def test_other_pads_stay(kind, pads, kernel, stride, options):
    plan = check_model(framed(kind, pads, kernel, stride, **options), Q)
    assert [op.kind for op in plan.graph.ops] == ["PAD", kind]


def test_pads_that_others_read_are_made_for_them():
    plan = check_model(framed("MAX_POOL_2D", FRAME, 3, 2, is_read=True), Q)
    assert [op.inputs[0] for op in plan.graph.ops] == [plan.graph.inputs[0]] * 2


def test_pads_are_made_where_the_nn_engine_turns_out_not_to_have_the_pool(monkeypatch):
    """Known only behind lowering: all passes begin again."""
    axis = Axis(14, 7, 3, 2, pad=1)
    assert best_pool(PoolWork(TpOp.AVG_POOL, 9, axis, axis, -128, 127, lut=None, fill=3), Q) is not None
    falling = ~np.roll(np.arange(-128, 128), -128).astype(np.int8)
    assert best_pool(PoolWork(TpOp.MAX_POOL, 9, axis, axis, -128, 127, lut=falling, fill=3), Q) is None
    builder = framed("MAX_POOL_2D", FRAME, 3, 2)
    monkeypatch.setattr("convoy.driver.compile.strides.best_pool", lambda work, config: None)
    plan = check_model(builder, Q)
    assert [op.kind for op in plan.graph.ops] == ["PAD", "MAX_POOL_2D"]
