"""Stripe memory: the input pixels of the stripe in use and of the one being loaded."""

from amaranth.hdl import Module, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.spec.config import NpuConfig

__all__ = ["StripeMemory", "StripeRead", "StripeWrite"]


class StripeWrite(wiring.Signature):
    """A write, seen from the writer: byte i of `data` goes to byte i of `word` where bit i of `en` is set."""

    def __init__(self, config: NpuConfig):
        super().__init__(
            {
                "en": Out(config.num_lanes),
                "word": Out(exact_log2(config.stripe_words)),
                "data": Out(8 * config.num_lanes),
            }
        )


class StripeRead(wiring.Signature):
    """A read, seen from the reader: the cycle after `en`, `data` is `word`; it stays until the next read."""

    def __init__(self, config: NpuConfig):
        super().__init__({"en": Out(1), "word": Out(exact_log2(config.stripe_words)), "data": In(8 * config.num_lanes)})


class StripeMemory(wiring.Component):
    """`stripe_words` words of `num_lanes` bytes; one write with byte enables and one read of a whole word per cycle.

    A read sees the writes of earlier cycles; one of the word that is written in the same cycle is undefined.

    Members
    -------
    write : In(StripeWrite)
    read : In(StripeRead)
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__({"write": In(StripeWrite(config)), "read": In(StripeRead(config))})

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.memory = memory = Memory(shape=unsigned(8 * config.num_lanes), depth=config.stripe_words, init=[])
        write, read = memory.write_port(granularity=8), memory.read_port()
        m.d.comb += [
            write.en.eq(self.write.en),
            write.addr.eq(self.write.word),
            write.data.eq(self.write.data),
            read.en.eq(self.read.en),
            read.addr.eq(self.read.word),
            self.read.data.eq(read.data),
        ]
        return m
