"""The decoder against the golden model's tokens: random streams, runs over several kernels and windows, arrival
times.
"""

import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convoy.golden.stream import decode_tokens
from convoy.hw.nn.decoder import StepDivider, TapWrite, TokenDecoder
from convoy.spec.config import NpuConfig
from convoy.spec.isa import MAX_RUN_BITS, MAX_STEP_KERNELS
from convoy.verif.pysim import always, receive, send, simulate, sometimes

PORT_BITS = 64


@pytest.mark.parametrize("num_taps", [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 16, 25, 31, 32, 33, 121])
def test_every_step_is_divided(num_taps):
    dut = StepDivider()
    found = []
    runs = range(min(1 << MAX_RUN_BITS, num_taps * MAX_STEP_KERNELS if num_taps > 1 else 1 << MAX_RUN_BITS))

    async def testbench(ctx):
        ctx.set(dut.num_taps, num_taps)
        await ctx.tick()
        for run in runs:
            ctx.set(dut.run, run)
            found.append((ctx.get(dut.kernels), ctx.get(dut.taps)))
            assert num_taps == 1 or ctx.get(dut.next_kernels) == found[-1][0] + 1

    simulate(dut, testbench)
    assert found == [divmod(run + 1, num_taps) for run in runs]


def tokens(rng: random.Random, num_positions: int, run_bits: int, density: float) -> list[tuple[int, int]]:
    """Any legal tokens (run, value) up to the last position: runs need not be as long as they could, zeros may be
    spelt out.
    """
    made, position = [], -1
    while position < num_positions - 1:
        run = (
            rng.randrange(min(1 << run_bits, num_positions - 1 - position))
            if rng.random() < 0.5
            else min((1 << run_bits) - 1, num_positions - 2 - position)
        )
        made.append((run, rng.randrange(1, 256) if rng.random() < density else 0))
        position += run + 1
    return made


@st.composite
def cases(draw):
    is_depthwise = draw(st.booleans())
    num_taps = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 9, 25, 121]))
    kernels = draw(st.integers(1, 4)) if is_depthwise else draw(st.sampled_from([1, 2, 3, 4, 5, 16, 32, 64]))
    last = kernels if is_depthwise else draw(st.integers(1, kernels))
    num_z = draw(st.integers(1, 4))
    limit = num_taps * min(last, MAX_STEP_KERNELS) if num_taps > 1 else last
    longest = min(MAX_RUN_BITS, limit.bit_length() - 1)
    return dict(
        num_z=num_z,
        num_z_last=num_z,
        kernels_per_z=kernels,
        kernels_per_z_last=last,
        num_taps=num_taps,
        run_bits=draw(st.one_of(st.just(longest), st.integers(0, longest))),
        wgt_zero_point=draw(st.sampled_from([0, -128, 127, 3])),
        is_wide=draw(st.integers(0, 1)),
        is_depthwise=int(is_depthwise),
        num_vec=draw(st.sampled_from([1, 2])),
    )


SMALL = dict(num_z=3, num_z_last=3, wgt_zero_point=0, is_wide=0, is_depthwise=0, num_vec=1)


@settings(max_examples=60, deadline=None)
@given(
    cases(),
    st.integers(1, 2),
    st.integers(1, 2),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.4]),
    st.integers(0, 1 << 16),
)
@example(
    SMALL | dict(kernels_per_z=4, kernels_per_z_last=4, num_taps=8, run_bits=5), 1, 2, 1.0, 0.0, 0
)  # a step may be a whole window
@example(SMALL | dict(kernels_per_z=16, kernels_per_z_last=16, num_taps=9, run_bits=5), 1, 2, 0.0, 0.0, 0)
@example(SMALL | dict(kernels_per_z=32, kernels_per_z_last=32, num_taps=1, run_bits=5), 1, 2, 0.5, 0.4, 0)
def test_decoder_gives_the_weights_in_their_places(job, num_sb, num_groups, density, stall, seed):
    config = NpuConfig(num_cores=1, num_acc_entries=256, port_bits=PORT_BITS)
    rng = random.Random(seed)
    offsets = [rng.randrange(1 << 16) for _ in range(job["num_taps"])]
    beats, expected = [], []
    for sb in range(num_sb):
        per_z = job["kernels_per_z_last"] if sb == num_sb - 1 else job["kernels_per_z"]
        shape = job["num_z"], per_z, job["num_taps"]
        word, num_bits = 0, 0
        for run, value in tokens(rng, int(np.prod(shape)), job["run_bits"], density):
            word |= (run << 8 | value) << num_bits
            num_bits += 8 + job["run_bits"]
        num_beats = -(-num_bits // PORT_BITS)
        raw = np.frombuffer(word.to_bytes(num_beats * PORT_BITS // 8, "little"), np.uint8)
        weights, _ = decode_tokens(raw, job["run_bits"], int(np.prod(shape)), job["wgt_zero_point"])
        places = []
        for z, kz, tap in np.argwhere(weights.reshape(shape)):
            kernel = z * per_z + kz if job["is_depthwise"] else kz
            entry = (kernel * job["num_vec"] << job["is_wide"]) % config.num_acc_entries
            offset = offsets[tap] % (config.window_words * config.num_lanes)
            places.append((int(weights.reshape(shape)[z, kz, tap]), offset, int(entry), int(z)))
        for group in range(num_groups):
            flags = {"is_last_group": group == num_groups - 1, "is_last_sb": sb == num_sb - 1}
            expected.append((flags, places))
            beats += [
                {"data": int.from_bytes(raw[n * 8 : n * 8 + 8].tobytes(), "little"), "last": n == num_beats - 1} | flags
                for n in range(num_beats)
            ]

    dut = TokenDecoder(config)
    found, groups = [], []

    async def testbench(ctx):
        for taps_left, offset in enumerate(reversed(offsets)):
            ctx.set(dut.tap_write, {"en": 1, "bank": 0, "taps_left": taps_left, "offset": offset})
            await ctx.tick()
        ctx.set(dut.tap_write, TapWrite.const({}))
        await send(ctx, dut.job, [job])

    async def feed(ctx):
        await send(ctx, dut.beats, beats, go=sometimes(rng, 1 - stall) if stall else always)

    async def collect(ctx):
        while len(groups) < len(expected):
            found.clear()
            window, is_last = -1, 0
            while not is_last:
                [place] = await receive(ctx, dut.weights, 1, go=sometimes(rng, 1 - stall) if stall else always)
                assert place.value or place.is_new_window or place.is_last, "a zero that says nothing"
                window, is_last = window + place.is_new_window, place.is_last
                flags = {"is_last_group": place.is_last_group, "is_last_sb": place.is_last_sb}
                assert flags == expected[len(groups)][0]
                if place.value:
                    found.append((place.value, place.tap_offset, place.entry, window))
            assert window == job["num_z"] - 1
            groups.append((flags, list(found)))

    simulate(dut, testbench, feed, collect)
    assert groups == expected
