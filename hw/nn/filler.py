"""Window fill: from the stripe memory to the cores' window memories, one word per cycle.

_Channels   what has been loaded
_Slots      where there is room
_Walk       the windows of a job, in the order the cores use them
_Words      the words of a window: stripe addresses
_FanOut     their writes to the window memories
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.hw.lib.stage import Stage
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


def _Window(config: NpuConfig) -> data.StructLayout:
    """A window to fill: where it begins in the stripe memory, and what `_Walk` says of it."""
    return data.StructLayout(
        {
            "first": exact_log2(config.stripe_words),
            "cores": config.num_cores,
            "is_first_core": 1,
            "is_first_slot": 1,
            "is_last": 1,
        }
    )


class _Channels(wiring.Component):
    """Counts the channels loaded of the descriptor in work; the loader may already be at the next one.

    Latency: 1 cycle. Throughput: a channel per cycle.

    Members
    -------
    loaded : In(1)
        Strobe: the loader has completed the next channel.
    load_done : In(1)
        Strobe: and the whole descriptor.
    done : In(1)
        Strobe: the descriptor in work has been read.
    count : Out(17)
    is_together : Out(1)
        Loader and filler are at the same descriptor.
    """

    loaded: In(1)
    load_done: In(1)
    done: In(1)
    count: Out(17)
    is_together: Out(1)

    def elaborate(self, platform):
        m = Module()
        counts = [Signal(17, name=f"loaded_{n}") for n in range(2)]
        load_side, fill_side = Signal(), Signal()
        for side, count in enumerate(counts):
            with m.If(self.loaded & (load_side == side)):
                m.d.sync += count.eq(count + 1)
            with m.If(self.done & (fill_side == side)):
                m.d.sync += count.eq(0)
        m.d.sync += [load_side.eq(load_side ^ self.load_done), fill_side.eq(fill_side ^ self.done)]
        m.d.comb += [self.count.eq(Mux(fill_side, counts[1], counts[0])), self.is_together.eq(load_side == fill_side)]
        return m


class _Slots(wiring.Component):
    """Counts the windows that each core holds, and those that are to be filled.

    Latency: 2 cycles. Throughput: a window per core every two cycles.

    Members
    -------
    num_slots : In(9)
        Windows that a core has room for.
    taken : In(num_cores)
        Strobes: a window is to be filled.
    released : In(num_cores)
        Strobes: a core is done with one.
    has_free : Out(1)
        Every core has a free slot.
    is_empty : Out(1)
        All slots are free.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "num_slots": In(9),
                "taken": In(config.num_cores),
                "released": In(config.num_cores),
                "has_free": Out(1),
                "is_empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words = self._config.window_words
        held = [Signal(range(words + 1), name=f"held_{core}") for core in range(self._config.num_cores)]
        for core, count in enumerate(held):
            m.d.sync += count.eq(count + self.taken[core] - self.released[core])
        m.d.sync += [
            self.has_free.eq(Cat(count < self.num_slots for count in held).all()),
            self.is_empty.eq(Cat(count == 0 for count in held).all()),
        ]
        return m


class _Walk(wiring.Component):
    """The loops over windows: superblock, group, z, core (depthwise).

    | cycle | work |
    | -- | -- |
    | `start` | a cycle later the first window |
    | `step` | a cycle later the next one, two cycles later `is_last` and the next `step`, at the earliest |

    Latency: 1 cycle. Throughput: a window every two cycles.

    Members
    -------
    new : In(FILLER_FIELDS)
        The job that begins with `start`.
    start : In(1)
        Strobe.
    step : In(1)
        Strobe: the window is taken.
    fields : Out(FILLER_FIELDS)
        The job, its channels those of two bytes if is_wide.
    has_window : Out(1)
        There is a window; the other outputs are its.
    channel : Out(17)
    base : Out
        The stripe word where the group begins in the channel, but for `group_word`.
    group_word : Out(16)
        Words from there.
    cores : Out(num_cores)
        Which cores take the window.
    is_first_core : Out(1)
        The window is the first one in its slot: depthwise each core has its own.
    is_first_slot : Out(1)
        The slot begins with the first word of the window memory.
    is_last : Out(1)
        No window follows in the job.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        layout = NN.subset(*FILLER_FIELDS)
        super().__init__(
            {
                "new": In(layout),
                "start": In(1),
                "step": In(1),
                "fields": Out(layout),
                "has_window": Out(1),
                "channel": Out(17),
                "base": Out(exact_log2(config.stripe_words)),
                "group_word": Out(16),
                "cores": Out(config.num_cores),
                "is_first_core": Out(1),
                "is_first_slot": Out(1),
                "is_last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        num_cores = self._config.num_cores
        new, job, base = self.new, data_register(m, self.fields), self.base
        sb_left, group_left, z_left, slot = Signal(16), Signal(16), Signal(16), Signal(9)  # with the one in work
        core = Signal(range(max(num_cores, 2)))
        group_pixel, num_z = Signal(16), Signal(16)
        sb_base, sb_channel = Signal.like(base), Signal.like(self.channel)  # of the superblock's first channel
        next_base, next_channel = Signal.like(base), Signal.like(self.channel)
        is_last_core, is_last_z, is_last_slot, is_last_group = (Signal() for _ in range(4))
        is_last_sb, is_next_sb_last = Signal(), Signal()
        m.d.comb += [
            next_base.eq(base + truncate(job.channel_words, base.shape())),
            next_channel.eq(self.channel + 1),
            is_last_core.eq(~job.is_depthwise | (core == num_cores - 1)),
            self.group_word.eq(group_pixel >> exact_log2(self._config.num_lanes)),
            self.cores.eq(Mux(job.is_depthwise, truncate(1 << core, num_cores), (1 << num_cores) - 1)),
            self.is_first_core.eq(core == 0),
            self.is_first_slot.eq(slot == 0),
            self.is_last.eq(is_last_core & is_last_z & is_last_group & is_last_sb),
        ]
        # What `step` decides on follows a cycle after what the last one did
        m.d.sync += [
            is_last_z.eq(z_left == 1),
            is_last_slot.eq(slot == job.num_slots - 1),
            is_last_group.eq(group_left == 1),
            is_last_sb.eq(sb_left == 1),
            is_next_sb_last.eq(sb_left == 2),
        ]

        first_num_z = Mux(new.num_sb == 1, new.num_z_last, new.num_z)
        with m.If(self.start):
            m.d.sync += [
                job.eq(new),
                # Two channels of bytes are together in the stripe memory: the sum has no more bits
                job.channel_words.eq(truncate(new.channel_words << new.is_wide, 16)),
                job.num_ic.eq(new.num_ic >> new.is_wide),
                *(register.eq(0) for register in (slot, core, group_pixel, self.channel, sb_channel)),
                self.has_window.eq(1),
                sb_left.eq(new.num_sb),
                group_left.eq(new.num_groups),
                num_z.eq(first_num_z),
                z_left.eq(first_num_z),
                base.eq(truncate(new.stripe_word, base.shape())),
                sb_base.eq(truncate(new.stripe_word, base.shape())),
            ]
        with m.Elif(self.step):
            m.d.sync += [base.eq(next_base), self.channel.eq(next_channel), self.has_window.eq(~self.is_last)]
            with m.If(~is_last_core):
                m.d.sync += core.eq(core + 1)
            with m.Else():
                m.d.sync += [core.eq(0), slot.eq(Mux(is_last_slot, 0, slot + 1))]
                with m.If(~is_last_z):
                    m.d.sync += z_left.eq(z_left - 1)
                with m.Else():
                    m.d.sync += z_left.eq(num_z)
                    with m.If(~is_last_group):
                        m.d.sync += [
                            group_left.eq(group_left - 1),
                            group_pixel.eq(group_pixel + job.group_step),
                            base.eq(sb_base),
                            self.channel.eq(sb_channel),
                        ]
                    with m.Else():
                        m.d.sync += [group_left.eq(job.num_groups), group_pixel.eq(0), sb_left.eq(sb_left - 1)]
                        with m.If(is_next_sb_last):
                            m.d.sync += [num_z.eq(job.num_z_last), z_left.eq(job.num_z_last)]
                        with m.If(job.is_depthwise):
                            m.d.sync += [sb_base.eq(next_base), sb_channel.eq(next_channel)]
                        with m.Else():
                            m.d.sync += [base.eq(sb_base), self.channel.eq(sb_channel)]
        return m


class _Words(wiring.Component):
    """The words of a window: those of each phase plane, in the stripe and in the window memory.

    | cycle | work |
    | -- | -- |
    | `begin` | a cycle later the first word |
    | `step` | a cycle later the next one |

    Latency: 1 cycle. Throughput: one word per cycle.

    Members
    -------
    new : In(fields)
        The job that begins with `start`.
    start : In(1)
        Strobe.
    job : In(fields)
        The same job, from the next cycle on.
    begin : In(1)
        Go to the first word of the next window; the last one of the window before is read, perhaps in this cycle.
    first : In
        Its address in the stripe memory.
    is_first_core, is_first_slot : In(1)
        Where it goes: to a slot of its own, behind the window before or to the start of the window memory; or to the
        slot of the window before, of another core.
    step : In(1)
        The word is read.
    stripe_word : Out
        Address of the word in the stripe memory.
    window_word : Out(range(window_words))
        And in the window memory.
    is_last : Out(1)
        The window's last word.
    """

    def __init__(self, config: NpuConfig):
        words, stripe_words = range(config.window_words), exact_log2(config.stripe_words)
        super().__init__(
            {
                "new": In(NN.subset("num_phases", "is_wide")),
                "start": In(1),
                "job": In(NN.subset("seg_words", "phase_words")),
                "begin": In(1),
                "first": In(stripe_words),
                "is_first_core": In(1),
                "is_first_slot": In(1),
                "step": In(1),
                "stripe_word": Out(stripe_words),
                "window_word": Out(words),
                "is_last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        phase, last_phase, word, plane = Signal(3), Signal(3), Signal(9), Signal.like(self.first)
        is_plane_end, is_last_phase, is_word_plane, second_last = Signal(), Signal(), Signal(), Signal(9)
        slot_word, first_word, next_word = (
            Signal.like(self.window_word, name=f"{which}_word") for which in ("slot", "first", "next")
        )
        next_plane = Signal.like(plane)
        m.d.comb += [
            next_word.eq(self.window_word + 1),
            first_word.eq(Mux(~self.is_first_core, slot_word, Mux(self.is_first_slot, 0, next_word))),
            next_plane.eq(plane + truncate(self.job.phase_words, plane.shape())),
            self.is_last.eq(is_plane_end & is_last_phase),
        ]
        m.d.sync += [is_word_plane.eq(self.job.seg_words == 1), second_last.eq(self.job.seg_words - 2)]
        with m.If(self.start):  # at most 2 x 4 phases
            m.d.sync += last_phase.eq(truncate((self.new.num_phases << self.new.is_wide) - 1, 3))
        with m.If(self.begin):
            m.d.sync += [plane.eq(self.first), self.stripe_word.eq(self.first), phase.eq(0), word.eq(0)]
            m.d.sync += [self.window_word.eq(first_word), slot_word.eq(first_word)]
            m.d.sync += [is_plane_end.eq(is_word_plane), is_last_phase.eq(last_phase == 0)]
        with m.Elif(self.step & ~self.is_last):
            m.d.sync += [word.eq(word + 1), self.stripe_word.eq(self.stripe_word + 1), self.window_word.eq(next_word)]
            m.d.sync += is_plane_end.eq(word == second_last)
            with m.If(is_plane_end):
                m.d.sync += [word.eq(0), phase.eq(phase + 1), plane.eq(next_plane), self.stripe_word.eq(next_plane)]
                m.d.sync += [is_plane_end.eq(is_word_plane), is_last_phase.eq(phase + 1 == last_phase)]
        return m


class _FanOut(wiring.Component):
    """Writes the words that come from the stripe memory to the cores' window memories.

    | cycle | work |
    | -- | -- |
    | 0 | the stripe memory is read |
    | `STRIPE_CYCLES` | its data |
    | `STRIPE_CYCLES` + 1 | `write`: a register for the fan-out |

    Latency: `STRIPE_CYCLES` + 1 cycles. Throughput: one word per cycle.

    Members
    -------
    en : In(1)
        A word is read.
    is_end : In(1)
        The last one of its window.
    word : In(range(window_words))
        Where it goes.
    cores : In(num_cores)
        Which cores take it.
    data : In(8 * num_lanes)
        The word, `STRIPE_CYCLES` later.
    write : Out(WindowWrite)
    write_core : Out(num_cores)
    filled : Out(num_cores)
        Strobes with the last word.
    """

    STRIPE_CYCLES = 1

    def __init__(self, config: NpuConfig):
        super().__init__(
            {
                "en": In(1),
                "is_end": In(1),
                "word": In(range(config.window_words)),
                "cores": In(config.num_cores),
                "data": In(8 * config.num_lanes),
                "write": Out(WindowWrite(config)),
                "write_core": Out(config.num_cores),
                "filled": Out(config.num_cores),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cycles = self.STRIPE_CYCLES
        cores = delay(m, self.cores, cycles, name="cores")
        is_end = delay(m, self.is_end, cycles, name="is_end")
        write_word, write_data = data_register(m, self.write.word), data_register(m, self.write.data)
        m.d.sync += [
            self.write.en.eq(delay(m, self.en, cycles, name="en")),
            write_word.eq(delay(m, self.word, cycles, name="word", reset_less=True)),
            write_data.eq(self.data),
            self.write_core.eq(cores),
            self.filled.eq(Mux(is_end, cores, 0)),
        ]
        return m


class Filler(wiring.Component):
    """Broadcasts windows in the order the cores use them, as far ahead as there are free slots.

    | cycle | work |
    | -- | -- |
    | 0 | a job is taken when the windows of the one before are gone: its slots have another size |
    | 2.. | a window is taken if its channel is loaded and a slot is free |
    | 3.. | and begins when the last word of the one before is read |
    | 4.. | read a word per cycle; it is written two cycles later; to the next window |

    Latency: 3 cycles from address to window write. Throughput: one word per cycle; a window takes num_phases *
    seg_words cycles, with `is_wide` 2 * num_phases * seg_words, and `MIN_FILL_CYCLES` at least.

    With `is_wide` a window has the planes of two channels of bytes, which are one channel here.

    Members
    -------
    job : In(stream of FILLER_FIELDS)
    channel_loaded : In(1)
        Strobe: the loader has completed the next channel.
    load_done : In(1)
        Strobe: and the whole descriptor.
    stripe_en : Out(1)
        Read the stripe memory.
    stripe_word : Out
        Its address.
    stripe_data : In(8 * num_lanes)
        The word, `STRIPE_CYCLES` later.
    write : Out(WindowWrite)
        To all cores.
    write_core : Out(num_cores)
        Which of them take it.
    filled : Out(num_cores)
        Strobes with the last word of a window.
    released : In(num_cores)
        Strobes when a core is done with one.
    channel_read : Out(1)
        Strobe: the last word of a window has been read, of the descriptor that the loader is at.
    done : Out(1)
        Strobe: the last word of the descriptor has been read.
    waits_load : Out(1)
        It stands still until a channel has been loaded.
    waits_slot : Out(1)
        It stands still until a core has released a window.
    """

    STRIPE_CYCLES = _FanOut.STRIPE_CYCLES

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*FILLER_FIELDS))),
                "channel_loaded": In(1),
                "load_done": In(1),
                "stripe_en": Out(1),
                "stripe_word": Out(exact_log2(config.stripe_words)),
                "stripe_data": In(8 * config.num_lanes),
                "write": Out(WindowWrite(config)),
                "write_core": Out(config.num_cores),
                "filled": Out(config.num_cores),
                "released": In(config.num_cores),
                "channel_read": Out(1),
                "done": Out(1),
                "waits_load": Out(1),
                "waits_slot": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.channels = channels = _Channels()
        m.submodules.slots = slots = _Slots(config)
        m.submodules.walk = walk = _Walk(config)
        m.submodules.words = words = _Words(config)
        m.submodules.fan_out = fan_out = _FanOut(config)
        job, new = walk.fields, self.job.payload
        is_loaded, has_slot, take, begin = Signal(), Signal(), Signal(), Signal()
        is_reading, has_begun, is_final = Signal(), Signal(), Signal()
        start, is_starved = Signal(), Signal()
        m.submodules.window = window = Stage(_Window(config))
        m.d.comb += [
            start.eq(self.job.valid & self.job.ready),
            has_slot.eq(~walk.is_first_core | slots.has_free),
            take.eq(window.i.valid & window.i.ready),
            slots.taken.eq(Mux(take, walk.cores, 0)),
            window.i.valid.eq(is_loaded & has_slot),
            window.i.payload.first.eq(walk.base + truncate(walk.group_word, walk.base.shape())),
            window.o.ready.eq(~is_reading | words.is_last),
            begin.eq(window.o.valid & window.o.ready),
            fan_out.is_end.eq(is_reading & words.is_last),
            self.job.ready.eq(~walk.has_window & ~window.o.valid & slots.is_empty),
            is_starved.eq(walk.has_window & window.o.ready & ~window.o.valid),
            self.waits_load.eq(is_starved & ~is_loaded),
            self.waits_slot.eq((is_starved & ~has_slot) | (self.job.valid & ~walk.has_window & ~slots.is_empty)),
        ]
        for name in ("cores", "is_first_core", "is_first_slot", "is_last"):
            m.d.comb += window.i.payload[name].eq(getattr(walk, name))
        m.d.sync += [
            # What `take` decides on follows a cycle after what the last one did
            is_loaded.eq(
                walk.has_window
                & ~take
                & ((walk.channel < (channels.count >> job.is_wide)) | (walk.channel >= job.num_ic))
            ),
            is_reading.eq(begin | (is_reading & ~words.is_last)),
            has_begun.eq(begin),
            self.done.eq(fan_out.is_end & is_final),
        ]
        cores = data_register(m, fan_out.cores)
        with m.If(begin):
            m.d.sync += [cores.eq(window.o.payload.cores), is_final.eq(window.o.payload.is_last)]

        m.d.comb += [
            self.channel_read.eq(has_begun & channels.is_together),
            channels.loaded.eq(self.channel_loaded),
            channels.load_done.eq(self.load_done),
            channels.done.eq(self.done),
            slots.num_slots.eq(job.num_slots),
            slots.released.eq(self.released),
            walk.new.eq(new),
            walk.start.eq(start),
            walk.step.eq(take),
            words.new.num_phases.eq(new.num_phases),
            words.new.is_wide.eq(new.is_wide),
            words.start.eq(start),
            words.job.seg_words.eq(job.seg_words),
            words.job.phase_words.eq(job.phase_words),
            words.first.eq(window.o.payload.first),
            words.begin.eq(begin),
            words.is_first_core.eq(window.o.payload.is_first_core),
            words.is_first_slot.eq(window.o.payload.is_first_slot),
            words.step.eq(is_reading),
            self.stripe_en.eq(is_reading),
            self.stripe_word.eq(words.stripe_word),
            fan_out.en.eq(is_reading),
            fan_out.word.eq(words.window_word),
            fan_out.data.eq(self.stripe_data),
            self.write.eq(fan_out.write),
            self.write_core.eq(fan_out.write_core),
            self.filled.eq(fan_out.filled),
        ]
        return m
