"""The stripe memory: byte enables, and when a read sees a write."""

from convoy.hw.nn.stripe import StripeMemory
from convoy.spec.config import NpuConfig
from convoy.verif.pysim import simulate


def test_bytes_are_written_and_words_read():
    config = NpuConfig(num_lanes=8, post_lanes=4)
    dut = StripeMemory(config)
    first, second = bytes(range(8)), bytes(range(100, 108))

    async def testbench(ctx):
        for en, value in ((0xFF, first), (0b10010001, second)):
            ctx.set(dut.write.en, en)
            ctx.set(dut.write.word, 5)
            ctx.set(dut.write.data, int.from_bytes(value, "little"))
            await ctx.tick()
        ctx.set(dut.write.en, 0)
        ctx.set(dut.read.en, 1)
        ctx.set(dut.read.word, 5)
        await ctx.tick()
        ctx.set(dut.read.en, 0)
        ctx.set(dut.read.word, 6)
        await ctx.tick()
        assert ctx.get(dut.read.data).to_bytes(8, "little") == bytes([100, 1, 2, 3, 104, 5, 6, 107])

    simulate(dut, testbench)
