"""Issue: each weight meets the T vectors of its group, one per cycle."""

from itertools import pairwise

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN

from .activity import CoreState
from .decoder import WEIGHT_BITS, WeightPlace

__all__ = ["SEQUENCER_FIELDS", "Issue", "Sequencer"]

SEQUENCER_FIELDS = (
    "num_sb",
    "num_groups",
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


class Sequencer(wiring.Component):
    """Walks weights over vectors, windows over slots, groups over accumulator buffers.

    Members
    -------
    job : In(stream of SEQUENCER_FIELDS)
    weights : In(stream of WeightPlace)
    window_filled : In(1), strobe: the next window is complete
    window_released : Out(1), strobe: the oldest window is no longer read
    group_done : Out(1), strobe: all sums of the group are in the accumulator memory
    group_drained : In(1), strobe: the accumulators of the oldest group are free and zero
    issue : Out(Issue), registered
    has_beat : In(1), the weight queue is not empty; state : Out(CoreState), of the cycle before

    With `is_wide` a weight meets the low bytes of a vector, then the high bytes, which stand in the second half of the
    window; entry 2v collects the former, 2v + 1 the latter. Here all that is counted in vectors is counted in such
    halves then.

    Latency: 3 cycles from weight to issue. A weight takes T cycles, 2T if is_wide, a zero one cycle, the end of a group
    one. Two issues to one accumulator entry are at least `MIN_REUSE_CYCLES` apart; only T < `MIN_REUSE_CYCLES` can lose
    cycles to that.
    """

    MIN_REUSE_CYCLES = cycles.MIN_REUSE_CYCLES
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
        job, is_new = Signal(self.job.payload.shape(), reset_less=True), Signal()
        is_busy, finish = Signal(), Signal()  # finish: the cycle after a group's last issue
        num_filled, num_free, take_window, take_buffer = self._count(m)
        has_buffer, buffer = Signal(), Signal()
        head, has_head, is_zero = Signal(self.weights.payload.shape()), Signal(), Signal()
        entry = Signal(exact_log2(self._config.num_acc_entries))
        num_vec, vec = Signal(9), Signal(9)  # vector v of T
        is_first, is_low = Signal(), Signal()
        m.d.comb += [
            is_new.eq(self.job.valid & self.job.ready),
            is_first.eq(vec == 0),
            is_low.eq(job.is_wide & ~vec[0]),
        ]
        must_change = head.is_new_window & is_first

        may_start, go, is_end = Signal(), Signal(), Signal()
        m.d.comb += may_start.eq(
            is_busy & ~finish & has_head & (~must_change | (num_filled != 0)) & (has_buffer | (num_free != 0))
        )
        does_issue = go & ~is_zero
        is_hazard = self._watch_reuse(m, entry, does_issue)
        m.d.comb += [
            go.eq(may_start & (is_zero | ~is_hazard)),
            is_end.eq(is_zero | (vec == num_vec - 1)),
            self.weights.ready.eq(~has_head | (go & is_end)),
            take_window.eq(go & must_change),
            take_buffer.eq(go & ~has_buffer),
        ]
        m.d.sync += finish.eq(go & is_end & head.is_last)
        with m.If(go):
            m.d.sync += [entry.eq(entry + 1), vec.eq(Mux(is_end, 0, vec + 1))]
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

        drop = Signal()  # the window in use has met its last weight, also if the next one is not there yet
        has_window, word = self._walk_slots(m, job, is_new, take_window, finish, drop, must_change, is_low)
        m.d.comb += drop.eq(is_busy & ~finish & has_head & must_change & has_window)
        remainder = self._walk_groups(m, job, is_new, is_busy, finish, num_vec)
        off_x = self._walk_vectors(m, go & is_end, go & ~is_low, job, len(self.issue.pixel))
        self._issue(m, head, does_issue, entry, buffer, word, remainder, off_x, is_low, job)
        self._say_state(
            m,
            is_busy,
            does_issue,
            ~has_buffer & (num_free == 0),
            (must_change | ~has_window) & (num_filled == 0),
            may_start & ~go,
            ~has_head,
        )
        m.d.comb += [
            self.window_released.eq(_delay(m, drop | finish, self.RELEASE_CYCLES, "release")),
            self.group_done.eq(_delay(m, finish, self.FINISH_CYCLES, "finish")),
        ]
        return m

    def _count(self, m):
        """Semaphores: windows filled and not yet taken, accumulator buffers free; and the strobes that take one."""
        num_filled, num_free = Signal(range(self._config.window_words + 1)), Signal(range(3), init=2)
        take_window, take_buffer = Signal(), Signal()
        m.d.sync += [
            num_filled.eq(num_filled + self.window_filled - take_window),
            num_free.eq(num_free + self.group_drained - take_buffer),
        ]
        return num_filled, num_free, take_window, take_buffer

    def _watch_reuse(self, m, entry, does_issue):
        """Whether the accumulator entry is one of the last that were issued."""
        history = [Signal(len(entry) + 1, name=f"history_{n}") for n in range(self.MIN_REUSE_CYCLES - 1)]
        is_hazard = Signal()
        m.d.comb += is_hazard.eq(Cat(old == Cat(entry, 1) for old in history).any())
        m.d.sync += [history[0].eq(Mux(does_issue, Cat(entry, 1), 0)), *(new.eq(old) for old, new in pairwise(history))]
        return is_hazard

    def _walk_slots(self, m, job, is_new, take_window, finish, drop, must_change, is_low):
        """Whether there is a window in use, and the first word of what the weight at the head meets."""
        words = range(self._config.window_words)
        has_window, slot_word, word = Signal(), Signal(words), Signal(words)
        next_slot, next_word = Signal(9), Signal(words)  # the slot that the next window is in
        window_words, high_words = Signal(11), Signal(words)
        with m.If(drop):
            m.d.sync += has_window.eq(0)
        with m.If(take_window):
            m.d.sync += [slot_word.eq(next_word), has_window.eq(1)]
            with m.If(next_slot == job.num_slots - 1):
                m.d.sync += [next_slot.eq(0), next_word.eq(0)]
            with m.Else():
                m.d.sync += [next_slot.eq(next_slot + 1), next_word.eq(next_word + window_words)]
        with m.If(finish):
            m.d.sync += has_window.eq(0)
        with m.If(is_new):
            new = self.job.payload
            half_words = Mux(
                new.num_phases == 4, new.seg_words << 2, Mux(new.num_phases == 2, new.seg_words << 1, new.seg_words)
            )
            m.d.sync += [
                next_slot.eq(0),
                next_word.eq(0),
                window_words.eq(half_words << new.is_wide),
                high_words.eq(half_words),
            ]
        m.d.comb += word.eq(Mux(must_change, next_word, Mux(job.is_wide & ~is_low, slot_word + high_words, slot_word)))
        return has_window, word

    def _walk_groups(self, m, job, is_new, is_busy, finish, num_vec):
        """Take jobs, count groups and superblocks; the pixels by which the group's first vector lies behind a word."""
        sb, group, group_pixel = Signal(16), Signal(16), Signal(16)
        remainder = Signal(exact_log2(self._config.num_lanes))
        m.d.comb += [self.job.ready.eq(~is_busy), remainder.eq(group_pixel)]
        with m.If(finish):
            with m.If(group != job.num_groups - 1):
                m.d.sync += [group.eq(group + 1), group_pixel.eq(group_pixel + job.group_step)]
                m.d.sync += num_vec.eq(Mux(group == job.num_groups - 2, job.num_vec_last, job.num_vec))
            with m.Else():
                m.d.sync += [group.eq(0), group_pixel.eq(0), sb.eq(sb + 1)]
                m.d.sync += num_vec.eq(Mux(job.num_groups == 1, job.num_vec_last, job.num_vec))
                with m.If(sb == job.num_sb - 1):
                    m.d.sync += is_busy.eq(0)
        with m.If(is_new):
            new = self.job.payload
            m.d.sync += [
                job.eq(new),
                job.num_vec.eq(new.num_vec << new.is_wide),
                job.num_vec_last.eq(new.num_vec_last << new.is_wide),
                is_busy.eq(1),
                sb.eq(0),
                group.eq(0),
                group_pixel.eq(0),
                num_vec.eq(Mux(new.num_groups == 1, new.num_vec_last, new.num_vec) << new.is_wide),
            ]
        return remainder

    def _walk_vectors(self, m, restart, step, job, pixel_bits):
        """The pixel of the vector, relative to that of the first one."""
        vec_x, off_x, off_row = Signal(9), Signal(pixel_bits), Signal(pixel_bits)
        with m.If(restart):
            m.d.sync += [vec_x.eq(0), off_x.eq(0), off_row.eq(0)]
        with m.Elif(step):
            with m.If(vec_x == job.num_vec_x - 1):
                m.d.sync += [vec_x.eq(0), off_row.eq(off_row + job.step_vec_y), off_x.eq(off_row + job.step_vec_y)]
            with m.Else():
                m.d.sync += [vec_x.eq(vec_x + 1), off_x.eq(off_x + job.step_vec_x)]
        return off_x

    def _say_state(self, m, is_busy, does_issue, lacks_buffer, lacks_window, is_hazard, lacks_weight):
        """What is in the way of an issue, the first that applies; encoded a cycle later, off the paths of the issue."""
        conditions = (
            (~is_busy, CoreState.JOB),
            (does_issue, CoreState.BUSY),
            (lacks_buffer, CoreState.BUFFER),
            (lacks_window, CoreState.WINDOW),
            (is_hazard, CoreState.HAZARD),
            (lacks_weight & ~self.has_beat, CoreState.BEATS),
        )
        flags = Signal(len(conditions), init=1)
        m.d.sync += flags.eq(Cat(condition for condition, _ in conditions))
        m.d.comb += self.state.eq(CoreState.DECODER)
        for flag, (_, state) in reversed(list(zip(flags, conditions, strict=True))):
            with m.If(flag):
                m.d.comb += self.state.eq(state)

    def _issue(self, m, head, is_valid, entry, buffer, word, remainder, offset, is_low, job):
        """Two stages of address addition: tap + vector, then + window."""
        first = Signal(Issue(self._config))
        pixel = Signal(len(first.pixel))
        m.d.sync += [
            first.is_valid.eq(is_valid),
            first.entry.eq(entry),
            first.buffer.eq(buffer),
            first.value.eq(head.value),
            first.split_log2.eq(job.split_log2),
            first.split_words.eq(job.split_words),
            first.is_low.eq(is_low),
            first.pixel.eq(head.tap_offset + offset),
            pixel.eq(Cat(remainder, word)),
            self.issue.eq(first),
            self.issue.pixel.eq(first.pixel + pixel),
        ]


def _delay(m, strobe, num_cycles, name):
    for n in range(num_cycles):
        later = Signal(name=f"{name}_{n}")
        m.d.sync += later.eq(strobe)
        strobe = later
    return strobe
