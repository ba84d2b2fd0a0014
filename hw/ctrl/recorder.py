"""Writes completion records to memory."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import Burst, WritePort
from convoy.hw.lib.queue import Queue
from convoy.spec.config import NpuConfig
from convoy.spec.isa import COMPLETION

__all__ = ["Recorder"]


class Recorder(wiring.Component):
    """Writes a `COMPLETION` record to `base` + 64 * index for each completed descriptor, one at a time, input 0 first.

    Its totals are those of the cycle in which the descriptor is taken. A record takes 3 cycles and one per beat; with
    `max_burst_beats` below a record's beats, it is written in several bursts.

    Members
    -------
    base : In(32)
        Byte address, aligned to the size of a record.
    totals : In(COMPLETION.layout)
    completed : In, array of 2 streams of unsigned(16)
        Numbers of descriptors.
    write : Out(WritePort)
        To memory.
    is_idle : Out
        Every record taken has been acknowledged.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "base": In(32),
                "totals": In(COMPLETION.layout),
                "completed": In(stream.Signature(16)).array(2),
                "write": Out(WritePort(config)),
                "is_idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        port_bytes = self._config.port_bytes
        num_beats = COMPLETION.num_bytes // port_bytes
        burst_beats = min(num_beats, self._config.max_burst_beats)
        m.submodules.requests = requests = Queue(Burst, 2)  # keeps the arbiter's choice off the paths here
        wiring.connect(m, requests.o, wiring.flipped(self.write.bursts))
        bursts, beats = requests.i, self.write.beats

        raw = Signal(COMPLETION.num_bits, reset_less=True)
        size_log2 = exact_log2(COMPLETION.num_bytes)
        record = Signal(32 - size_log2, reset_less=True)  # its address, in records
        turn = Signal(num_beats, init=1)  # a bit for each beat: it is the next one
        num_pending = Signal(6)
        sent = Signal()
        m.d.comb += [
            sent.eq(bursts.valid & bursts.ready),
            bursts.p.addr.eq(Cat(Const(0, exact_log2(port_bytes)), _number(turn), record)),
            bursts.p.last_beat.eq(burst_beats - 1),
        ]
        m.d.sync += num_pending.eq(num_pending + sent - self.write.done)

        words = (raw[port_bytes * 8 * n :][: port_bytes * 8] for n in range(num_beats))
        m.d.comb += [
            beats.p.data.eq(reduce(or_, (Mux(is_next, word, 0) for is_next, word in zip(turn, words, strict=True)))),
            beats.p.strobe.eq(~0),
        ]

        with m.FSM():
            with m.State("TAKE"):
                index = Mux(self.completed[0].valid, self.completed[0].payload, self.completed[1].payload)
                m.d.comb += [
                    self.is_idle.eq(num_pending == 0),
                    self.completed[0].ready.eq(1),
                    self.completed[1].ready.eq(~self.completed[0].valid),
                ]
                with m.If(self.completed[0].valid | self.completed[1].valid):
                    m.d.sync += [raw.eq(self.totals), record.eq(self.base[size_log2:] + index)]
                    m.next = "BURST"
            with m.State("BURST"):
                m.d.comb += bursts.valid.eq(num_pending != 63)
                with m.If(sent):
                    m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += beats.valid.eq(1)
                with m.If(beats.ready):
                    m.d.sync += turn.eq(turn.rotate_left(1))
                    with m.If(turn[-1]):
                        m.next = "TAKE"
                    with m.Elif(Cat(turn[burst_beats - 1 :: burst_beats]).any()):
                        m.next = "BURST"
        return m


def _number(turn) -> Value:
    """Which bit is high."""
    bits = range((len(turn) - 1).bit_length())
    return Cat(Cat(flag for n, flag in enumerate(turn) if n >> bit & 1).any() for bit in bits)
