"""The double-buffered accumulators of a core."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.config import NpuConfig

from .lanes import PRODUCT_BITS

__all__ = ["ACC_BITS", "Accumulators"]

ACC_BITS = 32


class Accumulators(wiring.Component):
    """Two memories of `num_acc_entries` vectors of P sums; one adds up products while the other is drained and cleared.

    Members
    -------
    add_en, add_entry, add_buffer, products : In; an addition, its products one cycle after the rest (`PRODUCT_CYCLES`)
    drain_en, drain_entry, drain_chunk, drain_buffer : In; a read of `post_lanes` sums of an entry of a buffer that is
        not being added to
    drain_sums : Out(post_lanes sums), `DRAIN_CYCLES` later; `drain_clear` : In(1), zeroes the entry, which may be read
        in the same cycle
    is_clear : Out(1), every entry is zero: `num_acc_entries` cycles after a reset, which may come amid additions;
        nothing may be added before

    An addition is complete `ADD_CYCLES` after `add_en`; an entry must not be added to again within 3 cycles.
    Throughput: one vector in and one chunk out per cycle.
    """

    PRODUCT_CYCLES = 1
    ADD_CYCLES = 3
    DRAIN_CYCLES = cycles.ACC_READ_CYCLES

    def __init__(self, config: NpuConfig):
        self._config = config
        entry = exact_log2(config.num_acc_entries)
        super().__init__(
            {
                "add_en": In(1),
                "add_entry": In(entry),
                "add_buffer": In(1),
                "products": In(data.ArrayLayout(signed(PRODUCT_BITS), config.num_lanes)),
                "drain_buffer": In(1),
                "drain_en": In(1),
                "drain_clear": In(1),
                "drain_entry": In(entry),
                "drain_chunk": In(range(config.num_lanes // config.post_lanes)),
                "drain_sums": Out(config.post_lanes * ACC_BITS),
                "is_clear": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        drain_sums = data_register(m, self.drain_sums)
        vector = data.ArrayLayout(signed(ACC_BITS), config.num_lanes)

        add_1_en, add_1_buffer = Signal(), Signal()
        add_2_en, add_2_entry, add_2_buffer, sums = (
            Signal(),
            Signal.like(self.add_entry),
            Signal(),
            Signal(vector, reset_less=True),
        )
        add_1_entry, swept_entry = Signal.like(self.add_entry), Signal.like(self.drain_entry)
        has_drained, chunk, buffer = Signal(), Signal.like(self.drain_chunk), Signal()
        m.d.sync += [
            add_1_en.eq(self.add_en),
            add_1_entry.eq(self.add_entry),
            add_1_buffer.eq(self.add_buffer),
            add_2_en.eq(add_1_en),
            add_2_entry.eq(add_1_entry),
            add_2_buffer.eq(add_1_buffer),
            has_drained.eq(self.drain_en),
            chunk.eq(self.drain_chunk),
            buffer.eq(self.drain_buffer),
        ]
        with m.If(~self.is_clear):
            m.d.sync += [swept_entry.eq(swept_entry + 1), self.is_clear.eq(swept_entry.all())]

        # An entry is cleared by a note that it counts as zero until it is added to
        stored, is_zero = [], []
        for number in range(2):
            m.submodules[f"buffer_{number}"] = memory = Memory(
                shape=config.num_lanes * ACC_BITS, depth=config.num_acc_entries, init=[]
            )
            m.submodules[f"zeros_{number}"] = zeros = Memory(shape=1, depth=config.num_acc_entries, init=[])
            write, read, note, look = (
                memory.write_port(),
                memory.read_port(),
                zeros.write_port(),
                zeros.read_port(domain="comb"),
            )
            does_add = self.add_en & (self.add_buffer == number)
            was_zero = Signal(name=f"was_zero_{number}")
            m.d.comb += [
                read.en.eq(does_add | (self.drain_en & (self.drain_buffer == number))),
                read.addr.eq(Mux(does_add, self.add_entry, self.drain_entry)),
                look.addr.eq(read.addr),
                write.en.eq(add_2_en & (add_2_buffer == number)),
                write.addr.eq(add_2_entry),
                write.data.eq(sums),
                note.en.eq(does_add | (self.drain_clear & (self.drain_buffer == number)) | ~self.is_clear),
                note.addr.eq(Mux(self.is_clear, read.addr, swept_entry)),
                note.data.eq(~does_add | ~self.is_clear),
            ]
            m.d.sync += was_zero.eq(look.data)
            stored.append(read.data)
            is_zero.append(was_zero)

        is_first = Signal()  # the first addition to the entry
        m.d.comb += is_first.eq(Mux(add_1_buffer, is_zero[1], is_zero[0]))
        old = data.View(vector, Mux(is_first, 0, Mux(add_1_buffer, stored[1], stored[0])))
        with m.If(add_1_en):
            m.d.sync += [sums[lane].eq(old[lane] + self.products[lane]) for lane in range(config.num_lanes)]
        drained = Mux(buffer, stored[1], stored[0])
        with m.If(has_drained):
            m.d.sync += drain_sums.eq(drained.word_select(chunk, config.post_lanes * ACC_BITS))
            with m.If(Mux(buffer, is_zero[1], is_zero[0])):
                m.d.sync += drain_sums.eq(0)
        return m
