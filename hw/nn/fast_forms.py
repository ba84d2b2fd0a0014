"""Other forms of the units at the heart of a core, cycle for cycle the same, for compiled simulators.

They are made of few words of the simulator's own width, where the hardware has many narrow memories, multiplexers and
registers; in hardware they would be large. `GatedNpu` has them, `Npu` has not.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib.memory import Memory
from amaranth.utils import exact_log2

from convoy.hw.lib.delay import delay
from convoy.hw.lib.idle import ClockGates
from convoy.hw.lib.register import data_register

from .accumulate import ACC_BITS, Accumulators
from .lanes import PRODUCT_BITS, Lanes
from .window import WindowMemory

__all__ = ["SummedInPlace", "WideLanes", "WindowOfWords", "form_for"]

WORD_BITS = 64
"""The simulator's widest plain integer."""


class WindowOfWords(WindowMemory):
    """`WindowMemory` as one memory of 64-bit words, of which two neighbours are shifted against each other for each
    word of the result.
    """

    def elaborate(self, platform):
        m = Module()
        pixels = data_register(m, self.pixels)
        num_lanes = self._config.num_lanes
        word_lanes = WORD_BITS // 8
        num_words = num_lanes // word_lanes  # in a vector
        m.submodules.memory = memory = Memory(shape=WORD_BITS, depth=self._config.window_words * num_words, init=[])
        for number in range(num_words):
            write = memory.write_port()
            m.d.comb += [
                write.en.eq(self.write.en),
                write.addr.eq(self.write.word * num_words + number),
                write.data.eq(Cat(self.write.data[number * word_lanes : (number + 1) * word_lanes])),
            ]
        early = self.ADDRESS_CYCLES
        pixel = delay(m, self.pixel, early, name="pixel", reset_less=True)
        split_log2 = delay(m, self.split_log2, early, name="split_log2", reset_less=True)
        split_words = delay(m, self.split_words, early, name="split_words", reset_less=True)
        shift_bits = exact_log2(word_lanes)
        first, shift = pixel[shift_bits:], Cat(Const(0, 3), pixel[:shift_bits])  # in bits

        def word(number, row):
            """A word after that of the pixel, and rows further on."""
            read = memory.read_port(domain="comb")
            m.d.comb += read.addr.eq(first + number + row * num_words * split_words)
            return read.data

        def shifted(number, row):
            rest = (word(number + 1, row) << 1)[:WORD_BITS] << ~shift
            return (word(number, row) >> shift) | rest[:WORD_BITS]

        # Ports of their own for each shape, so that only those of one shape are evaluated
        def shaped(number, split):
            """A word of the result for vectors of 2**split rows."""
            row_lanes = num_lanes >> split
            piece_lanes = min(row_lanes, word_lanes)
            return Cat(
                shifted(number, (number * word_lanes + lane) // row_lanes)[8 * lane : 8 * (lane + piece_lanes)]
                for lane in range(0, word_lanes, piece_lanes)
            )

        values = [Signal(WORD_BITS, reset_less=True, name=f"value_{number}") for number in range(num_words)]
        shapes = [[shaped(number, split) for number in range(num_words)] for split in range(3)]
        with m.Switch(split_log2):
            for split in (1, 2):
                with m.Case(split):
                    m.d.sync += [value.eq(shape) for value, shape in zip(values, shapes[split], strict=True)]
            with m.Default():
                m.d.sync += [value.eq(shape) for value, shape in zip(values, shapes[0], strict=True)]
        late = self.READ_CYCLES - early - 2  # behind the register of the values, in front of that of the output
        m.d.sync += pixels.eq(
            Cat(delay(m, value, late, name=f"late_{value.name}", reset_less=True) for value in values)
        )
        return m


class WideLanes(Lanes):
    """`Lanes` with registers as wide as the products that are handed on."""

    def elaborate(self, platform):
        m = Module()
        for lane, product in enumerate(self.products):
            pixel, weight = Signal(signed(PRODUCT_BITS)), Signal(signed(PRODUCT_BITS))
            result = Signal(signed(PRODUCT_BITS), reset_less=True, name=f"result_{lane}")
            m.d.comb += [
                pixel.eq(Mux(self.is_low, self.pixels[lane], self.pixels[lane].as_signed())),
                weight.eq(self.weight),
                product.eq(result),
            ]
            m.d.sync += result.eq((pixel * weight)[:PRODUCT_BITS])
        return m


class SummedInPlace(Accumulators):
    """`Accumulators` in one memory, in which an addition reads and writes its entry with the same clock edge.

    That is the edge with which the hardware writes it. The sums are the same wherever they may be looked at: an entry
    is not drained while an addition to it is under way.
    """

    def elaborate(self, platform):
        m = Module()
        config = self._config
        drain_inverted = data_register(m, self.drain_inverted)
        depth = 2 * config.num_acc_entries
        m.submodules.memory = memory = Memory(shape=config.num_lanes * ACC_BITS, depth=depth, init=[])
        m.submodules.zeros = zeros = Memory(shape=1, depth=depth, init=[])
        added, drained = Cat(self.add_entry, self.add_buffer), Cat(self.drain_entry, self.drain_buffer)

        swept_entry = Signal.like(self.drain_entry)
        with m.If(~self.is_clear):
            m.d.sync += [swept_entry.eq(swept_entry + 1), self.is_clear.eq(swept_entry.all())]

        # An entry is cleared by a note that it counts as zero until it is added to
        for number, (en, addr) in enumerate(((self.add_en, added), (self.drain_clear, drained))):
            note = zeros.write_port()
            m.d.comb += [
                note.en.eq(en | ~self.is_clear),
                note.addr.eq(Mux(self.is_clear, addr, Cat(swept_entry, number == 1))),
                note.data.eq(~self.is_clear if number == 0 else 1),
            ]

        def later(en, addr, cycles, name):
            """The access some cycles later, and whether its entry counted as zero."""
            look = zeros.read_port(domain="comb")
            is_zero = Signal(name=f"{name}_zero")
            m.d.comb += look.addr.eq(addr)
            with m.If(en):
                m.d.sync += is_zero.eq(look.data)
            en, addr = delay(m, en, cycles, name=f"{name}_en"), delay(m, addr, cycles, name=f"{name}_addr")
            return en, addr, delay(m, is_zero, cycles - 1, name=f"late_{name}_zero")

        add_en, add_addr, is_first = later(self.add_en, added, self.PRODUCT_CYCLES, "add")
        old, write = memory.read_port(domain="comb"), memory.write_port()
        sums = [Signal(ACC_BITS, name=f"sum_{lane}") for lane in range(config.num_lanes)]
        m.d.comb += [
            old.addr.eq(add_addr),
            write.en.eq(add_en),
            write.addr.eq(add_addr),
            write.data.eq(Cat(sums)),
            *(
                sums[lane].eq(Mux(is_first, 0, old.data.word_select(lane, ACC_BITS).as_signed()) + self.products[lane])
                for lane in range(config.num_lanes)
            ),
        ]

        drain_en, drain_addr, is_zero = later(self.drain_en, drained, 1, "drain")
        chunk = delay(m, self.drain_chunk, 1, name="chunk")
        read = memory.read_port(domain="comb")
        m.d.comb += read.addr.eq(drain_addr)
        m.d.sync += drain_inverted.eq(-1)
        with m.If(drain_en & ~is_zero), m.Switch(chunk):
            for number in range(config.num_lanes // config.post_lanes):
                with m.Case(number):
                    m.d.sync += drain_inverted.eq(~read.data.word_select(number, config.post_lanes * ACC_BITS))
        return m


_FAST_FORMS: dict[type, type] = {WindowMemory: WindowOfWords, Lanes: WideLanes, Accumulators: SummedInPlace}


def form_for(unit, platform):
    """The class to make the unit of on this platform: `unit`, or with `ClockGates` its other form."""
    return _FAST_FORMS[unit] if isinstance(platform, ClockGates) else unit
