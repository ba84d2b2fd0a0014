"""The tensor processor makes the input of a convolution while its first stripes are computed."""

import numpy as np
import pytest

from convoy.driver.graph.tflite_writer import write_tflite
from convoy.spec.config import PRESETS
from convoy.spec.isa import HEADER, TP, Opcode
from convoy.verif.graphs import GraphMaker
from convoy.verif.models import check_model

Q = PRESETS["Q"]


def conv(maker, source, size, num_oc=16, kernel=3, stride=2, padding="SAME", dtype=np.int8) -> int:
    """A convolution of an image; its result."""
    num_ic = maker.tensors[source].shape[3]
    weights = maker.weights((num_oc, kernel, kernel, num_ic), num_oc, 0)
    kind, scale = np.int64 if dtype == np.int16 else np.int32, 0.05 * float(maker.tensors[weights].quant.scale[0])
    bias = maker.tensor((num_oc,), kind, maker.rng.integers(-2000, 2000, num_oc).astype(kind), scale, zero_point=0)
    options = {"stride_h": stride, "stride_w": stride, "padding": padding, "activation": "NONE"}
    out = [-(-n // stride) if padding == "SAME" else (n - kernel) // stride + 1 for n in size]
    return maker.op("CONV_2D", (source, weights, bias), (1, *out, num_oc), **options)


def stem(dtype, size, padding) -> bytes:
    """A convolution of stride 2 of an image as it comes, channels innermost."""
    maker = GraphMaker(1, dtype)
    source = maker.tensor((1, *size, 3))
    return write_tflite(maker.graph([source], [conv(maker, source, size, padding=padding, dtype=dtype)]))


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


def test_the_first_stripe_waits_for_its_own_rows_only():
    """It is a short one, and the blocks of the input end where stripes do."""
    (step,) = check_model(stem(np.int8, (64, 64), "SAME"), Q).steps
    headers = [HEADER.decode(raw[: HEADER.num_bytes]) for raw in step.program.descriptors]
    first = [header["opcode"] for header in headers].index(Opcode.NN)
    made = [TP.decode(raw) for raw in step.program.descriptors[: first - headers[first]["tp_ahead"]]]
    assert sum(d["num_0"] * d["num_1"] * d["num_2"] for d in made) < 64 * 64 * 3 // 3


def test_no_stripes_where_the_first_would_wait_for_all():
    """An elementwise operation is done channel by channel."""
    maker, size = GraphMaker(2, np.int8), (24, 24)
    source = maker.tensor((1, *size, 3))
    factors = [conv(maker, source, size, stride=1) for _ in range(2)]
    product = maker.op("MUL", factors, (1, *size, 16), activation="NONE")
    (step,) = check_model(write_tflite(maker.graph([source], [conv(maker, product, size, 8, 1, 1)])), Q).steps
    ops = step.program.ops
    assert max(n for n, op in enumerate(ops) if op == 2) < ops.index(3)
