"""Cycles and bytes since the doorbell."""

from amaranth.hdl import Module, Signal
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
    write_strobes : In, array of 2
        Byte strobes of a beat handed over by either engine, 0 in cycles without one; counted 2 cycles later.
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
            "write_strobes": In(config.port_bytes).array(2),
            "totals": Out(COMPLETION.layout),
        })

    def elaborate(self, platform):
        m = Module()
        port_bytes = self._config.port_bytes
        write_bytes = Signal(range(2 * port_bytes + 1))
        counts = []
        for index in range(2):
            count = Signal(range(port_bytes + 1), name=f"count_{index}")
            m.d.sync += count.eq(_count_ones(self.write_strobes[index]))
            counts.append(count)
        m.d.sync += write_bytes.eq(counts[0] + counts[1])

        totals = self.totals
        with m.If(self.enable):
            m.d.sync += [totals.cycle.eq(totals.cycle + 1), totals.write_bytes.eq(totals.write_bytes + write_bytes)]
            with m.If(self.read_beat):
                m.d.sync += totals.read_bytes.eq(totals.read_bytes + port_bytes)
            with m.If(self.weight_beat):
                m.d.sync += totals.weight_bytes.eq(totals.weight_bytes + port_bytes)
        with m.If(self.clear):
            m.d.sync += totals.eq(0)
        return m


def _count_ones(value):
    """Population count as a balanced tree."""
    terms = list(value)
    while len(terms) > 1:
        terms = [sum(terms[i + 1 : i + 2], terms[i]) for i in range(0, len(terms), 2)]
    return terms[0]
