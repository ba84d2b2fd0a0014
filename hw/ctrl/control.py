"""Everything between the registers and the engines: wiring of the control blocks."""

from amaranth.hdl import Cat, Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.axi import AxiLiteSignature
from convoy.hw.bus.port import ReadPort, WritePort
from convoy.spec.config import NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS, ID, Error
from convoy.spec.isa import DESCRIPTOR_BYTES, NN, TP

from .counters import Counters
from .csr_bank import CsrBank
from .dispatch import Dispatch
from .fault import Fault
from .fetch import Fetch
from .recorder import Recorder
from .supervisor import Supervisor

__all__ = ["Control"]


class Control(wiring.Component):
    """Registers, descriptor fetch, dispatch, completion records and counters.

    Members
    -------
    s_axil : In(AxiLiteSignature)
        The register bank.
    irq : Out
        High while an enabled interrupt is pending.
    read, write : Out(ReadPort), Out(WritePort)
        Descriptors and completion records.
    nn, tp : Out, streams of `NN.layout` and `TP.layout`
        Jobs for the engines.
    nn_done, tp_done : In
        High for one cycle when the engine has completed its oldest job and all its writes have been acknowledged.
    bus_faults : In, array of 2 streams of `Fault`
        Error responses of the read and the write channel.
    read_beat, weight_beat, write_bytes : In
        As in `Counters`.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__({
            "s_axil": In(AxiLiteSignature(addr_bits=CSR_ADDR_BITS)),
            "irq": Out(1),
            "read": Out(ReadPort(config)),
            "write": Out(WritePort(config)),
            "nn": Out(stream.Signature(NN.layout)),
            "tp": Out(stream.Signature(TP.layout)),
            "nn_done": In(1),
            "tp_done": In(1),
            "bus_faults": In(stream.Signature(Fault, always_ready=True)).array(2),
            "read_beat": In(1),
            "weight_beat": In(1),
            "write_bytes": In(range(config.port_bytes + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.csr_bank = csr_bank = CsrBank()
        m.submodules.supervisor = supervisor = Supervisor()
        m.submodules.fetch = fetch = Fetch(config)
        m.submodules.dispatch = dispatch = Dispatch()
        m.submodules.recorder = recorder = Recorder(config)
        m.submodules.counters = counters = Counters(config)

        def connect(inner, outer):
            wiring.connect(m, inner, wiring.flipped(outer))

        connect(csr_bank.bus, self.s_axil)
        connect(fetch.read, self.read)
        connect(recorder.write, self.write)
        connect(dispatch.nn, self.nn)
        connect(dispatch.tp, self.tp)
        wiring.connect(m, fetch.descriptors, dispatch.descriptors)
        for source, sink in zip(dispatch.completed, recorder.completed, strict=True):
            wiring.connect(m, source, sink)

        self._elaborate_registers(m, csr_bank, supervisor, counters)
        m.d.comb += [
            fetch.start.eq(supervisor.start),
            fetch.enable.eq(supervisor.is_fetching),
            fetch.base.eq(csr_bank.program_base & ~(DESCRIPTOR_BYTES - 1)),
            fetch.count.eq(csr_bank.program_count),
            dispatch.nn_done.eq(self.nn_done),
            dispatch.tp_done.eq(self.tp_done),
            dispatch.totals.eq(counters.totals),
            recorder.base.eq(csr_bank.record_base & ~31),
            supervisor.is_drained.eq(fetch.is_idle & dispatch.is_idle & recorder.is_idle),
            counters.clear.eq(supervisor.start),
            counters.enable.eq(supervisor.is_busy),
            counters.read_beat.eq(self.read_beat),
            counters.weight_beat.eq(self.weight_beat),
            counters.write_bytes.eq(self.write_bytes),
        ]
        faults = (self.bus_faults[0], self.bus_faults[1], dispatch.fault)
        for fault in reversed(faults):
            with m.If(fault.valid):
                m.d.comb += [supervisor.fault.valid.eq(1), supervisor.fault.payload.eq(fault.payload)]
        return m

    def _elaborate_registers(self, m, csr_bank, supervisor, counters):
        config = self._config
        config0 = config.num_cores | config.num_lanes << 8 | config.port_bytes << 16 | config.post_lanes << 24
        m.d.comb += [
            csr_bank.id.eq(ID),
            csr_bank.config0.eq(config0),
            csr_bank.status.eq(Cat(supervisor.is_busy, supervisor.error.code != Error.NONE)),
            csr_bank.error.eq(supervisor.error.code),
            csr_bank.error_addr.eq(supervisor.error.addr),
            csr_bank.cycles.eq(counters.totals.cycle),
            csr_bank.read_bytes.eq(counters.totals.read_bytes),
            csr_bank.write_bytes.eq(counters.totals.write_bytes),
            csr_bank.irq_status_set.eq(supervisor.ended),
            supervisor.doorbell.eq(csr_bank.control[0]),
            supervisor.clear_error.eq(csr_bank.control[1]),
        ]
        m.d.sync += self.irq.eq(csr_bank.irq_status[0] & csr_bank.irq_enable[0])
