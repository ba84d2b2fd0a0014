"""Window memory of a core: P banks of one pixel and a rotation, so that any P neighbouring pixels come in one cycle."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec.config import NpuConfig

__all__ = ["WindowMemory", "WindowWrite"]


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

    READ_CYCLES = 4

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
        first = self.pixel[:lanes_log2]
        word = self.pixel[lanes_log2:]

        # Stage 1: the word of each row of the vector, and the one after it; which row and which of the two each bank
        # needs
        rows = [Signal(word_bits, name=f"row_{r}") for r in range(4)]
        next_rows = [Signal(word_bits, name=f"next_row_{r}") for r in range(4)]
        offsets = (0, self.split_words, self.split_words << 1, self.split_words + (self.split_words << 1))
        for row, next_row, offset in zip(rows, next_rows, offsets, strict=True):
            first_word = truncate(word + offset, word_bits)
            m.d.sync += [row.eq(first_word), next_row.eq(first_word + 1)]
        halves = self._in_banks(m, first, 1)  # lanes of the vector's second half
        quarters = self._in_banks(m, first, 2)  # of its second and fourth quarter
        is_next, row_low, row_high = Signal(num_lanes), Signal(num_lanes), Signal(num_lanes)
        m.d.sync += [
            is_next.eq((1 << first) - 1),
            row_low.eq(Mux(self.split_log2 == 2, quarters, Mux(self.split_log2 == 1, halves, 0))),
            row_high.eq(Mux(self.split_log2 == 2, halves, 0)),
        ]

        # Stage 2: each bank's address
        late_first = delay(m, first, self.READ_CYCLES - 1, name="first")
        read_data = []
        for bank in range(num_lanes):
            address = Signal(word_bits, reset_less=True, name=f"address_{bank}")
            with m.Switch(Cat(is_next[bank], row_low[bank], row_high[bank])):
                for choice in range(8):
                    with m.Case(choice):
                        m.d.sync += address.eq((next_rows if choice & 1 else rows)[choice >> 1])

            # Stage 3: read
            memory = Memory(shape=unsigned(8), depth=depth, init=[])
            m.submodules[f"bank_{bank}"] = memory
            write, read = memory.write_port(), memory.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(self.write.en),
                write.addr.eq(self.write.word),
                write.data.eq(self.write.data[bank]),
                read.addr.eq(address),
            ]
            value = Signal(8, reset_less=True, name=f"value_{bank}")
            m.d.sync += value.eq(read.data)
            read_data.append(value)

        # Stage 4: rotate bank order into lane order
        stage = Cat(read_data)
        for bit in range(lanes_log2):
            rotated = Signal(8 * num_lanes, name=f"rotated_{bit}")
            m.d.comb += rotated.eq(Mux(late_first[bit], stage.rotate_right(8 << bit), stage))
            stage = rotated
        m.d.sync += pixels.eq(stage)
        return m

    def _in_banks(self, m, first, split_log2):
        """One bit per bank: whether the lane that it serves, lane 0 being in bank `first`, is in an odd row of a
        vector of 2**split_log2 rows.
        """
        num_lanes = self._config.num_lanes
        stage = Const(sum(1 << lane for lane in range(num_lanes) if lane // (num_lanes >> split_log2) & 1), num_lanes)
        for bit in range(len(first)):
            rotated = Signal(num_lanes, name=f"odd_{split_log2}_{bit}")
            m.d.comb += rotated.eq(Mux(first[bit], stage.rotate_left(1 << bit), stage))
            stage = rotated
        return stage
