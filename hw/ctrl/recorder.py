"""Writes completion records to memory."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.port import WritePort
from convoy.spec.config import NpuConfig
from convoy.spec.isa import COMPLETION

from .ledger import Completed

__all__ = ["Recorder"]


class Recorder(wiring.Component):
    """Writes a `COMPLETION` record to `base` + 16 * index for each completed descriptor, one at a time, input 0 first.

    A record takes 2 cycles and one per beat; with `max_burst_beats` below a record's beats, it is written in several bursts.

    Members
    -------
    base : In(32)
        Byte address, aligned to 32.
    completed : In, array of 2 streams of `Completed`
    write : Out(WritePort)
        To memory.
    is_idle : Out
        Every record taken has been acknowledged.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__({
            "base": In(32),
            "completed": In(stream.Signature(Completed)).array(2),
            "write": Out(WritePort(config)),
            "is_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        port_bytes = self._config.port_bytes
        num_beats = max(1, COMPLETION.num_bytes // port_bytes)
        burst_beats = min(num_beats, self._config.max_burst_beats)
        bursts, beats = self.write.bursts, self.write.beats

        raw = Signal(COMPLETION.num_bits)
        addr = Signal(32)
        num_left = Signal(range(num_beats + 1))
        num_burst_left = Signal(range(burst_beats + 1))
        num_pending = Signal(6)
        sent = Signal()
        m.d.comb += [
            sent.eq(bursts.valid & bursts.ready),
            bursts.p.addr.eq(addr & ~(port_bytes - 1)),
            bursts.p.last_beat.eq(burst_beats - 1),
        ]
        m.d.sync += num_pending.eq(num_pending + sent - self.write.done)

        if port_bytes > COMPLETION.num_bytes:
            offset = addr[COMPLETION.num_bytes.bit_length() - 1 : port_bytes.bit_length() - 1]
            m.d.comb += [
                beats.p.data.eq(raw.replicate(port_bytes // COMPLETION.num_bytes)),
                beats.p.strobe.eq(((1 << COMPLETION.num_bytes) - 1) << (offset * COMPLETION.num_bytes)),
            ]
        else:
            m.d.comb += [beats.p.data.eq(raw), beats.p.strobe.eq(~0)]

        with m.FSM():
            with m.State("TAKE"):
                chosen = Mux(self.completed[0].valid, self.completed[0].payload, self.completed[1].payload)
                index, totals = Cat(chosen)[:16], Cat(chosen)[16:]
                m.d.comb += [
                    self.is_idle.eq(num_pending == 0),
                    self.completed[0].ready.eq(1),
                    self.completed[1].ready.eq(~self.completed[0].valid),
                ]
                m.d.sync += [raw.eq(totals), addr.eq(self.base + (index << 4)), num_left.eq(num_beats)]
                with m.If(self.completed[0].valid | self.completed[1].valid):
                    m.next = "BURST"
            with m.State("BURST"):
                m.d.comb += bursts.valid.eq(num_pending != 63)
                m.d.sync += num_burst_left.eq(burst_beats)
                with m.If(sent):
                    m.next = "BEATS"
            with m.State("BEATS"):
                m.d.comb += beats.valid.eq(1)
                with m.If(beats.ready):
                    m.d.sync += [
                        raw.eq(raw >> self._config.port_bits),
                        addr.eq(addr + port_bytes),
                        num_left.eq(num_left - 1),
                        num_burst_left.eq(num_burst_left - 1),
                    ]
                    with m.If(num_left == 1):
                        m.next = "TAKE"
                    with m.Elif(num_burst_left == 1):
                        m.next = "BURST"
        return m
