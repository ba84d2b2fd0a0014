"""Starts, ends and stops programs: busy, error, interrupt, and the way back to idle."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import enum, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.spec.csr import DESCRIPTOR_ERRORS, Error

from .fault import Fault

__all__ = ["Supervisor"]


class _State(enum.Enum):
    IDLE = 0
    RUN = 1
    STOP = 2
    RESET = 3


class Supervisor(wiring.Component):
    """Runs one program at a time; the first fault of a program is kept.

    A doorbell starts a program when idle, unless an error has not been cleared. A program is stopped when `is_drained`,
    also after the fault of a descriptor, which only ends the fetching of more; by every other fault; and by a soft
    reset. Then nothing new is put on the bus, and when that `is_quiet` the engines are reset, the program has ended,
    and the NPU is idle. No program finds a trace of the one before. If `is_hung` before it is quiet, the program is
    reported as ended and the stop goes on.

    Parameters
    ----------
    reset_stages
        The most registers between `engine_reset` and a unit. All units are in reset together for a cycle, and none of
        them is any more when the program has ended.

    Members
    -------
    doorbell, clear_error, soft_reset : In
        Strobes from the host.
    fault : In, stream of `Fault`
        Faults while no program is running are dropped.
    is_drained : In
        Nothing is left to fetch, execute or acknowledge.
    is_quiet : In
        Nothing is under way on the bus.
    is_hung : In
        Nothing moves any more, or the stop takes too long.
    start : Out
        High for one cycle when a program starts.
    is_busy : Out
        A program is running or being stopped.
    is_fetching : Out
        It is running and has met no fault.
    is_stopping : Out
        Nothing new is to be put on the bus.
    engine_reset : Out
        Everything that works for a program is to be reset: for `reset_stages` + 1 cycles, and in the first one of all.
        From a register.
    ended : Out
        High for one cycle when a program ends; `is_busy` falls with the next clock edge.
    error : Out(Fault)
        `Error.NONE` or the fault.
    """

    def __init__(self, reset_stages: int):
        self._reset_stages = reset_stages
        super().__init__(
            {
                "doorbell": In(1),
                "clear_error": In(1),
                "soft_reset": In(1),
                "fault": In(stream.Signature(Fault, always_ready=True)),
                "is_drained": In(1),
                "is_quiet": In(1),
                "is_hung": In(1),
                "start": Out(1),
                "is_busy": Out(1),
                "is_fetching": Out(1),
                "is_stopping": Out(1),
                "engine_reset": Out(1, init=1),
                "ended": Out(1),
                "error": Out(Fault),
            }
        )

    def elaborate(self, platform):
        m = Module()
        last_held, last_cycle = self._reset_stages, 2 * self._reset_stages
        cycle = Signal(range(last_cycle + 1))  # of the reset
        has_error = self.error.code != Error.NONE
        is_of_descriptor = Cat(self.fault.p.code == code for code in DESCRIPTOR_ERRORS).any()
        with m.FSM():
            with m.State(_State.IDLE):
                m.d.comb += self.start.eq(self.doorbell & ~has_error & ~self.soft_reset)
                m.d.sync += self.engine_reset.eq(0)
                with m.If(self.soft_reset):
                    m.next = _State.STOP
                with m.Elif(self.start):
                    m.d.sync += self.is_busy.eq(1)
                    m.next = _State.RUN
            with m.State(_State.RUN):
                m.d.comb += self.is_fetching.eq(~has_error)
                with m.If(self.soft_reset | self.is_drained | (self.fault.valid & ~is_of_descriptor)):
                    m.next = _State.STOP
            with m.State(_State.STOP):
                m.d.comb += [self.is_stopping.eq(1), self.ended.eq(self.is_busy & self.is_hung & ~self.is_quiet)]
                with m.If(self.is_quiet):
                    m.d.sync += self.engine_reset.eq(1)
                    m.next = _State.RESET
            with m.State(_State.RESET):
                m.d.comb += self.is_stopping.eq(1)
                m.d.sync += cycle.eq(cycle + 1)
                with m.If(cycle == last_held):
                    m.d.sync += self.engine_reset.eq(0)
                with m.If(cycle == last_cycle):
                    m.d.comb += self.ended.eq(self.is_busy)
                    m.d.sync += cycle.eq(0)
                    m.next = _State.IDLE
        with m.If(self.ended):
            m.d.sync += self.is_busy.eq(0)
        with m.If(self.clear_error & ~self.is_busy):
            m.d.sync += self.error.eq(0)
        with m.If(self.fault.valid & self.is_fetching):
            m.d.sync += self.error.eq(self.fault.payload)
        return m
