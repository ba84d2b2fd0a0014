"""Cycles and bytes since the doorbell."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.config import NpuConfig
from convoy.spec.isa import COMPLETION

__all__ = ["Counters"]


class Counters(wiring.Component):
    """Counts cycles and bytes; all totals are set to 0 by `clear` and wrap at 2**32.

    Members
    -------
    clear : In
        High for one cycle when a program starts.
    enable : In
        While it is low, all totals stand still.
    read_beat, weight_beat : In
        High for each beat that arrives at the memory port, and for each of those that is part of a weight stream.
    write_bytes : In
        Bytes written in this cycle, 0..`port_bytes`.
    totals : Out(COMPLETION.layout)
        The four totals.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__({
            "clear": In(1),
            "enable": In(1),
            "read_beat": In(1),
            "weight_beat": In(1),
            "write_bytes": In(range(config.port_bytes + 1)),
            "totals": Out(COMPLETION.layout),
        })

    def elaborate(self, platform):
        m = Module()
        port_bytes = self._config.port_bytes
        totals = self.totals
        with m.If(self.enable):
            m.d.sync += [totals.cycle.eq(totals.cycle + 1), totals.write_bytes.eq(totals.write_bytes + self.write_bytes)]
            with m.If(self.read_beat):
                m.d.sync += totals.read_bytes.eq(totals.read_bytes + port_bytes)
            with m.If(self.weight_beat):
                m.d.sync += totals.weight_bytes.eq(totals.weight_bytes + port_bytes)
        with m.If(self.clear):
            m.d.sync += totals.eq(0)
        return m
