"""The tensor processor makes the input of a convolution while its first stripes are computed."""

import numpy as np
import pytest

from convoy.driver.graph.tflite_writer import write_tflite
from convoy.spec.config import PRESETS
from convoy.spec.isa import HEADER, Opcode
from convoy.verif.graphs import GraphMaker
from convoy.verif.models import check_model

Q = PRESETS["Q"]


def stem(dtype, size, padding) -> bytes:
    """A convolution of stride 2 of an image as it comes, channels innermost."""
    maker = GraphMaker(1, dtype)
    source, weights = maker.tensor((1, *size, 3)), maker.weights((16, 3, 3, 3), 16, 0)
    out = [-(-n // 2) if padding == "SAME" else (n - 3) // 2 + 1 for n in size]
    kind, scale = np.int64 if dtype == np.int16 else np.int32, 0.05 * float(maker.tensors[weights].quant.scale[0])
    bias = maker.tensor((16,), kind, maker.rng.integers(-2000, 2000, 16).astype(kind), scale, zero_point=0)
    options = {"stride_h": 2, "stride_w": 2, "padding": padding, "activation": "NONE"}
    target = maker.op("CONV_2D", (source, weights, bias), (1, *out, 16), **options)
    return write_tflite(maker.graph([source], [target]))


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_stripes_wait_for_the_blocks_they_read(dtype, padding):
    """What they read is there, says the golden machine, which knows what each descriptor waits for."""
    plan = check_model(stem(dtype, (64, 64), padding), Q)
    (step,) = plan.steps
    headers = [HEADER.decode(raw[: HEADER.num_bytes]) for raw in step.program.descriptors]
    engines = [header["opcode"] for header in headers]
    assert Opcode.NN in engines[: len(engines) - engines[::-1].index(Opcode.TP)]  # a stripe before the last block
    assert any(header["tp_ahead"] for header in headers)
