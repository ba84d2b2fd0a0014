"""What the NPU does not take is executed by the host, exactly and with a reason; or refused, if that is wanted."""

import numpy as np
import pytest

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.program import HostStep
from convoy.driver.graph.graph import GraphError
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.spec.config import NpuConfig
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model, one_op

SMALL = NpuConfig(num_cores=2, num_lanes=8, num_acc_entries=16, post_lanes=2, stripe_bytes=4096, window_words=32)
QUANT = (0.05, 3), (0.04, -7)


def conv(shape, out_shape, kernel) -> bytes:
    """A file of a CONV_2D of stride 1."""
    builder, rng = ModelBuilder(), np.random.default_rng(1)
    source = builder.tensor(shape, np.int8, *QUANT[0])
    values = rng.integers(-127, 128, kernel).astype(np.int8)
    weights = builder.tensor(kernel, np.int8, np.full(kernel[0], 0.002), np.zeros(kernel[0], np.int64), data=values)
    target = builder.tensor(out_shape, np.int8, *QUANT[1])
    bias = builder.tensor(kernel[:1], np.int32, data=rng.integers(-500, 500, kernel[0]).astype(np.int32))
    options = dict(strideH=1, strideW=1, padding=1, dilationHFactor=1, dilationWFactor=1)
    builder.op("CONV_2D", [source, weights, bias], [target], **options)
    return builder.finish([source], [target])


BEYOND = {
    "mean of rows": (
        one_op("MEAN", (1, 3, 600, 2), (1, 3, 2), [[2]], *QUANT, keepDims=False),
        "1 x 600 pixels of 3 x 600 become one; the limit is 511",
    ),
    "minimum of int16": (
        one_op("REDUCE_MIN", (1, 6, 6, 4), (1, 4), [[1, 2]], (0.01, 0), (0.01, 0), np.int16, keepDims=False),
        "is int16",
    ),
    "wide": (conv((1, 4, 4, 8192), (1, 2, 2, 3), (3, 3, 3, 8192)), "stripe memory of 4096 bytes"),
}


@pytest.mark.parametrize(("model", "reason"), BEYOND.values(), ids=BEYOND)
def test_the_host_executes_it_exactly(model, reason):
    plan = check_model(model, SMALL, num_host_steps=1)
    (step,) = plan.steps
    assert isinstance(step, HostStep)
    with pytest.raises(GraphError, match=f"operator 0 .*{reason}.*; the host would execute it"):
        compile_graph(read_tflite(model), SMALL, is_strict=True)


def test_what_litert_does_not_take_either_is_refused():
    builder = ModelBuilder()
    operands, quotient = (
        [builder.tensor((1, 4), np.uint8, 0.1, 0) for _ in range(2)],
        builder.tensor((1, 4), np.uint8, 1, 0),
    )
    builder.op("FLOOR_DIV", operands, [quotient])
    model = builder.finish(operands, [quotient])
    with pytest.raises(
        GraphError, match=r"operator 0 FLOOR_DIV .*not supported by the NPU, and LiteRT cannot execute it on the"
    ):
        compile_graph(read_tflite(model), SMALL)
