"""`BurstSplitter`: runs worked out by hand, then any runs against their bytes."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.hw.dma.burst_splitter import BurstSplitter
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import monitor, receive, send, simulate, sometimes

PAGE_BYTES = 4096


def split(runs, count, config, go=lambda: True):
    """The first `count` bursts of (address, bytes) runs: (address, beats, is_first, is_last, first_byte, last_byte)."""
    dut, got = BurstSplitter(config), []

    async def sender(ctx):
        await send(ctx, dut.runs, [{"addr": addr, "num_bytes": size} for addr, size in runs], go=go)

    async def receiver(ctx):
        for item in await receive(ctx, dut.bursts, count, go=go):
            burst = item.burst
            got.append((burst.addr, burst.last_beat + 1, item.is_first, item.is_last, item.first_byte, item.last_byte))
        await ctx.tick().repeat(5)
        assert not ctx.get(dut.bursts.valid)

    simulate(dut, sender, receiver, background=[monitor(dut.bursts)])
    return got


def test_by_hand():
    """64-bit beats, at most 4 a burst: a byte; a run that is longer than a burst; one over the end of a page."""
    runs = [(5, 1), (0x103, 40), (PAGE_BYTES - 9, 10)]
    assert split(runs, 5, NpuConfig(max_burst_beats=4)) == [
        (0, 1, 1, 1, 5, 5),
        (0x100, 4, 1, 0, 3, 2),
        (0x120, 2, 0, 1, 3, 2),
        (PAGE_BYTES - 16, 2, 1, 0, 7, 0),
        (PAGE_BYTES, 1, 0, 1, 7, 0),
    ]


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(0, 3 * PAGE_BYTES), st.integers(1, 900)), min_size=1, max_size=5),
    st.sampled_from([32, 64, 256]),
    st.sampled_from([1, 4, 16]),
    st.integers(0, 99),
)
def test_bursts_are_the_bytes_of_their_runs(runs, port_bits, max_burst_beats, seed):
    config = NpuConfig(port_bits=port_bits, max_burst_beats=max_burst_beats)
    width, expected = config.port_bytes, []
    for addr, size in runs:
        beats = list(range(addr // width, (addr + size - 1) // width + 1))
        while beats:
            page = beats[0] * width // PAGE_BYTES
            burst = [beat for beat in beats[:max_burst_beats] if beat * width // PAGE_BYTES == page]
            beats = beats[len(burst) :]
            is_first = burst[0] == addr // width
            expected.append(
                (burst[0] * width, len(burst), is_first, not beats, addr % width, (addr + size - 1) % width)
            )
    assert split(runs, len(expected), config, sometimes(random.Random(seed), 0.6)) == expected
