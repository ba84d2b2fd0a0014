"""Reads descriptors from memory, ahead of the dispatcher."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.port import ReadPort
from convoy.hw.lib.register import data_register
from convoy.spec.config import NpuConfig
from convoy.spec.isa import DESCRIPTOR_BYTES

__all__ = ["Fetch", "Fetched"]


class Fetched(data.Struct):
    """A descriptor, its number in the program and its address."""

    raw: 8 * DESCRIPTOR_BYTES
    index: 16
    addr: 32


class Fetch(wiring.Component):
    """Fetches `count` descriptors from `base`: one stands at `descriptors`, the next one waits in a queue behind it.

    A descriptor stands `DESCRIPTOR_BYTES / port_bytes` + 1 cycles after the previous one was taken, if memory keeps up.

    Members
    -------
    start : In
        High for one cycle; samples `base` (bytes, aligned to `DESCRIPTOR_BYTES`) and `count`. Legal when `is_idle`.
    enable : In
        While it is low nothing is requested, beats under way are dropped and `descriptors` is empty.
    descriptors : Out, stream of `Fetched`
        In program order.
    read : Out(ReadPort)
        To memory.
    is_idle : Out
        Every descriptor has been taken (or dropped) and no beat is under way.
    is_active : Out
        Low when nothing inside would change: the unit may rest.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "start": In(1),
                "enable": In(1),
                "base": In(32),
                "count": In(16),
                "descriptors": Out(stream.Signature(Fetched)),
                "read": Out(ReadPort(config)),
                "is_idle": Out(1),
                "is_active": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        num_beats = DESCRIPTOR_BYTES // config.port_bytes
        burst_beats = min(num_beats, config.max_burst_beats)
        bursts_log2 = (num_beats // burst_beats - 1).bit_length()
        bursts, beats = self.read.bursts, self.read.beats

        m.submodules.queue = queue = SyncFIFO(width=config.port_bits, depth=num_beats)
        num_bursts_left = Signal(16 + bursts_log2)
        num_free = Signal(range(num_beats + 1), init=num_beats)
        num_due = Signal(range(num_beats + 1))
        num_assembled = Signal(range(num_beats + 1))
        requested, offers, arrived, taken = Signal(), Signal(), Signal(), Signal()
        descriptor, raw = self.descriptors, data_register(m, self.descriptors.p.raw)

        # Requests: a burst is offered only when the queue has room for all of it
        m.d.comb += [
            requested.eq(bursts.valid & bursts.ready),
            arrived.eq(beats.valid),
            offers.eq(self.enable & (num_bursts_left != 0) & (num_free >= burst_beats) & ~bursts.valid),
        ]
        m.d.sync += [
            num_free.eq(num_free - Mux(requested, burst_beats, 0) + taken),
            num_due.eq(num_due + Mux(requested, burst_beats, 0) - arrived),
        ]
        with m.If(requested):
            m.d.sync += [bursts.valid.eq(0), bursts.p.addr.eq(bursts.p.addr + burst_beats * config.port_bytes)]
        with m.Elif(offers):
            m.d.sync += [bursts.valid.eq(1), num_bursts_left.eq(num_bursts_left - 1)]
        m.d.comb += bursts.p.last_beat.eq(burst_beats - 1)

        # Beats go to their words of the descriptor, first beat lowest; bits of no field need no register
        m.d.comb += [
            queue.w_data.eq(beats.payload),
            queue.w_en.eq(arrived),
            taken.eq(queue.r_rdy & ((num_assembled != num_beats) | ~self.enable)),
            queue.r_en.eq(taken),
            descriptor.valid.eq((num_assembled == num_beats) & self.enable),
            self.is_idle.eq(
                (num_bursts_left == 0) & ~bursts.valid & (num_due == 0) & ~queue.r_rdy & (num_assembled == 0)
            ),
        ]
        with m.If(taken):
            m.d.sync += [
                raw.word_select(num_assembled, config.port_bits).eq(queue.r_data),
                num_assembled.eq(num_assembled + 1),
            ]
        with m.If(descriptor.valid & descriptor.ready):
            m.d.sync += [
                num_assembled.eq(0),
                descriptor.p.index.eq(descriptor.p.index + 1),
                descriptor.p.addr.eq(descriptor.p.addr + DESCRIPTOR_BYTES),
            ]
        is_dropping = ~self.enable & ((num_assembled != 0) | (num_bursts_left != 0))
        m.d.comb += self.is_active.eq(
            self.start | offers | requested | arrived | taken | (descriptor.valid & descriptor.ready) | is_dropping
        )
        with m.If(~self.enable):
            m.d.sync += [num_assembled.eq(0), num_bursts_left.eq(0)]
        with m.If(self.start):
            m.d.sync += [
                num_bursts_left.eq(self.count << bursts_log2),
                bursts.p.addr.eq(self.base),
                descriptor.p.addr.eq(self.base),
                descriptor.p.index.eq(0),
            ]
        return m
