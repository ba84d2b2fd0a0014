"""Images that are interleaved and resized in several steps: that they are exact whatever is chosen, and what is."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.driver.compile import strides
from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.emit.descriptors import work_blocks
from convoy.driver.graph.tflite_reader import read_tflite
from convoy.driver.lower.work import ConvWork, InterleaveWork, ZoomAxis, ZoomPiece, ZoomWork
from convoy.driver.plan.turns import conv_forms, image_forms, one_step
from convoy.golden.memory import MemoryView
from convoy.golden.tp import execute_tp
from convoy.spec.config import PRESETS, NpuConfig
from convoy.spec.isa import FRACTION_BITS, HEADER, TP, Opcode, TpOp
from convoy.verif.litert import ModelBuilder
from convoy.verif.models import check_model, one_op
from convoy.verif.strategies import configs

Q = PRESETS["Q"]
PROPERTY = settings(deadline=None, max_examples=15, derandomize=True)
sizes, channels = st.integers(1, 9), st.integers(1, 9)
MODES = [{}, {"halfPixelCenters": True}, {"alignCorners": True}]


def requantised(sums, mult, exponent):
    """Single rounding of docs/quantisation.md, for a right shift."""
    product, shift = sums * mult, 31 - exponent
    return (product + (1 << (shift - 1)) - (product < 0)) >> shift


def forced(number):
    """Makes the compiler take form `number` of each image and convolution that has so many, whatever it costs."""

    def chosen(forms):
        return lambda work: list(forms(work))[number : number + 1]

    return mock.patch.multiple(
        strides,
        image_forms=chosen(image_forms),
        conv_forms=chosen(conv_forms),
        steps_cycles=lambda steps, config: -len(steps.steps),
    )


def check(number, model, config):
    with forced(number):
        check_model(model, config)


@PROPERTY
@given(sizes, sizes, channels, st.integers(1, 4), configs())
def test_interleaved_images(height, width, num_c, block, config):
    shape, out = (1, height, width, num_c * block * block), (1, height * block, width * block, num_c)
    check(0, one_op("DEPTH_TO_SPACE", shape, out, [], blockSize=block), config)


@PROPERTY
@given(st.integers(0, 1), sizes, sizes, channels, st.integers(1, 4), st.integers(1, 4), configs())
def test_repeated_pixels(number, height, width, num_c, times_h, times_w, config):
    out = height * times_h, width * times_w
    check(number, one_op("RESIZE_NEAREST_NEIGHBOR", (1, height, width, num_c), (1, *out, num_c), [out]), config)


@PROPERTY
@given(
    st.integers(0, 1), sizes, sizes, channels, *[st.sampled_from([1, 2, 4, 8])] * 2, st.sampled_from(MODES), configs()
)
def test_interpolated_pixels(number, height, width, num_c, times_h, times_w, mode, config):
    out = height * times_h, width * times_w
    if "alignCorners" in mode:
        out = (height - 1) * times_h + 1, (width - 1) * times_w + 1
    check(number, one_op("RESIZE_BILINEAR", (1, height, width, num_c), (1, *out, num_c), [out], **mode), config)


@PROPERTY
@given(
    st.integers(0, 1), *[st.tuples(sizes, sizes)] * 2, channels, st.tuples(*[st.integers(1, 3)] * 2), st.integers(0, 1)
)
def test_transposed_convolutions_in_parts(number, size, kernel, num_c, stride, padding):
    """Each row within a stride is a convolution, and interleaved while the next one is computed."""
    check(number, transposed(size, 3, num_c, kernel, stride, padding), Q)


def transposed(size, num_ic, num_oc, kernel, stride, padding):
    builder, rng = ModelBuilder(), np.random.default_rng(num_oc)
    out = [
        n * step if padding == 0 else (n - 1) * step + taps for n, step, taps in zip(size, stride, kernel, strict=True)
    ]
    shape = builder.tensor((4,), np.int32, data=np.array([1, *out, num_oc]))
    values = rng.integers(-127, 128, (num_oc, *kernel, num_ic))
    weights = builder.tensor(values.shape, np.int8, 0.01, 0, data=values)
    source = builder.tensor((1, *size, num_ic), np.int8, 0.05, 3)
    target = builder.tensor((1, *out, num_oc), np.int8, 0.1, -4)
    options = {"padding": padding, "strideH": stride[0], "strideW": stride[1]}
    builder.op("TRANSPOSE_CONV", [shape, weights, source], [target], **options)
    return builder.finish([source], [target])


def test_a_part_is_computed_while_the_one_before_is_interleaved():
    """The second convolution comes behind the first block that interleaves, and does not wait for it."""
    plan = compile_graph(read_tflite(transposed((24, 24), 32, 16, (2, 2), (2, 2), 0)), Q)
    headers = [HEADER.decode(raw[: HEADER.num_bytes]) for raw in plan.steps[0].program.descriptors]
    place = next(n for n, header in enumerate(headers) if header["opcode"] == Opcode.TP and header["wait_nn"])
    assert headers[place + 1]["opcode"] == Opcode.NN
    assert not headers[place + 1]["wait_tp"]
    behind = next(header for header in headers[place + 1 :] if header["opcode"] == Opcode.TP)
    assert not behind["wait_nn"]


@pytest.mark.parametrize("config", [Q, NpuConfig(tp_buffer_bytes=1024)], ids=["Q", "small"])
@pytest.mark.parametrize("size_out", [(6, 20), (5, 20), (6, 17)])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (2, 1, 0)])
def test_every_order_of_planes_is_interleaved(order, size_out, config):
    """In one step and in each form of several, in either orientation."""
    work, num_bytes = InterleaveWork(12, 2, 4, (3, 5), size_out, order), 12 * 6 * 20
    source = np.arange(num_bytes, dtype=np.uint8)
    planes = source.reshape(*(work.counts[axis] for axis in order), 3, 5)
    image = planes.transpose(order.index(2), 3, order.index(0), 4, order.index(1)).reshape(12, 6, 20)
    for is_transposed in (False, True):
        turned = work.oriented(is_transposed)
        want = image[:, : size_out[0], : size_out[1]].swapaxes(1, 1 + is_transposed)
        start = source.reshape(-1, 3, 5).swapaxes(1, 1 + is_transposed)
        for steps in (one_step(turned), *image_forms(turned)):
            memory = np.zeros((len(steps.steps) + 1) * num_bytes, np.uint8)
            memory[:num_bytes] = start.ravel()
            for number, step in enumerate(steps.steps, 1):
                for each in step.works:
                    addrs = [(step.source + 1) * num_bytes], number * num_bytes
                    for block in work_blocks(each, *addrs, step.num_bytes, config):
                        execute_tp(config, MemoryView(memory), block)
            made = memory[len(steps.steps) * num_bytes :]
            np.testing.assert_array_equal(made[: want.size], want.ravel())
            assert not made[want.size :].any()


def zoom(factor, start, size=8):
    step = (1 << FRACTION_BITS) // factor
    axis = ZoomAxis(size, size * factor, (ZoomPiece(0, size * factor, start, step),))
    return ZoomWork(TpOp.BILINEAR, 3, axis, axis)


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("is_centred", [False, True])
def test_interpolation_is_exact_for_every_sum(factor, is_centred):
    """Weights of an output are those of the four pixels, exactly; their sum is a power of two, which the multiplier
    divides by as the tensor processor does.
    """
    work = zoom(factor, ((1 << FRACTION_BITS) // factor - (1 << FRACTION_BITS)) // 2 if is_centred else 0)
    steps, in_parts = image_forms(work)
    (conv,) = (each for step in steps.steps for each in step.works if isinstance(each, ConvWork))
    parts = [each for step in in_parts.steps for each in step.works if isinstance(each, ConvWork)]
    np.testing.assert_array_equal(np.concatenate([part.weights for part in parts]), conv.weights)
    low, fraction = work.cols.places
    count = int(conv.weights[0].sum())
    ratio = (1 << 2 * FRACTION_BITS) // count
    inner = conv.weights.reshape(factor, -1, conv.weights.shape[2], work.cols.size_in)[:, factor * 3 : factor * 4]
    place = work.rows.pieces[0].start + np.arange(factor) * work.rows.pieces[0].step
    for y, x in np.ndindex(inner.shape[:2]):
        column, part = low[3 * factor + x], fraction[3 * factor + x]
        want = np.zeros_like(inner[y, x], dtype=np.int64)
        first, dy = (place[y] >> FRACTION_BITS) - (place.min() >> FRACTION_BITS), place[y] % (1 << FRACTION_BITS)
        for row, weight_y in ((first, (1 << FRACTION_BITS) - dy), (first + 1, dy)):
            for col, weight_x in ((column, (1 << FRACTION_BITS) - part), (column + 1, part)):
                if weight_y * weight_x:
                    want[row, col] = weight_y * weight_x
        np.testing.assert_array_equal(inner[y, x].astype(np.int64) * ratio, want)
    assert (conv.weights.sum(axis=(1, 2, 3)) == count).all()
    sums = np.arange(-128 * count, 128 * count + 1)
    away = np.sign(sums) * ((2 * np.abs(sums) + count) // (2 * count))
    np.testing.assert_array_equal(requantised(sums, int(conv.mult[0]), int(conv.exponent[0])), away)


@pytest.mark.parametrize(
    "work", [zoom(3, 0), zoom(16, 0), zoom(16, -480)], ids=["thirds", "16, corners", "16, centred"]
)
def test_weights_of_more_than_8_bits_are_for_the_tensor_processor(work):
    assert not list(image_forms(work))


def steps_of(kind, shape, out, **options):
    """Does a program interpolate on the tensor processor, and has the NN engine work?"""
    plan = compile_graph(read_tflite(one_op(kind, shape, out, [out[1:3]], **options)), Q)
    descriptors = plan.steps[0].program.descriptors
    ops = [TP.decode(raw)["op"] for raw in descriptors if HEADER.decode(raw[: HEADER.num_bytes])["opcode"] == Opcode.TP]
    return TpOp.BILINEAR in ops, len(descriptors) > len(ops)


def test_what_is_chosen():
    """Interpolation by twice is a convolution, by three times and of few pixels an operation of its own, of one pixel
    a copy.
    """
    centred = {"halfPixelCenters": True}
    assert steps_of("RESIZE_BILINEAR", (1, 16, 16, 16), (1, 32, 32, 16), **centred) == (False, True)
    assert steps_of("RESIZE_BILINEAR", (1, 16, 16, 16), (1, 48, 48, 16), **centred) == (True, False)
    assert steps_of("RESIZE_BILINEAR", (1, 3, 3, 4), (1, 6, 6, 4), **centred) == (True, False)
    assert steps_of("RESIZE_BILINEAR", (1, 1, 1, 16), (1, 16, 16, 16)) == (False, False)
