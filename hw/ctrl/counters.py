"""Cycles, bytes and what the cores' cycles went to, since the doorbell."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.nn.activity import STATE_CAUSES, Activity, CoreState
from convoy.spec.config import NpuConfig
from convoy.spec.isa import CAUSE_FIELDS, COMPLETION, Cause

__all__ = ["Counters"]


class Counters(wiring.Component):
    """Counts cycles and bytes; all totals are set to 0 by `clear` and wrap at 2**32.

    In each cycle that is counted, `num_cores` is added to the causes together: those of two cycles before.

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
    activity : In(Activity)
    is_tp_busy : In
        The TP engine has work.
    totals : Out(COMPLETION.layout)
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "clear": In(1),
                "enable": In(1),
                "read_beat": In(1),
                "weight_beat": In(1),
                "write_bytes": In(range(config.port_bytes + 1)),
                "activity": In(Activity(config)),
                "is_tp_busy": In(1),
                "totals": Out(COMPLETION.layout),
            }
        )

    def elaborate(self, platform):
        m = Module()
        port_bytes = self._config.port_bytes
        totals = self.totals
        counts = self._count_causes(m)
        with m.If(self.enable):
            m.d.sync += [
                totals.cycle.eq(totals.cycle + 1),
                totals.write_bytes.eq(totals.write_bytes + self.write_bytes),
            ]
            m.d.sync += [totals[name].eq(totals[name] + counts[cause]) for cause, name in CAUSE_FIELDS.items()]
            with m.If(self.read_beat):
                m.d.sync += totals.read_bytes.eq(totals.read_bytes + port_bytes)
            with m.If(self.weight_beat):
                m.d.sync += totals.weight_bytes.eq(totals.weight_bytes + port_bytes)
        with m.If(self.clear):
            m.d.sync += totals.eq(0)
        return m

    def _count_causes(self, m):
        """Cores by cause."""
        num_cores, activity = self._config.num_cores, self.activity
        job = Mux((activity.job == Cause.DISPATCH) & self.is_tp_busy, Cause.TP, activity.job)
        chosen = {
            CoreState.JOB: job,
            CoreState.BUFFER: activity.buffer,
            CoreState.WINDOW: activity.window,
            CoreState.BEATS: activity.beats,
        }
        counts = {}
        for cause in Cause:
            counts[cause] = Signal(
                range(num_cores + 1), name=f"{cause.name.lower()}_cores", init=num_cores * (cause == Cause.DISPATCH)
            )
            parts = [
                Mux(chosen[state] == cause, activity.counts[state], 0) if state in chosen else activity.counts[state]
                for state, causes in STATE_CAUSES.items()
                if cause in causes
            ]
            m.d.sync += counts[cause].eq(sum(parts))
        return counts
