"""When the filler writes windows."""

from itertools import pairwise

from convoy.hw.nn.filler import Filler
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import FILL_CYCLES, FILL_GAP_CYCLES
from convoy.verif.pysim import send, simulate

NUM_WINDOWS, WINDOW_WORDS = 3, 4


def test_windows_follow_one_another():
    """Of channels that are loaded, into slots that are free."""
    dut, reads, writes, filled = Filler(NpuConfig()), [], [], []
    job = {"num_ic": NUM_WINDOWS, "num_z": NUM_WINDOWS, "num_z_last": NUM_WINDOWS, "num_sb": 1, "num_groups": 1}
    job |= {"num_phases": 1, "seg_words": WINDOW_WORDS, "num_slots": NUM_WINDOWS, "channel_words": WINDOW_WORDS}

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
    assert len(reads) == NUM_WINDOWS * WINDOW_WORDS
    assert writes == [cycle + FILL_CYCLES for cycle in reads]
    assert filled == writes[WINDOW_WORDS - 1 :: WINDOW_WORDS]
    gaps = {after - before - 1 for before, after in pairwise(reads[WINDOW_WORDS - 1 :: WINDOW_WORDS])}
    assert gaps == {WINDOW_WORDS - 1 + FILL_GAP_CYCLES}
