"""Starts and ends programs: busy, error and interrupt."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.csr import Error

from .fault import Fault

__all__ = ["Supervisor"]


class Supervisor(wiring.Component):
    """Runs one program at a time.

    A doorbell starts a program unless one is running or an error has not been cleared. A program ends when `is_drained`, or
    at once with a bus error; the first fault of a program is kept.

    Members
    -------
    doorbell, clear_error : In
        Strobes from the host.
    fault : In, stream of `Fault`
        Faults while no program is running are dropped.
    is_drained : In
        Nothing is left to fetch, execute or acknowledge.
    start : Out
        High for one cycle when a program starts.
    is_busy : Out
        A program is running.
    is_fetching : Out
        And it has met no fault.
    ended : Out
        High for one cycle when it ends; `is_busy` falls with the next clock edge.
    error : Out(Fault)
        `Error.NONE` or the fault.
    """

    doorbell: In(1)
    clear_error: In(1)
    fault: In(stream.Signature(Fault, always_ready=True))
    is_drained: In(1)
    start: Out(1)
    is_busy: Out(1)
    is_fetching: Out(1)
    ended: Out(1)
    error: Out(Fault)

    def elaborate(self, platform):
        m = Module()
        has_error = self.error.code != Error.NONE
        is_bus_error = (self.error.code == Error.BUS_READ) | (self.error.code == Error.BUS_WRITE)
        m.d.comb += [
            self.start.eq(self.doorbell & ~self.is_busy & ~has_error),
            self.is_fetching.eq(self.is_busy & ~has_error),
            self.ended.eq(self.is_busy & (self.is_drained | is_bus_error)),
        ]
        with m.If(self.start):
            m.d.sync += self.is_busy.eq(1)
        with m.If(self.ended):
            m.d.sync += self.is_busy.eq(0)
        with m.If(self.clear_error & ~self.is_busy):
            m.d.sync += self.error.eq(0)
        with m.If(self.fault.valid & self.is_fetching):
            m.d.sync += self.error.eq(self.fault.payload)
        return m
