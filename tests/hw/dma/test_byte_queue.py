# amaranth: UnusedElaboratable=no
import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from convoy.hw.dma.byte_queue import ByteQueue
from convoy.hw.dma.byte_ring import ByteRing
from convoy.verif.pysim import always, send, simulate, sometimes


def pack(num_in_bytes, num_out_bytes, beats, *, go=always, takes=None):
    """Sends beats of (skip, bytes) and takes bytes, `takes(available)` per cycle; returns the cycle of the last byte
    taken.
    """
    dut = ByteQueue(num_in_bytes, num_out_bytes)
    takes = takes or (lambda available: available)
    expected = b"".join(content for _, content in beats)
    got = bytearray()
    cycle = 0

    def payload(skip, content):
        junk = bytes([0xEE]) * skip + content + bytes([0xDD]) * (num_in_bytes - skip - len(content))
        return {"data": int.from_bytes(junk, "little"), "skip": skip, "count": len(content), "last": 0}

    async def sender(ctx):
        await send(ctx, dut.beats, [payload(*beat) for beat in beats], go=go)

    async def taker(ctx):
        nonlocal cycle
        while len(got) < len(expected):
            level, data = ctx.get(dut.level), ctx.get(dut.data).to_bytes(num_out_bytes, "little")
            take = takes(min(level, num_out_bytes))
            ctx.set(dut.take, take)
            got.extend(data[:take])
            await ctx.tick()
            cycle += 1
        ctx.set(dut.take, 0)
        await ctx.tick()
        assert ctx.get(dut.level) == 0

    simulate(dut, sender, taker)
    assert bytes(got) == expected
    return cycle


def test_skips_join():
    assert pack(4, 4, [(1, b"abc"), (0, b"defg"), (3, b"h"), (0, b"ij")]) > 0


@pytest.mark.parametrize(("num_in_bytes", "num_out_bytes"), [(8, 16), (8, 8), (4, 16), (32, 32)])
def test_a_beat_per_cycle(num_in_bytes, num_out_bytes):
    beats = [(0, bytes([i % 256]) * num_in_bytes) for i in range(50)]
    assert pack(num_in_bytes, num_out_bytes, beats) == 52


def test_words_of_all_bytes_or_none_are_no_obstacle():
    beats = [(1, bytes(range(i, i + 7))) for i in range(48)]  # 336 bytes, 21 words
    cycles = pack(8, 16, beats, takes=lambda available: 16 if available == 16 else 0)
    assert cycles == 48 + 2


def test_narrow_output_is_always_busy():
    beats = [(0, bytes(range(32)))] * 8
    assert pack(32, 4, beats) == 2 + 8 * 32 // 4


@given(
    num_in_log2=st.integers(1, 5),
    num_out_bytes=st.sampled_from([1, 2, 8, 16, 32]),
    p_in=st.sampled_from([0.4, 1.0]),
    p_take=st.sampled_from([0.3, 1.0]),
    is_greedy=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=25, derandomize=True, phases=[Phase.generate])
def test_any_beats(num_in_log2, num_out_bytes, p_in, p_take, is_greedy, seed):
    rng = random.Random(seed)
    num_in_bytes = 1 << num_in_log2
    beats = []
    for _ in range(25):
        skip = rng.choice([0, rng.randrange(num_in_bytes)])
        beats.append((skip, rng.randbytes(rng.choice([num_in_bytes - skip, rng.randint(1, num_in_bytes - skip)]))))

    def takes(available):
        return 0 if rng.random() >= p_take else available if is_greedy else rng.randint(0, available)

    assert pack(num_in_bytes, num_out_bytes, beats, go=sometimes(rng, p_in), takes=takes) > 0


def test_refusals():
    with pytest.raises(ValueError, match="num_in_bytes = 6 is not a power of two"):
        ByteQueue(6, 16)
    with pytest.raises(ValueError, match="num_out_bytes = 3 is not a power of two"):
        ByteQueue(8, 3)
    with pytest.raises(ValueError, match="num_bytes = 8 is not a power of two of at least 2"):
        ByteRing(8, 8)
