"""Weight streams: encoder against a decoder written from docs/architecture.md."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.pack import encode_stream
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.golden.nn_check import check_nn
from convoy.golden.stream import decode_tokens
from convoy.spec.config import PRESETS
from convoy.spec.isa import NN, Opcode


def decode(raw: bytes, run_bits: int, num_positions: int) -> list[int]:
    """Token by token, as the page says it."""
    word, weights = int.from_bytes(raw, "little"), []
    while len(weights) < num_positions:
        value = word & 0xFF
        weights += [0] * (word >> 8 & ((1 << run_bits) - 1))
        weights.append(value - 256 if value & 0x80 else value)
        word >>= 8 + run_bits
    assert word == 0, "tokens after the last position"
    return weights


def test_hand_made_stream():
    # run_bits 2: (run 1, value 3), (run 3, value 0): four zeros, (run 0, value -1)
    tokens = [1 << 8 | 3, 3 << 8 | 0, 0 << 8 | 0xFF]
    expected = sum(token << (10 * n) for n, token in enumerate(tokens)).to_bytes(4, "little")
    assert encode_stream(np.array([0, 3, 0, 0, 0, 0, -1], np.int8), 2) == expected


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(1, 300), st.sampled_from([0.0, 0.03, 0.3, 0.9, 1.0]), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_round_trip(num_weights, density, run_bits, seed):
    rng = np.random.default_rng(seed)
    weights = (rng.integers(-128, 128, num_weights) * (rng.random(num_weights) < density)).astype(np.int8)
    raw = encode_stream(weights, run_bits)
    assert decode(raw, run_bits, num_weights) == weights.tolist()
    dense, num_bits = decode_tokens(np.frombuffer(raw, np.uint8), run_bits, num_weights)
    np.testing.assert_array_equal(dense, weights)
    assert len(raw) == -(-num_bits // 8)


def test_dense_weights_cost_their_bytes():
    assert encode_stream(np.array([1, -2, 3], np.int8), 0) == bytes([1, 0xFE, 3])


@pytest.mark.parametrize(("size", "run_bits"), [(1, 6), (1, -1), (0, 0)])
def test_refusals(size, run_bits):
    with pytest.raises(ValueError, match=rf"run_bits = {run_bits} with {size} weights"):
        encode_stream(np.ones(size, np.int8), run_bits)


@pytest.mark.parametrize(
    ("op", "kernel", "num_oc", "density", "run_bits"),
    [
        ("conv", (3, 3), 64, 1.0, 0),
        ("conv", (3, 3), 64, 0.05, 5),
        ("conv", (3, 3), 64, 0.15, 4),  # 12 bits and one token in fourteen are fewer than 13 bits
        ("conv", (3, 3), 12, 0.05, 4),  # three kernels of a core: 27 taps
        ("conv", (3, 3), 4, 0.05, 3),
        ("conv", (1, 2), 64, 0.05, 3),
        ("conv", (1, 1), 64, 0.05, 4),
        ("depthwise", (3, 3), 64, 0.05, 3),
    ],
)
def test_runs_are_as_long_as_they_may_be(op, kernel, num_oc, density, run_bits):
    """The compiler takes what makes the streams shortest, up to a window or a few kernels."""
    layer = LayerSpec(op, (8, 8, 64), num_oc, kernel, (1, 1), (0, 0, 0, 0), density)
    [step] = compile_graph(make_layer(layer).graph, PRESETS["Q"]).steps
    descriptors = [NN.decode(raw) for raw in step.program.descriptors if raw[0] == Opcode.NN]
    assert {d["run_bits"] for d in descriptors} == {run_bits}
    for d in descriptors:
        check_nn(PRESETS["Q"], d)
