"""Cuts runs of bytes into bursts of beats."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import Burst
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.stage import Stage
from convoy.spec.config import PAGE_BYTES, NpuConfig

from .types import Run

__all__ = ["BurstSplitter", "run_burst"]


def run_burst(config: NpuConfig) -> data.StructLayout:
    """A burst of a run: the burst, whether it is the first or last of its run, and the run's first and last byte
    within a beat.
    """
    return data.StructLayout(
        {
            "burst": Burst,
            "is_first": 1,
            "is_last": 1,
            "first_byte": range(config.port_bytes),
            "last_byte": range(config.port_bytes),
        }
    )


class BurstSplitter(wiring.Component):
    """Cuts each run into bursts of at most `max_burst_beats` that do not cross a 4 KiB boundary.

    | cycle | work |
    | -- | -- |
    | 0 | how many beats the run has |
    | 1 | its first burst, or the next one |
    | 2 | `bursts` |

    Throughput: one burst per cycle, also from run to run. Latency: 2 cycles. `runs.ready` follows `bursts.ready` in the
    same cycle.

    Members
    -------
    runs
        `Run`.
    bursts
        `run_burst`, in ascending order of address.
    has_run : Out(1)
        A run has been taken whose last burst has not left.
    """

    def __init__(self, config: NpuConfig):
        self.config = config
        super().__init__(
            {"runs": In(stream.Signature(Run)), "bursts": Out(stream.Signature(run_burst(config))), "has_run": Out(1)}
        )

    def elaborate(self, platform):
        m = Module()
        port_log2 = exact_log2(self.config.port_bytes)
        burst_log2 = exact_log2(self.config.max_burst_beats)
        page_log2 = exact_log2(PAGE_BYTES) - port_log2
        # A run's beats, less one: those of its bytes and of those before it in its first beat
        counted = data.StructLayout({"addr": 32, "num_more": 33 - port_log2, "last_byte": port_log2})
        m.submodules.stage = stage = Stage(counted)
        end = Signal(33)  # the run's last byte, from the beginning of its first beat on
        before = Signal(signed(port_log2 + 1))
        m.d.comb += [
            before.eq(self.runs.p.addr[:port_log2] - 1),
            end.eq(truncate(self.runs.p.num_bytes + before, end.shape())),
            stage.i.valid.eq(self.runs.valid),
            stage.i.p.addr.eq(self.runs.p.addr),
            stage.i.p.num_more.eq(end >> port_log2),
            stage.i.p.last_byte.eq(end[:port_log2]),
            self.runs.ready.eq(stage.i.ready),
        ]
        run, out = stage.o.p, self.bursts.p

        is_busy = Signal()
        is_first = Signal()
        beat_addr = Signal(32 - port_log2)
        left = Signal(33 - port_log2)  # beats of the run that follow the next one
        first_byte = Signal(port_log2)
        last_byte = Signal(port_log2)

        # The longest burst from here, less one: up to the end of the page if this is the page's last block of
        # max_burst_beats; from any other block the next burst begins as far into the next one. It and whether it is the
        # run's last are computed with the address, a cycle ahead.
        limit, is_last = Signal(max(1, burst_log2)), Signal(init=1)  # also while there is none
        next_addr, next_left, next_limit = Signal.like(beat_addr), Signal.like(left), Signal.like(limit)
        rest = Cat(~limit, Const(-1, len(left) - len(limit))).as_signed()  # -limit - 1
        beats, more = Signal.like(left), Signal(signed(len(left)))  # next_left is their sum
        block, is_last_block = Signal(page_log2 - burst_log2), Signal()
        first_beat = Signal(burst_log2)  # within the block, should it be the last one
        m.d.comb += [
            next_addr.eq(truncate(beat_addr - rest, next_addr.shape())),
            beats.eq(left),
            more.eq(rest),
            next_left.eq(truncate(beats + more, next_left.shape())),
            block.eq(beat_addr[burst_log2:page_log2] + 1),
            first_beat.eq(beat_addr[:burst_log2]),
            is_last_block.eq(block.all()),
            next_limit.eq(Mux(is_last_block, ~first_beat, self.config.max_burst_beats - 1)),
        ]
        # A run begins behind the last burst of the one before; whether it is there, and whether that burst may go, is
        # not waited for
        may_move = ~is_busy | self.bursts.ready
        with m.If(is_last):
            m.d.comb += [
                next_addr.eq(run.addr[port_log2:]),
                block.eq(run.addr[port_log2 + burst_log2 : port_log2 + page_log2]),
                first_beat.eq(run.addr[port_log2 : port_log2 + burst_log2]),
                beats.eq(run.num_more),
                more.eq(0),
            ]
        # Of twice the longest burst more than one is left, whatever is taken off: that sum is not waited for
        near = burst_log2 + 1
        is_near_end = ~beats[near:].any() & (next_left[: near + 1] <= next_limit)

        m.d.comb += [
            stage.o.ready.eq(may_move & is_last),
            self.bursts.valid.eq(is_busy),
            self.has_run.eq(stage.o.valid | is_busy),
            out.burst.addr.eq(beat_addr << port_log2),
            out.burst.last_beat.eq(Mux(is_last, left[:burst_log2], limit)),
            out.is_first.eq(is_first),
            out.is_last.eq(is_last),
            out.first_byte.eq(first_byte),
            out.last_byte.eq(last_byte),
        ]
        with m.If(may_move):
            m.d.sync += [
                beat_addr.eq(next_addr),
                left.eq(next_left),
                limit.eq(next_limit),
                is_last.eq(is_near_end | (is_last & ~stage.o.valid)),
                is_first.eq(is_last),
                is_busy.eq(~is_last | stage.o.valid),
            ]
            with m.If(is_last):
                m.d.sync += [first_byte.eq(run.addr[:port_log2]), last_byte.eq(run.last_byte)]
        return m
