"""When the filler writes windows."""

from itertools import pairwise

import pytest

from convoy.hw.nn.filler import Filler
from convoy.hw.nn.window import WindowMemory
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import FILL_CYCLES, MIN_FILL_CYCLES, RELEASE_CYCLES
from convoy.verif.pysim import send, simulate

NUM_WINDOWS = 3


@pytest.mark.parametrize("window_words", [1, 2, 4])
def test_windows_follow_one_another(window_words):
    """Of channels that are loaded, into slots that are free."""
    dut, reads, writes, filled = Filler(NpuConfig()), [], [], []
    job = {"num_ic": NUM_WINDOWS, "num_z": NUM_WINDOWS, "num_z_last": NUM_WINDOWS, "num_sb": 1, "num_groups": 1}
    job |= {"num_phases": 1, "seg_words": window_words, "num_slots": NUM_WINDOWS, "channel_words": window_words}

    async def bench(ctx):
        ctx.set(dut.channel_loaded, 1)
        await ctx.tick().repeat(NUM_WINDOWS)
        ctx.set(dut.channel_loaded, 0)
        await send(ctx, dut.job, [job])
        await ctx.tick().repeat(40)

    async def watch(ctx):
        cycle = 0
        async for _, _, does_read, does_write, is_filled in ctx.tick().sample(dut.stripe_en, dut.write.en, dut.filled):
            cycle += 1
            reads.extend([cycle] * does_read)
            writes.extend([cycle] * does_write)
            filled.extend([cycle] * bool(is_filled))

    simulate(dut, bench, background=[watch])
    assert len(reads) == NUM_WINDOWS * window_words
    assert writes == [cycle + FILL_CYCLES for cycle in reads]
    assert filled == writes[window_words - 1 :: window_words]
    steps = {after - before for before, after in pairwise(filled)}
    assert steps == {max(window_words, MIN_FILL_CYCLES)}


def test_a_released_slot_is_written_after_its_last_read():
    """The core releases a window `RELEASE_CYCLES` after its last issue, whose pixels are read within `READ_CYCLES`."""
    dut, cycles = Filler(NpuConfig()), []
    job = {"num_ic": 1, "num_z": 1, "num_z_last": 1, "num_sb": 1, "num_groups": 2}
    job |= {"num_phases": 1, "seg_words": 1, "num_slots": 1, "channel_words": 1}

    async def bench(ctx):
        ctx.set(dut.channel_loaded, 1)
        await ctx.tick()
        ctx.set(dut.channel_loaded, 0)
        await send(ctx, dut.job, [job])
        await ctx.tick().repeat(20)
        assert not ctx.get(dut.write.en)
        ctx.set(dut.released, -1)
        for cycle in range(20):
            if ctx.get(dut.write.en):
                cycles.append(cycle)
            await ctx.tick()
            ctx.set(dut.released, 0)

    simulate(dut, bench)
    assert len(cycles) == 1
    assert RELEASE_CYCLES + cycles[0] > WindowMemory.READ_CYCLES
