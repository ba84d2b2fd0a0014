"""The splitter: bytes by address, order of runs, cycles."""

import random

import pytest
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.post.split import ByteSplitter

NUM_LANES, HIGH_BYTES = 4, 0x5000


def run(chunks, *, is_wide=1, has_both=0, stall=0.0, seed=0):
    """Chunks of bytes, (values, address or None, is_last) -> bytes by address, addresses of runs, cycles until the
    last one.

    With `is_wide` the values have 16 bits; with `has_both` both bytes of a value come at once.
    """
    dut, rng = ByteSplitter(NUM_LANES), random.Random(seed)
    written, starts, state = {}, [], {"addr": None, "cycles": 0, "done": False}

    async def source(ctx):
        ctx.set(dut.is_wide, is_wide)
        ctx.set(dut.has_both, has_both)
        ctx.set(dut.high_bytes, HIGH_BYTES)
        for values, addr, is_last in chunks:
            parts = [
                sum((value >> 8 * byte & 255) << 8 * n for n, value in enumerate(values)) for byte in range(1 + is_wide)
            ]
            for data in [parts[0] | parts[1] << 4 * NUM_LANES] if has_both else parts:
                while rng.random() < stall:
                    await ctx.tick()
                ctx.set(
                    dut.i.payload,
                    {
                        "data": data,
                        "count": len(values),
                        "addr": addr or 0xBAD,
                        "start": addr is not None,
                        "last": is_last,
                    },
                )
                ctx.set(dut.i.valid, 1)
                await ctx.tick().until(dut.i.ready)
                ctx.set(dut.i.valid, 0)

    async def sink(ctx):
        while not state["done"]:
            ctx.set(dut.o.ready, rng.random() >= stall)
            _, _, valid, ready, chunk = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload)
            state["cycles"] += 1
            assert state["cycles"] < 5000, "stuck"
            if not (valid and ready):
                continue
            if chunk.start:
                state["addr"] = chunk.addr
                starts.append(chunk.addr)
            for value in chunk.data.to_bytes(NUM_LANES, "little")[: chunk.count]:
                assert state["addr"] not in written
                written[state["addr"]] = value
                state["addr"] += 1
            state["done"] = chunk.last
        assert ctx.get(dut.is_idle)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(source, background=True)
    sim.add_testbench(sink)
    sim.run()
    return written, starts, state["cycles"]


@pytest.mark.parametrize("has_both", [0, 1])
def test_two_rows_by_hand(has_both):
    """Low bytes of a row, its high bytes, then the next row."""
    written, starts, _ = run(
        [([0x201, 0x403], 0x100, 0), ([0x605], None, 0), ([0x807], 0x200, 0), ([], None, 1)], has_both=has_both
    )
    assert starts == [0x100, 0x5100, 0x200, 0x5200]
    assert written == {0x100: 1, 0x101: 3, 0x102: 5, 0x5100: 2, 0x5101: 4, 0x5102: 6, 0x200: 7, 0x5200: 8}


def test_narrow_chunks_pass_at_once():
    written, starts, cycles = run([([1, 2], 0x100, 0), ([3], None, 0), ([4], 0x300, 1)], is_wide=0)
    assert (written, starts, cycles) == ({0x100: 1, 0x101: 2, 0x102: 3, 0x300: 4}, [0x100, 0x300], 3)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, NUM_LANES), min_size=1, max_size=50), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.3, 0.7]),
    st.integers(0, 99),
    st.integers(0, 1),
)
def test_any_rows(rows, stall, seed, has_both):
    """Rows of chunks of any length, longer than a run too; the first of a row is not empty, the end may be a chunk
    of its own.
    """
    rng, chunks, expected = random.Random(seed), [], {}
    for index, counts in enumerate(rows):
        place = addr = 0x100 * (index + 1)
        for n, count in enumerate(counts):
            values = [rng.getrandbits(16) for _ in range(min(max(count, n == 0), NUM_LANES >> has_both))]
            chunks.append((values, None if n else addr, 0))
            for value in values:
                expected |= {place: value & 255, place + HIGH_BYTES: value >> 8}
                place += 1
    if rng.random() < 0.5:
        chunks.append(([], None, 1))
    else:
        chunks[-1] = (*chunks[-1][:2], 1)
    assert run(chunks, has_both=has_both, stall=stall, seed=seed)[0] == expected


def test_one_chunk_per_cycle():
    """Rows of three chunks, and one of forty."""
    for chunks in (
        [([n] * NUM_LANES, None if n % 3 else 0x100 * (n + 1), n == 59) for n in range(60)],
        [([n] * NUM_LANES, None if n else 0x100, n == 39) for n in range(40)],
    ):
        assert run(chunks)[2] <= 2 * len(chunks) + ByteSplitter.MAX_RUN + 4
        halves = [(values[: NUM_LANES // 2], addr, is_last) for values, addr, is_last in chunks]
        assert run(halves, has_both=1)[2] <= 2 * len(chunks) + 4
