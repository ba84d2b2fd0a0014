"""Hands descriptors to the engines, in order, when what they wait for is done."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.nn.tp_wait import TpDue
from convoy.spec.isa import HEADER, NN, TP, Opcode

from .descriptor_fetch import Fetched
from .ledger import Ledger

__all__ = ["Dispatch"]


class Dispatch(wiring.Component):
    """Gives each descriptor to its engine and says which are complete.

    A TP job with `wait_tp` is offered, and all descriptors after it are held, but it is not released until the TP
    engine has completed everything it was given, but for the last `tp_ahead` jobs; one with `wait_nn` likewise, without
    exception, for the NN engine. The waits of an NN descriptor are left to the engine. At most eight descriptors per
    engine are under way. Latency: a job is offered, from a register, in the cycle after its descriptor is.

    Members
    -------
    descriptors : In, stream of `Fetched`
        One with an opcode that does not exist is never taken.
    nn, tp : Out, streams of `NN.layout` and `TP.layout`
        Jobs. A job offered is not withdrawn, unless the program is stopped, a cycle after its descriptor.
    tp_released : Out
        With a job for TP: it may begin; the engine does not take it before.
    nn_due : Out
        With a job for NN: how many TP jobs, the oldest ones that are not complete, it waits for.
    nn_done, tp_done : In
        High for one cycle when the engine has completed its oldest job.
    is_tp_busy : Out
        The TP engine has not completed everything it was given.
    completed : Out, array of 2 streams of unsigned(16)
        Numbers of completed descriptors of NN and TP.
    is_idle : Out
        Every descriptor taken has left through `completed`.
    """

    descriptors: In(stream.Signature(Fetched))
    nn: Out(stream.Signature(NN.layout))
    tp: Out(stream.Signature(TP.layout))
    tp_released: Out(1)
    nn_due: Out(TpDue)
    nn_done: In(1)
    tp_done: In(1)
    is_tp_busy: Out(1)
    completed: Out(stream.Signature(16)).array(2)
    is_idle: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.nn_ledger = nn_ledger = Ledger()
        m.submodules.tp_ledger = tp_ledger = Ledger()
        descriptors = self.descriptors
        header = data.View(HEADER.layout, descriptors.p.raw[: HEADER.num_bits])

        for ledger, job, done, completed in (
            (nn_ledger, self.nn, self.nn_done, self.completed[0]),
            (tp_ledger, self.tp, self.tp_done, self.completed[1]),
        ):
            m.d.comb += [
                ledger.push.eq(job.valid & job.ready),
                ledger.index.eq(descriptors.p.index),
                ledger.done.eq(done),
            ]
            wiring.connect(m, ledger.completed, wiring.flipped(completed))

        m.d.comb += [
            self.nn.payload.eq(descriptors.p.raw),
            self.tp.payload.eq(descriptors.p.raw),
            self.is_tp_busy.eq(~tp_ledger.is_done),
            self.is_idle.eq(nn_ledger.is_empty & tp_ledger.is_empty),
        ]
        is_released = ~header.wait_tp | (tp_ledger.num_running <= header.tp_ahead)
        m.d.comb += self.nn_due.eq(Mux(is_released, 0, tp_ledger.num_running - header.tp_ahead))
        # A descriptor leaves in the cycle after its job: what engines answer ends here, in a register
        is_taken, has_left = Signal(), Signal()
        m.d.comb += [
            is_taken.eq((self.nn.valid & self.nn.ready) | (self.tp.valid & self.tp.ready)),
            descriptors.ready.eq(has_left),
        ]
        m.d.sync += [has_left.eq(is_taken), self.nn.valid.eq(0), self.tp.valid.eq(0)]
        m.d.sync += self.tp_released.eq(is_released & (~header.wait_nn | nn_ledger.is_done))
        with m.If(descriptors.valid & ~is_taken & ~has_left), m.Switch(header.opcode):
            with m.Case(Opcode.NN):
                m.d.sync += self.nn.valid.eq(nn_ledger.has_room)
            with m.Case(Opcode.TP):
                m.d.sync += self.tp.valid.eq(tp_ledger.has_room)
        return m
