"""Window fill: from the stripe memory to the cores' window memories, one word per cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.register import data_register
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN

from .window import WindowWrite

__all__ = ["FILLER_FIELDS", "Filler"]

FILLER_FIELDS = (
    "stripe_word",
    "channel_words",
    "phase_words",
    "num_ic",
    "is_depthwise",
    "num_sb",
    "num_groups",
    "num_z",
    "num_z_last",
    "group_step",
    "num_phases",
    "seg_words",
    "num_slots",
    "is_wide",
)
"""What the filler needs of an NN descriptor."""


class Filler(wiring.Component):
    """Broadcasts windows in the order the cores use them, as far ahead as there are free slots.

    Members
    -------
    job : In(stream of FILLER_FIELDS)
    channel_loaded : In(1), strobe: the loader has completed the next channel; `load_done` : In(1), strobe: and the
        whole descriptor
    stripe_word : Out, stripe read address; `stripe_en` : Out(1); the word comes back `STRIPE_CYCLES` later as
        `stripe_data`
    write : Out(WindowWrite), to all cores; `write_core` : Out(num_cores bits), which of them take it
    filled : Out(num_cores bits), strobes with the last word of a window; `released` : In(num_cores bits), strobes when
        a core is done with one
    done : Out(1), strobe: the last word of the descriptor has been read
    waits_load, waits_slot : Out(1), it stands still until a channel has been loaded; until a core has released a window

    With `is_wide` a window has the planes of two channels of bytes, which are one channel here.

    Latency: `FILL_CYCLES` from a word's address to `write`. Throughput: one word per cycle, and `FILL_GAP_CYCLES` idle
    cycles per window.
    """

    STRIPE_CYCLES = 1

    def __init__(self, config: NpuConfig):
        self._config = config
        self._stripe_bits = exact_log2(config.stripe_words)
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*FILLER_FIELDS))),
                "channel_loaded": In(1),
                "load_done": In(1),
                "stripe_en": Out(1),
                "stripe_word": Out(self._stripe_bits),
                "stripe_data": In(8 * config.num_lanes),
                "write": Out(WindowWrite(config)),
                "write_core": Out(config.num_cores),
                "filled": Out(config.num_cores),
                "released": In(config.num_cores),
                "done": Out(1),
                "waits_load": Out(1),
                "waits_slot": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        num_cores, stripe_bits = config.num_cores, self._stripe_bits
        lanes_log2 = exact_log2(config.num_lanes)
        job = Signal(self.job.payload.shape(), reset_less=True)

        # The loops: superblock, group, z, core (depthwise), phase, word
        sb, group, z = Signal(16), Signal(16), Signal(16)
        core, phase, word = Signal(range(max(num_cores, 2))), Signal(3), Signal(9)
        last_phase = Signal(3)
        channel, sb_channel = Signal(17), Signal(17)
        base, sb_base = (
            Signal(stripe_bits),
            Signal(stripe_bits),
        )  # first word of the channel; of the superblock's first channel
        next_base, next_channel = Signal(stripe_bits), Signal(17)
        group_pixel, phase_base = Signal(16), Signal(stripe_bits)
        slot, slot_word, window_word = Signal(9), Signal(range(config.window_words)), Signal(range(config.window_words))
        num_z, is_last_core = Signal(16), Signal()
        is_last_z, is_last_slot, is_last_group, is_last_sb = (Signal() for _ in range(4))
        m.d.comb += [
            next_base.eq(base + job.channel_words),
            next_channel.eq(channel + 1),
            is_last_core.eq(~job.is_depthwise | (core == num_cores - 1)),
        ]
        # What NEXT decides on changes in NEXT only, two cycles before the next one
        m.d.sync += [
            num_z.eq(Mux(sb == job.num_sb - 1, job.num_z_last, job.num_z)),
            is_last_z.eq(z + 1 == num_z),
            is_last_slot.eq(slot == job.num_slots - 1),
            is_last_group.eq(group == job.num_groups - 1),
            is_last_sb.eq(sb == job.num_sb - 1),
        ]

        loaded = self._count_loaded(m)
        cores, begun = Signal(num_cores), Signal(num_cores)
        m.d.comb += cores.eq(Mux(job.is_depthwise, 1 << core, (1 << num_cores) - 1))
        all_free, all_released = self._count_windows(m, begun, job.num_slots)
        word_en, is_window_end = Signal(), Signal()
        m.d.comb += [self.stripe_en.eq(word_en), self.stripe_word.eq(phase_base + word)]

        with m.FSM():
            with m.State("IDLE"):
                # Slots of another size: the last window of the previous descriptor must be gone
                m.d.comb += [self.job.ready.eq(all_released), self.waits_slot.eq(self.job.valid & ~all_released)]
                with m.If(self.job.valid & all_released):
                    new = self.job.payload
                    m.d.sync += [
                        job.eq(new),
                        job.channel_words.eq(new.channel_words << new.is_wide),
                        job.num_ic.eq(new.num_ic >> new.is_wide),
                        last_phase.eq((new.num_phases << new.is_wide) - 1),
                        sb.eq(0),
                        group.eq(0),
                        z.eq(0),
                        core.eq(0),
                        group_pixel.eq(0),
                        channel.eq(0),
                        sb_channel.eq(0),
                        base.eq(new.stripe_word),
                        sb_base.eq(new.stripe_word),
                        slot.eq(0),
                        slot_word.eq(0),
                    ]
                    m.next = "WINDOW"
            with m.State("WINDOW"):
                m.d.sync += [
                    phase_base.eq(base + (group_pixel >> lanes_log2)),
                    phase.eq(0),
                    word.eq(0),
                    window_word.eq(slot_word),
                ]
                is_loaded = (channel < (loaded >> job.is_wide)) | (channel >= job.num_ic)
                has_slot = (core != 0) | all_free
                m.d.comb += [self.waits_load.eq(~is_loaded), self.waits_slot.eq(~has_slot)]
                with m.If(is_loaded & has_slot):
                    m.d.comb += begun.eq(cores)
                    m.next = "WORDS"
            with m.State("WORDS"):
                m.d.comb += word_en.eq(1)
                m.d.sync += [word.eq(word + 1), window_word.eq(window_word + 1)]
                with m.If(word == job.seg_words - 1):
                    m.d.sync += [word.eq(0), phase.eq(phase + 1), phase_base.eq(phase_base + job.phase_words)]
                    with m.If(phase == last_phase):
                        m.d.comb += is_window_end.eq(1)
                        m.next = "NEXT"
            with m.State("NEXT"):
                m.next = "WINDOW"
                m.d.sync += [base.eq(next_base), channel.eq(next_channel)]
                with m.If(~is_last_core):
                    m.d.sync += core.eq(core + 1)
                with m.Else():
                    m.d.sync += core.eq(0)
                    with m.If(is_last_slot):
                        m.d.sync += [slot.eq(0), slot_word.eq(0)]
                    with m.Else():
                        m.d.sync += [slot.eq(slot + 1), slot_word.eq(window_word)]
                    with m.If(~is_last_z):
                        m.d.sync += z.eq(z + 1)
                    with m.Else():
                        m.d.sync += z.eq(0)
                        with m.If(~is_last_group):
                            m.d.sync += [
                                group.eq(group + 1),
                                group_pixel.eq(group_pixel + job.group_step),
                                base.eq(sb_base),
                                channel.eq(sb_channel),
                            ]
                        with m.Else():
                            m.d.sync += [group.eq(0), group_pixel.eq(0), sb.eq(sb + 1)]
                            with m.If(job.is_depthwise):
                                m.d.sync += [sb_base.eq(next_base), sb_channel.eq(next_channel)]
                            with m.Else():
                                m.d.sync += [base.eq(sb_base), channel.eq(sb_channel)]
                            with m.If(is_last_sb):
                                m.d.comb += self.done.eq(1)
                                m.next = "IDLE"

        self._write(m, word_en, is_window_end, window_word, cores)
        return m

    def _count_loaded(self, m):
        """Channels loaded of the descriptor in work; the loader may already be at the next one."""
        counts = [Signal(17, name=f"loaded_{n}") for n in range(2)]
        load_side, fill_side = Signal(), Signal()
        for side, count in enumerate(counts):
            with m.If(self.channel_loaded & (load_side == side)):
                m.d.sync += count.eq(count + 1)
            with m.If(self.done & (fill_side == side)):
                m.d.sync += count.eq(0)
        m.d.sync += [load_side.eq(load_side ^ self.load_done), fill_side.eq(fill_side ^ self.done)]
        return Mux(fill_side, counts[1], counts[0])

    def _count_windows(self, m, begun, num_slots):
        """Whether every core has a free slot, and whether all slots are free.

        A window counts from the start of its fill.
        """
        held = [
            Signal(range(self._config.window_words + 1), name=f"held_{core}") for core in range(self._config.num_cores)
        ]
        for core, count in enumerate(held):
            m.d.sync += count.eq(count + begun[core] - self.released[core])
        is_free, is_empty = Signal(), Signal()
        m.d.comb += [
            is_free.eq(Cat(count < num_slots for count in held).all()),
            is_empty.eq(Cat(count == 0 for count in held).all()),
        ]
        return is_free, is_empty

    def _write(self, m, word_en, is_window_end, window_word, cores):
        """Two registers: the stripe's read, and one for the fan-out."""
        en, end, word, cores_1 = (
            Signal(),
            Signal(),
            Signal.like(window_word, reset_less=True),
            Signal(self._config.num_cores),
        )
        write_word, write_data = data_register(m, self.write.word), data_register(m, self.write.data)
        m.d.sync += [
            en.eq(word_en),
            end.eq(is_window_end),
            word.eq(window_word),
            cores_1.eq(cores),
            self.write.en.eq(en),
            write_word.eq(word),
            write_data.eq(self.stripe_data),
            self.write_core.eq(cores_1),
            self.filled.eq(Mux(end, cores_1, 0)),
        ]
