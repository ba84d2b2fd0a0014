"""Window memory of a core: P banks of one pixel and a rotation, so that any P neighbouring pixels come in one cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.choose import any_of, rotated_late
from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec.config import NpuConfig

__all__ = ["WindowMemory", "WindowWrite"]

_FINE_BITS = 2
"""Of the rotation, that are left to the cycle after the one of the others."""
BLOCK_WORDS = 16
"""Words of the memories that a bank is made of: the fewest that a configuration has, and what look-up tables hold."""


def WindowWrite(config: NpuConfig) -> data.StructLayout:
    """A word for the window memory."""
    return data.StructLayout(
        {"en": 1, "word": exact_log2(config.window_words), "data": data.ArrayLayout(unsigned(8), config.num_lanes)}
    )


class WindowMemory(wiring.Component):
    """`window_words` words; pixel n is in bank n mod P at address n div P.

    Lane l gets the pixel `pixel + l + r * split_words * P` with r = l div (P >> split_log2): rows of a split vector lie
    a multiple of P plus their own length apart, so the P lanes always meet P different banks.

    Members
    -------
    write : In(WindowWrite)
    pixel, split_log2, split_words : In, the pixel of lane 0 and the shape of the vector
    pixels : Out(P bytes)

    Latency: `READ_CYCLES`. Throughput: one vector per cycle.
    """

    ADDRESS_CYCLES = 2
    """Of those before the memory is read."""
    READ_CYCLES = 6

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "write": In(WindowWrite(config)),
                "pixel": In(exact_log2(config.window_words * config.num_lanes)),
                "split_log2": In(2),
                "split_words": In(8),
                "pixels": Out(data.ArrayLayout(unsigned(8), config.num_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        pixels = data_register(m, self.pixels)
        num_lanes, depth = self._config.num_lanes, self._config.window_words
        lanes_log2, word_bits = exact_log2(num_lanes), exact_log2(depth)
        column = self.pixel[: lanes_log2 - 2]
        quarter = self.pixel[lanes_log2 - 2 : lanes_log2]
        word = self.pixel[lanes_log2:]

        # Stage 1: the word of each quarter of the vector, and the one after it
        is_halved, is_quartered = self.split_log2 == 1, self.split_log2 == 2
        split = truncate(self.split_words, word_bits)
        offsets = (
            Const(0),
            Mux(is_quartered, split, 0),
            Mux(is_quartered, split << 1, Mux(is_halved, split, 0)),
            Mux(is_quartered, split + (split << 1), Mux(is_halved, split, 0)),
        )
        words = [Signal(word_bits, name=f"word_{part}") for part in range(4)]
        next_words = [Signal(word_bits, name=f"next_word_{part}") for part in range(4)]
        for part_word, next_word, offset in zip(words, next_words, offsets, strict=True):
            part_begin = truncate(word + offset, word_bits)
            m.d.sync += [part_word.eq(part_begin), next_word.eq(part_begin + 1)]
        late_quarter = Signal.like(quarter)
        is_below = Signal(num_lanes // 4)  # the columns before that of lane 0
        m.d.sync += [late_quarter.eq(quarter), is_below.eq((1 << column) - 1)]

        # Stage 2: each bank's address. The banks are four quarters too, of as many columns. Lanes of a vector's quarter
        # are in the quarter of banks where its first lane is and, in the columns below that lane's, in the one
        # after it
        begins = [Signal(word_bits, name=f"begin_{part}") for part in range(-1, 4)]
        with m.Switch(late_quarter):
            for first in range(4):
                with m.Case(first):
                    for part, begin in enumerate(begins, -1):
                        m.d.comb += begin.eq((next_words if part < first else words)[(part - first) % 4])
        block_bits, num_blocks = exact_log2(BLOCK_WORDS), depth // BLOCK_WORDS
        read_data = []
        for bank in range(num_lanes):
            part, bank_column = divmod(bank, num_lanes // 4)
            address = Signal(word_bits, reset_less=True, name=f"address_{bank}")
            m.d.sync += address.eq(Mux(is_below[bank_column], begins[part], begins[part + 1]))

            # Stage 3: read; blocks of other words give zero
            values = []
            for block in range(num_blocks):
                memory = Memory(shape=unsigned(8), depth=BLOCK_WORDS, init=[])
                m.submodules[f"bank_{bank}_{block}"] = memory
                write, read = memory.write_port(), memory.read_port(domain="comb")
                m.d.comb += [
                    write.en.eq(self.write.en & (self.write.word[block_bits:] == block)),
                    write.addr.eq(self.write.word[:block_bits]),
                    write.data.eq(self.write.data[bank]),
                    read.addr.eq(address[:block_bits]),
                ]
                value = Signal(8, reset_less=True, name=f"value_{bank}_{block}")
                m.d.sync += value.eq(Mux(address[block_bits:] == block, read.data, 0))
                values.append(value)
            # Stage 4: the byte of the bank
            read_data.append(any_of(values))

        # Stages 4 to 6: rotate bank order into lane order, by rows of registers
        first = delay(m, self.pixel[:lanes_log2], 3, name="first")
        fine_turn = delay(m, first[:_FINE_BITS], 1, name="fine_turn")
        coarse = rotated_late(m, Cat(read_data), first[_FINE_BITS:], 8 << _FINE_BITS, name="coarse")
        m.d.sync += pixels.eq(rotated_late(m, coarse, fine_turn, 8, name="fine"))
        return m
