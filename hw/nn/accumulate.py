"""The double-buffered accumulators of a core."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.joined import JoinedDifference
from convoy.spec import cycles
from convoy.spec.config import NpuConfig

from .lanes import PRODUCT_BITS

__all__ = ["ACC_BITS", "Accumulators"]

ACC_BITS = 32


class Accumulators(wiring.Component):
    """Two buffers of `num_acc_entries` vectors of P sums; one adds up products while the other is drained and cleared.

    | cycle | work |
    | -- | -- |
    | 0 | `add_en`; the sums are read |
    | 1 | into a register |
    | 2 | the products come and are added; the sums go back to the memory |

    The memory is there twice, once for each of its readers. A sum that is added to in one of the next two cycles is not
    in the memory when it is read, and goes to a register of its own; those that are not asked are zero. Sums are kept
    inverted, zeros are ones: so that what is asked and the adder are one carry chain (`JoinedDifference`).

    Members
    -------
    add_en, add_entry, add_buffer, products : In; an addition, its products `PRODUCT_CYCLES` after the rest
    drain_en, drain_entry, drain_chunk, drain_buffer : In; a read of `post_lanes` sums of an entry of a buffer that is
        not being added to
    drain_inverted : Out(post_lanes sums), `DRAIN_CYCLES` later, inverted, else ones; `drain_clear` : In(1), zeroes the
        entry, which may be read in the same cycle
    is_clear : Out(1), every entry is zero: `num_acc_entries` cycles after a reset, which may come amid additions;
        nothing may be added before

    An addition is complete `ADD_CYCLES` after `add_en`. Throughput: one vector in, to any entry, and one chunk out per
    cycle.
    """

    PRODUCT_CYCLES = 2
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
                "drain_inverted": Out(config.post_lanes * ACC_BITS),
                "is_clear": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        vector = data.ArrayLayout(ACC_BITS, config.num_lanes)

        place = Cat(self.add_entry, self.add_buffer)
        # The last two additions; where the sums of the last one are: in the memory, or still on the way
        last_en, last_place = Signal(), Signal.like(place)
        adds, add_place = Signal(), Signal.like(place)
        is_near, is_far = Signal(), Signal()
        has_drained, chunk = Signal(), Signal.like(self.drain_chunk)  # sums that are not zero
        swept_entry = Signal.like(self.drain_entry)
        m.d.sync += [
            last_en.eq(self.add_en),
            last_place.eq(place),
            adds.eq(last_en),
            add_place.eq(last_place),
            is_near.eq(last_en & (last_place == place)),
            is_far.eq(adds & (add_place == place) & ~(last_en & (last_place == place))),
            chunk.eq(self.drain_chunk),
        ]
        with m.If(~self.is_clear):
            m.d.sync += [swept_entry.eq(swept_entry + 1), self.is_clear.eq(swept_entry.all())]

        sums = Signal(vector)  # from here on inverted
        stored = []
        for name, read_en, read_place in (
            ("add", self.add_en, place),
            ("drain", self.drain_en, Cat(self.drain_entry, self.drain_buffer)),
        ):
            m.submodules[f"{name}_memory"] = memory = Memory(
                shape=config.num_lanes * ACC_BITS, depth=2 * config.num_acc_entries, init=[]
            )
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.en.eq(adds),
                write.addr.eq(add_place),
                write.data.eq(sums),
                read.en.eq(read_en),
                read.addr.eq(read_place),
            ]
            stored.append(read.data)

        # An entry is cleared by a note that it counts as zero until it is added to
        looks = []
        for number in range(2):
            m.submodules[f"zeros_{number}"] = zeros = Memory(shape=1, depth=config.num_acc_entries, init=[])
            note, look = zeros.write_port(), zeros.read_port(domain="comb")
            does_add = Signal(name=f"does_add_{number}")
            m.d.comb += [
                does_add.eq(self.add_en & (self.add_buffer == number)),
                look.addr.eq(Mux(does_add, self.add_entry, self.drain_entry)),
                note.en.eq(does_add | (self.drain_clear & (self.drain_buffer == number)) | ~self.is_clear),
                note.addr.eq(Mux(self.is_clear, look.addr, swept_entry)),
                note.data.eq(~does_add | ~self.is_clear),
            ]
            looks.append(look.data)
        added_to_zero = Signal()
        m.d.sync += [
            added_to_zero.eq(Mux(self.add_buffer, looks[1], looks[0])),
            has_drained.eq(self.drain_en & ~Mux(self.drain_buffer, looks[1], looks[0])),
        ]

        # Zeros are what registers are set to; they begin so, for a flip-flop begins as what it can be set to
        inverted_zeros = [(1 << ACC_BITS) - 1] * config.num_lanes
        newest, from_memory, from_last, from_newest = (
            Signal(vector, reset_less=True, init=inverted_zeros, name=name)
            for name in ("newest", "from_memory", "from_last", "from_newest")
        )
        is_stored = ~is_near & ~is_far & ~added_to_zero
        m.d.sync += [
            newest.eq(sums),
            *(
                Value.cast(register).eq(Mux(is_asked, Value.cast(value), -1))
                for register, value, is_asked in (
                    (from_memory, stored[0], is_stored),
                    (from_last, sums, is_near),
                    (from_newest, newest, is_far),
                )
            ),
        ]
        for lane in range(config.num_lanes):
            m.submodules[f"joined_{lane}"] = joined = JoinedDifference(ACC_BITS)
            m.d.comb += [
                joined.a.eq(from_memory[lane]),
                joined.b.eq(from_last[lane]),
                joined.c.eq(from_newest[lane]),
                joined.subtrahend.eq(self.products[lane]),
                sums[lane].eq(joined.difference),
            ]
        # What was drained has no register that is set, so that it may be the memory's own
        drained = Signal(vector, reset_less=True)
        is_shown, shown_chunk = Signal(reset_less=True), Signal.like(chunk, reset_less=True)
        m.d.sync += [drained.eq(stored[1]), is_shown.eq(has_drained), shown_chunk.eq(chunk)]
        sums_bits = config.post_lanes * ACC_BITS
        shown = Value.cast(drained).word_select(shown_chunk, sums_bits)
        m.d.comb += self.drain_inverted.eq(shown | (~is_shown).replicate(sums_bits))
        return m
