"""Issue: each weight meets the T vectors of its group, one per cycle.

The weight at the head waits until all that it needs is there; each concern has a unit of its own:

    _Groups   the job, and where its groups begin
    _Windows  the window in use, its place in the window memory
    _Vectors  the place of a vector within the window
    _Pixels   the sum of these places, which leaves as the issue
    _States   what is in the way of an issue
"""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN

from .activity import CoreState
from .decoder import WEIGHT_BITS, WeightPlace

__all__ = ["SEQUENCER_FIELDS", "Issue", "Sequencer"]

SEQUENCER_FIELDS = (
    "group_step",
    "num_phases",
    "seg_words",
    "num_slots",
    "num_vec",
    "num_vec_last",
    "num_vec_x",
    "step_vec_x",
    "step_vec_y",
    "split_log2",
    "split_words",
    "is_wide",
)
"""What the sequencer needs of an NN descriptor."""


def Issue(config: NpuConfig) -> data.StructLayout:
    """One cycle's work: the window pixel of lane 0, the weight, and the accumulator entry and buffer; `is_low`:
    pixels are low bytes of int16.
    """
    return data.StructLayout(
        {
            "is_valid": 1,
            "pixel": exact_log2(config.window_words * config.num_lanes),
            "split_log2": 2,
            "split_words": 8,
            "is_low": 1,
            "value": signed(WEIGHT_BITS),
            "entry": exact_log2(config.num_acc_entries),
            "buffer": 1,
        }
    )


class _Groups(wiring.Component):
    """Takes jobs and walks their groups, superblock after superblock.

    | cycle | work |
    | -- | -- |
    | job taken | `is_new`; a cycle later `is_busy` and `fields` are the job's |
    | `finish` | a cycle later `remainder` is the next group's, or `is_busy` is 0 |

    Latency: 1 cycle. Throughput: one group per cycle; a job is taken the cycle after the last `finish`.

    Members
    -------
    job : In(stream of SEQUENCER_FIELDS)
    finish : In(1)
        Strobe: the group has ended.
    is_last_group, is_last_sb : In(1)
        It was the superblock's last; one of the last superblock.
    fields : Out(SEQUENCER_FIELDS)
        The job, its vectors counted in halves if is_wide.
    is_new : Out(1)
        Strobe: a job is taken, its fields come in the next cycle.
    is_busy : Out(1)
        There is a job.
    remainder : Out
        Pixels by which the group's first vector lies behind the start of a word.
    """

    def __init__(self, config: NpuConfig):
        layout = NN.subset(*SEQUENCER_FIELDS)
        super().__init__(
            {
                "job": In(stream.Signature(layout)),
                "finish": In(1),
                "is_last_group": In(1),
                "is_last_sb": In(1),
                "fields": Out(layout),
                "is_new": Out(1),
                "is_busy": Out(1),
                "remainder": Out(exact_log2(config.num_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, new = data_register(m, self.fields), self.job.payload
        group_pixel = data_register(m, self.remainder)
        m.d.comb += [self.job.ready.eq(~self.is_busy), self.is_new.eq(self.job.valid & self.job.ready)]
        with m.If(self.finish):
            m.d.sync += group_pixel.eq(truncate(group_pixel + job.group_step, group_pixel.shape()))
            with m.If(self.is_last_group):
                m.d.sync += group_pixel.eq(0)
                with m.If(self.is_last_sb):
                    m.d.sync += self.is_busy.eq(0)
        with m.If(self.is_new):
            m.d.sync += [
                job.eq(new),
                # An entry for each half vector: these counts are at most num_acc_entries
                job.num_vec.eq(truncate(new.num_vec << new.is_wide, 9)),
                job.num_vec_last.eq(truncate(new.num_vec_last << new.is_wide, 9)),
                self.is_busy.eq(1),
                group_pixel.eq(0),
            ]
        return m


class _Windows(wiring.Component):
    """The window in use, and the first word of what the weight at the head meets.

    | cycle | work |
    | -- | -- |
    | `start` | a cycle later the next window is in slot 0, and its size is known |
    | `take` | `word` is the next window's, in the same cycle; a cycle later that is the one in use |
    | `drop` or `finish` | a cycle later no window is in use |

    Latency: 0 cycles from the head to `word`. Throughput: one weight, and one window, per cycle.

    Members
    -------
    new : In(fields)
        The job that begins with `start`.
    start : In(1)
        Strobe: a new job, `num_slots` and `is_wide` are its from the next cycle on.
    num_slots : In(9)
        Windows in the window memory.
    is_wide : In(1)
        A window has a half of low and a half of high bytes.
    is_low : In(1)
        The low bytes are met.
    must_change : In(1)
        The weight at the head is the first of the next window.
    take : In(1)
        Strobe: the next window becomes the one in use.
    drop : In(1)
        Strobe: the window in use is no longer needed.
    finish : In(1)
        Strobe: the same, at the end of the group.
    has_window : Out(1)
        There is a window in use.
    word : Out(range(window_words))
    """

    def __init__(self, config: NpuConfig):
        words = range(config.window_words)
        super().__init__(
            {
                "new": In(NN.subset("num_phases", "seg_words", "is_wide")),
                "start": In(1),
                "num_slots": In(9),
                "is_wide": In(1),
                "is_low": In(1),
                "must_change": In(1),
                "take": In(1),
                "drop": In(1),
                "finish": In(1),
                "has_window": Out(1),
                "word": Out(words),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words = self.word.shape()
        slot_word = Signal(words)
        next_slot, next_word = Signal(9), Signal(words)  # the slot that the next window is in, counted from 1
        window_words, high_words = Signal(words), Signal(words)  # of a window, to its high bytes
        with m.If(self.drop):
            m.d.sync += self.has_window.eq(0)
        with m.If(self.take):
            m.d.sync += [slot_word.eq(next_word), self.has_window.eq(1)]
            with m.If(next_slot == self.num_slots):
                m.d.sync += [next_slot.eq(1), next_word.eq(0)]
            with m.Else():
                m.d.sync += [next_slot.eq(next_slot + 1), next_word.eq(next_word + window_words)]
        with m.If(self.finish):
            m.d.sync += self.has_window.eq(0)
        with m.If(self.start):
            new = self.new
            half_words = Mux(
                new.num_phases == 4, new.seg_words << 2, Mux(new.num_phases == 2, new.seg_words << 1, new.seg_words)
            )
            m.d.sync += [
                next_slot.eq(1),
                next_word.eq(0),
                # Windows fit in the window memory; one that fills it has no next slot
                window_words.eq(truncate(half_words << new.is_wide, words)),
                high_words.eq(truncate(half_words, words)),
            ]
        high_word = truncate(slot_word + high_words, words)
        in_use = Mux(self.is_wide & ~self.is_low, high_word, slot_word)
        m.d.comb += self.word.eq(Mux(self.must_change, next_word, in_use))
        return m


class _Vectors(wiring.Component):
    """The pixel of a vector, relative to that of the group's first one.

    | cycle | work |
    | -- | -- |
    | `restart` | a cycle later the first vector |
    | `step` | a cycle later the next one, side by side or in the next row |

    Latency: 1 cycle. Throughput: one vector per cycle.

    Members
    -------
    job : In(fields)
        Constant while there are vectors.
    restart : In(1)
        Strobe: goes before `step`.
    step : In(1)
        Strobe.
    offset : Out
        In pixels, modulo the window memory.
    """

    def __init__(self, config: NpuConfig):
        super().__init__(
            {
                "job": In(NN.subset("num_vec_x", "step_vec_x", "step_vec_y")),
                "restart": In(1),
                "step": In(1),
                "offset": Out(exact_log2(config.window_words * config.num_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        shape = self.offset.shape()
        vec_x = Signal(9, init=1)  # counted from 1
        row, next_row, next_x = Signal(shape), Signal(shape), Signal(shape)
        m.d.comb += [
            next_row.eq(row + truncate(self.job.step_vec_y, shape)),
            next_x.eq(self.offset + truncate(self.job.step_vec_x, shape)),
        ]
        with m.If(self.restart):
            m.d.sync += [vec_x.eq(1), self.offset.eq(0), row.eq(0)]
        with m.Elif(self.step):
            with m.If(vec_x == self.job.num_vec_x):
                m.d.sync += [vec_x.eq(1), row.eq(next_row), self.offset.eq(next_row)]
            with m.Else():
                m.d.sync += [vec_x.eq(vec_x + 1), self.offset.eq(next_x)]
        return m


class _Pixels(wiring.Component):
    """Adds up where lane 0 finds its pixel, and gives the issue.

    | stage | cycle | work |
    | -- | -- | -- |
    | I | 0 | tap + vector |
    | J | 1 | + window |
    | W0 | 2 | `issue` |

    Latency: 2 cycles. Throughput: one issue per cycle.

    Members
    -------
    work : In(Issue)
        Its pixel is that of the tap.
    offset : In
        Pixels from the group's first vector to this one.
    first : In
        The pixel of the group's first vector in the window memory.
    issue : Out(Issue)
    """

    def __init__(self, config: NpuConfig):
        pixel = exact_log2(config.window_words * config.num_lanes)
        super().__init__(
            {"work": In(Issue(config)), "offset": In(pixel), "first": In(pixel), "issue": Out(Issue(config))}
        )

    def elaborate(self, platform):
        m = Module()
        work, first = Signal.like(self.work), Signal.like(self.first)
        m.d.sync += [
            work.eq(self.work),
            work.pixel.eq(self.work.pixel + self.offset),
            first.eq(self.first),
            self.issue.eq(work),
            self.issue.pixel.eq(work.pixel + first),
        ]
        return m


class _States(wiring.Component):
    """What is in the way of an issue, the first that applies; encoded a cycle later, off the paths of the issue.

    Latency: 1 cycle. Throughput: one state per cycle.

    Members
    -------
    is_busy : In(1)
        There is a job.
    does_issue : In(1)
        There is an issue.
    lacks_buffer : In(1)
        No free accumulators for the group.
    lacks_window : In(1)
        No window for the weight.
    lacks_weight : In(1)
        There is no weight.
    has_beat : In(1)
        The weight queue is not empty.
    state : Out(CoreState)
        Of the cycle before.
    """

    is_busy: In(1)
    does_issue: In(1)
    lacks_buffer: In(1)
    lacks_window: In(1)
    lacks_weight: In(1)
    has_beat: In(1)
    state: Out(CoreState, init=CoreState.JOB)

    def elaborate(self, platform):
        m = Module()
        conditions = (
            (~self.is_busy, CoreState.JOB),
            (self.does_issue, CoreState.BUSY),
            (self.lacks_buffer, CoreState.BUFFER),
            (self.lacks_window, CoreState.WINDOW),
            (self.lacks_weight & ~self.has_beat, CoreState.BEATS),
        )
        flags = Signal(len(conditions), init=1)
        m.d.sync += flags.eq(Cat(condition for condition, _ in conditions))
        m.d.comb += self.state.eq(CoreState.DECODER)
        for flag, (_, state) in reversed(list(zip(flags, conditions, strict=True))):
            with m.If(flag):
                m.d.comb += self.state.eq(state)
        return m


class Sequencer(wiring.Component):
    """Walks weights over vectors, windows over slots, groups over accumulator buffers.

    | stage | cycle | work |
    | -- | -- | -- |
    | Q | 0 | the weight comes to the head |
    | I | 1 | it goes if window and buffer are free: one vector per cycle; tap + vector |
    | J | 2 | + window |
    | W0 | 3 | issue |

    Latency: 3 cycles from weight to issue. Throughput: a weight takes T cycles, 2T if is_wide, a zero one cycle, the
    end of a group one.

    With `is_wide` a weight meets the low bytes of a vector, then the high bytes, which stand in the second half of the
    window; entry 2v collects the former, 2v + 1 the latter. Here all that is counted in vectors is counted in such
    halves then.

    Members
    -------
    job : In(stream of SEQUENCER_FIELDS)
    weights : In(stream of WeightPlace)
    window_filled : In(1)
        Strobe: the next window is complete.
    window_released : Out(1)
        Strobe: the oldest window is no longer read.
    group_done : Out(1)
        Strobe: all sums of the group are in the accumulator memory.
    group_drained : In(1)
        Strobe: the accumulators of the oldest group are free and zero.
    issue : Out(Issue)
        Registered.
    has_beat : In(1)
        The weight queue is not empty.
    state : Out(CoreState)
        Of the cycle before.
    """

    RELEASE_CYCLES = cycles.RELEASE_CYCLES
    FINISH_CYCLES = cycles.FINISH_CYCLES

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*SEQUENCER_FIELDS))),
                "weights": In(stream.Signature(WeightPlace(config))),
                "window_filled": In(1),
                "window_released": Out(1),
                "group_done": Out(1),
                "group_drained": In(1),
                "issue": Out(Issue(config)),
                "has_beat": In(1),
                "state": Out(CoreState, init=CoreState.JOB),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.groups = groups = _Groups(config)
        m.submodules.windows = windows = _Windows(config)
        m.submodules.vectors = vectors = _Vectors(config)
        m.submodules.pixels = pixels = _Pixels(config)
        m.submodules.states = states = _States()
        job, is_busy = groups.fields, groups.is_busy

        # Windows filled and not yet taken, accumulator buffers free; the buffer in use
        num_filled, num_free = Signal(range(config.window_words + 1)), Signal(range(3), init=2)
        has_buffer, buffer = Signal(), Signal()
        # The weight at the head: `entry` is that of its vector number `vec`, counted from 1
        head, has_head, is_zero = Signal(self.weights.payload.shape()), Signal(), Signal()
        entry, vec, is_first = Signal(exact_log2(config.num_acc_entries)), Signal(9, init=1), Signal(init=1)
        is_low, must_change = Signal(), Signal()
        m.d.comb += [is_low.eq(job.is_wide & vec[0]), must_change.eq(head.is_new_window & is_first)]

        go, is_end, does_issue = Signal(), Signal(), Signal()
        take_buffer, finish = Signal(), Signal()  # finish: the cycle after a group's last issue
        drop = Signal()  # the window in use has met its last weight, also if the next one is not there yet
        m.d.comb += [
            go.eq(is_busy & ~finish & has_head & (~must_change | (num_filled != 0)) & (has_buffer | (num_free != 0))),
            does_issue.eq(go & ~is_zero),
            is_end.eq(is_zero | (vec == Mux(head.is_last_group, job.num_vec_last, job.num_vec))),
            self.weights.ready.eq(~has_head | (go & is_end)),
            take_buffer.eq(go & ~has_buffer),
            drop.eq(is_busy & ~finish & has_head & must_change & windows.has_window),
        ]
        m.d.sync += [
            finish.eq(go & is_end & head.is_last),
            groups.is_last_group.eq(head.is_last_group),
            groups.is_last_sb.eq(head.is_last_sb),
            num_filled.eq(num_filled + self.window_filled - windows.take),
            num_free.eq(num_free + self.group_drained - take_buffer),
        ]
        with m.If(go):
            m.d.sync += [entry.eq(entry + 1), vec.eq(Mux(is_end, 1, vec + 1)), is_first.eq(is_end)]
        with m.If(self.weights.ready):
            load = self.weights.payload
            m.d.sync += [
                head.eq(load),
                has_head.eq(self.weights.valid),
                is_zero.eq(load.value == 0),
                entry.eq(load.entry),
            ]
        with m.If(take_buffer):
            m.d.sync += has_buffer.eq(1)
        with m.If(finish):
            m.d.sync += [has_buffer.eq(0), buffer.eq(~buffer)]

        wiring.connect(m, wiring.flipped(self.job), groups.job)
        m.d.comb += [
            groups.finish.eq(finish),
            *(windows.new[name].eq(self.job.payload[name]) for name, _ in windows.new.shape()),
            windows.start.eq(groups.is_new),
            windows.num_slots.eq(job.num_slots),
            windows.is_wide.eq(job.is_wide),
            windows.is_low.eq(is_low),
            windows.must_change.eq(must_change),
            windows.take.eq(go & must_change),
            windows.drop.eq(drop),
            windows.finish.eq(finish),
            *(vectors.job[name].eq(job[name]) for name, _ in vectors.job.shape()),
            vectors.restart.eq(go & is_end),
            vectors.step.eq(go & ~is_low),
            pixels.work.is_valid.eq(does_issue),
            pixels.work.pixel.eq(head.tap_offset),
            pixels.work.split_log2.eq(job.split_log2),
            pixels.work.split_words.eq(job.split_words),
            pixels.work.is_low.eq(is_low),
            pixels.work.value.eq(head.value),
            pixels.work.entry.eq(entry),
            pixels.work.buffer.eq(buffer),
            pixels.offset.eq(vectors.offset),
            pixels.first.eq(Cat(groups.remainder, windows.word)),
            self.issue.eq(pixels.issue),
            states.is_busy.eq(is_busy),
            states.does_issue.eq(does_issue),
            states.lacks_buffer.eq(~has_buffer & (num_free == 0)),
            states.lacks_window.eq((must_change | ~windows.has_window) & (num_filled == 0)),
            states.lacks_weight.eq(~has_head),
            states.has_beat.eq(self.has_beat),
            self.state.eq(states.state),
            self.window_released.eq(delay(m, drop | finish, self.RELEASE_CYCLES, name="release")),
            self.group_done.eq(delay(m, finish, self.FINISH_CYCLES, name="finish")),
        ]
        return m
