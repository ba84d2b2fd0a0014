"""Networks for an NPU whose tensor processor lacks units: run another way, or by the CPU with a reason."""

import numpy as np
import pytest

from convoy.driver.emit.program import HostStep
from convoy.spec.config import NpuConfig
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model, one_op

SMALL = NpuConfig(num_cores=2, num_lanes=8, post_lanes=2)
SHAPE = 1, 4, 5, 6
TWICE, ODD = ((1, 8, 10, 6), [[8, 10]]), ((1, 7, 9, 6), [[7, 9]])


def pooled(kind: str, kernel: int, stride: int) -> bytes:
    out = 1, *((size - kernel) // stride + 1 for size in SHAPE[1:3]), SHAPE[3]
    window = {"filterHeight": kernel, "filterWidth": kernel, "strideH": stride, "strideW": stride}
    return one_op(kind, SHAPE, out, [], padding=1, **window)


def of_two(kind: str) -> bytes:
    builder = ModelBuilder()
    a, b, target = (builder.tensor(SHAPE, np.int8, 0.05, 3) for _ in range(3))
    builder.op(kind, [a, b], [target])
    return builder.finish([a, b], [target])


@pytest.mark.parametrize(
    ("unit", "model", "is_on_npu"),
    [
        ("tp_has_arithmetic", of_two("ADD"), False),
        ("tp_has_arithmetic", of_two("MAXIMUM"), False),
        ("tp_has_arithmetic", one_op("MEAN", SHAPE, (1, 6), [[1, 2]]), True),
        ("tp_has_pools", pooled("MAX_POOL_2D", 2, 2), True),
        ("tp_has_pools", pooled("MAX_POOL_2D", 4, 1), False),
        ("tp_has_pools", pooled("AVERAGE_POOL_2D", 2, 1), True),
        ("tp_has_pools", one_op("MEAN", SHAPE, (1, 6), [[1, 2]]), True),
        ("tp_has_pools", one_op("REDUCE_MAX", SHAPE, (1, 6), [[1, 2]]), False),
        ("tp_has_pools", one_op("RESIZE_NEAREST_NEIGHBOR", SHAPE, *TWICE), True),
        ("tp_has_pools", one_op("RESIZE_NEAREST_NEIGHBOR", SHAPE, *ODD), False),
        ("tp_has_resize", one_op("RESIZE_BILINEAR", SHAPE, *TWICE, halfPixelCenters=True), True),
        ("tp_has_resize", one_op("RESIZE_BILINEAR", SHAPE, *ODD, halfPixelCenters=True), False),
    ],
)
def test_operators_without_their_unit(unit, model, is_on_npu):
    plan = check_model(model, SMALL.with_(**{unit: False}), num_host_steps=not is_on_npu)
    reasons = [reason for step in plan.steps if isinstance(step, HostStep) for reason in step.reasons]
    assert reasons == ([] if is_on_npu else [f"this NPU has {unit} = false"])
