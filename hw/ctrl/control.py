"""Everything between the registers and the engines: wiring of the control blocks."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.axi import AxiLiteSignature
from convoy.hw.bus.guard import ALIGN_LOG2, GuardSignature
from convoy.hw.bus.port import ReadPort, WritePort
from convoy.hw.lib.idle import rested
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.reset import add_resettable
from convoy.hw.nn.activity import Activity
from convoy.hw.nn.tp_wait import TpDue
from convoy.spec.config import NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS, ID, NUM_WINDOWS, Error, WindowControl, config_values
from convoy.spec.csr import Control as ControlBits
from convoy.spec.cycles import NUM_RESETS
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, NN, TP

from .check import DescriptorCheck
from .counters import Counters
from .csr_bank import CsrBank
from .descriptor_fetch import Fetch
from .dispatch import Dispatch
from .fault import Fault
from .recorder import Recorder
from .supervisor import Supervisor
from .watchdog import Timeout, Watchdog

__all__ = ["Control"]


class Control(wiring.Component):
    """Registers, descriptor fetch, dispatch, completion records, counters, and what stops a program.

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
    tp_released : Out
        With a job for TP: it may begin.
    nn_due : Out
        With a job for NN: how many TP jobs it waits for.
    nn_done, tp_done : In
        High for one cycle when the engine has completed its oldest job and all its writes have been acknowledged.
    bus_faults : In, array of 2 streams of `Fault`
        Error responses of the read and the write channel.
    guards : In, array of 2 `GuardSignature`
        Of the read and the write channel.
    resets : Out(NUM_RESETS)
        Of TP, of the NN engine, of the groups of its cores: one reset in registers in a row, because it could not reach
        all in a cycle. Also out of the reset of the design.
    read_beat, weight_beat, write_bytes, activity : In
        As in `Counters`.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "s_axil": In(AxiLiteSignature(addr_bits=CSR_ADDR_BITS)),
                "irq": Out(1),
                "read": Out(ReadPort(config)),
                "write": Out(WritePort(config)),
                "nn": Out(stream.Signature(NN.layout)),
                "tp": Out(stream.Signature(TP.layout)),
                "tp_released": Out(1),
                "nn_due": Out(TpDue),
                "nn_done": In(1),
                "tp_done": In(1),
                "bus_faults": In(stream.Signature(Fault, always_ready=True)).array(2),
                "guards": In(GuardSignature()).array(2),
                "resets": Out(NUM_RESETS, init=(1 << NUM_RESETS) - 1),
                "read_beat": In(1),
                "weight_beat": In(1),
                "write_bytes": In(range(config.port_bytes + 1)),
                "activity": In(Activity(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        csr_bank = CsrBank()
        m.submodules.csr_bank = rested(csr_bank, csr_bank.is_active, platform, "csr")
        m.submodules.supervisor = supervisor = Supervisor(reset_stages=NUM_RESETS)
        m.submodules.counters = counters = Counters(config)
        m.submodules.watchdog = watchdog = Watchdog()
        m.submodules.timeout = timeout = Timeout()
        fetch, dispatch, recorder = Fetch(config), Dispatch(), Recorder(config)
        check = DescriptorCheck(config) if config.has_descriptor_check else None
        units = {"fetch": rested(fetch, fetch.is_active, platform, "fetch"), "dispatch": dispatch, "recorder": recorder}
        if check is not None:
            units["check"] = rested(check, check.is_active, platform, "check")
        for name, unit in units.items():
            add_resettable(m, name, unit, supervisor.engine_reset, platform)

        def connect(inner, outer):
            wiring.connect(m, inner, wiring.flipped(outer))

        connect(csr_bank.bus, self.s_axil)
        connect(fetch.read, self.read)
        connect(recorder.write, self.write)
        connect(dispatch.nn, self.nn)
        connect(dispatch.tp, self.tp)
        if check is None:
            wiring.connect(m, fetch.descriptors, dispatch.descriptors)
        else:
            wiring.connect(m, fetch.descriptors, check.i)
            wiring.connect(m, check.o, dispatch.descriptors)
        for source, sink in zip(dispatch.completed, recorder.completed, strict=True):
            wiring.connect(m, source, sink)

        m.d.sync += self.resets.eq(truncate(Cat(supervisor.engine_reset, self.resets), self.resets.shape()))
        self._elaborate_registers(m, csr_bank, supervisor, counters)
        self._elaborate_windows(m, csr_bank)
        self._elaborate_faults(m, supervisor, watchdog, timeout, fetch, csr_bank.program_count, check)
        m.d.comb += [
            fetch.start.eq(supervisor.start),
            fetch.enable.eq(supervisor.is_fetching),
            fetch.base.eq(csr_bank.program_base & ~(DESCRIPTOR_BYTES - 1)),
            fetch.count.eq(truncate(csr_bank.program_count, fetch.count.shape())),
            self.tp_released.eq(dispatch.tp_released),
            self.nn_due.eq(dispatch.nn_due),
            dispatch.nn_done.eq(self.nn_done),
            dispatch.tp_done.eq(self.tp_done),
            recorder.totals.eq(counters.totals),
            recorder.base.eq(csr_bank.record_base & ~(COMPLETION.num_bytes - 1)),
            supervisor.is_drained.eq(fetch.is_idle & dispatch.is_idle & recorder.is_idle),
            watchdog.limit.eq(csr_bank.watchdog),
            watchdog.enable.eq(supervisor.is_busy),
            timeout.limit.eq(csr_bank.timeout),
            timeout.enable.eq(supervisor.is_busy),
            counters.clear.eq(supervisor.start),
            counters.enable.eq(supervisor.is_busy),
            counters.read_beat.eq(self.read_beat),
            counters.weight_beat.eq(self.weight_beat),
            counters.write_bytes.eq(self.write_bytes),
            counters.activity.eq(self.activity),
            counters.is_tp_busy.eq(dispatch.is_tp_busy),
        ]
        return m

    def _elaborate_windows(self, m, csr_bank):
        """Give the memory windows to both channels."""
        controls = [getattr(csr_bank, f"window{number}_control") for number in range(NUM_WINDOWS)]
        enables = WindowControl.READ.value, WindowControl.WRITE.value
        is_open = Signal(init=1)
        m.d.sync += is_open.eq(Cat(control & sum(enables) for control in controls) == 0)
        for guard, enable in zip(self.guards, enables, strict=True):
            m.d.comb += guard.is_open.eq(is_open)
            for number, (window, control) in enumerate(zip(guard.windows, controls, strict=True)):
                m.d.comb += [
                    window.base.eq(getattr(csr_bank, f"window{number}_base")[ALIGN_LOG2:]),
                    window.limit.eq(getattr(csr_bank, f"window{number}_limit")[ALIGN_LOG2:]),
                    window.enable.eq((control & enable) != 0),
                ]

    def _elaborate_faults(self, m, supervisor, watchdog, timeout, fetch, program_count, check):
        """Report the first fault; stop the channels."""
        has_wrong_count = Signal()
        m.d.sync += has_wrong_count.eq(
            supervisor.start & ((program_count == 0) | (program_count[len(fetch.count) :] != 0))
        )
        oldest_addr = Mux(
            self.guards[0].is_quiet,
            Mux(self.guards[1].is_quiet, 0, self.guards[1].oldest_addr),
            self.guards[0].oldest_addr,
        )
        faults = [(fault.valid, fault.p.code, fault.p.addr) for fault in self.bus_faults]
        faults += [
            (guard.violation, code, guard.violation_addr)
            for guard, code in zip(self.guards, (Error.ACCESS_READ, Error.ACCESS_WRITE), strict=True)
        ]
        if check is not None:
            faults.append((check.fault.valid, check.fault.p.code, check.fault.p.addr))
        faults.append((has_wrong_count, Error.MALFORMED, fetch.base))
        faults.append((watchdog.expired, Error.WATCHDOG, oldest_addr))
        faults.append((timeout.expired, Error.TIMEOUT, 0))
        for valid, code, addr in reversed(faults):
            with m.If(valid):
                m.d.comb += [
                    supervisor.fault.valid.eq(1),
                    supervisor.fault.p.code.eq(code),
                    supervisor.fault.p.addr.eq(addr),
                ]
        m.d.comb += [
            *(guard.stop.eq(supervisor.is_stopping) for guard in self.guards),
            supervisor.is_quiet.eq(self.guards[0].is_quiet & self.guards[1].is_quiet),
            supervisor.is_hung.eq(watchdog.expired | timeout.is_overdue),
            watchdog.moved.eq(
                Cat(
                    self.guards[0].moved,
                    self.guards[1].moved,
                    self.nn_done,
                    self.tp_done,
                    self.nn.valid & self.nn.ready,
                    self.tp.valid & self.tp.ready,
                ).any()
            ),
        ]

    def _elaborate_registers(self, m, csr_bank, supervisor, counters):
        m.d.comb += [
            *(getattr(csr_bank, name.lower()).eq(value) for name, value in config_values(self._config).items()),
            csr_bank.id.eq(ID),
            csr_bank.is_busy.eq(supervisor.is_busy | supervisor.is_stopping),
            csr_bank.status.eq(Cat(supervisor.is_busy, supervisor.error.code != Error.NONE, supervisor.is_stopping)),
            csr_bank.error.eq(supervisor.error.code),
            csr_bank.error_addr.eq(supervisor.error.addr),
            csr_bank.cycles.eq(counters.totals.cycle),
            csr_bank.read_bytes.eq(counters.totals.read_bytes),
            csr_bank.write_bytes.eq(counters.totals.write_bytes),
            csr_bank.irq_status_set.eq(supervisor.ended),
        ]
        m.d.sync += [
            supervisor.doorbell.eq((csr_bank.control & ControlBits.DOORBELL.value) != 0),
            supervisor.clear_error.eq((csr_bank.control & ControlBits.CLEAR_ERROR.value) != 0),
            supervisor.soft_reset.eq((csr_bank.control & ControlBits.SOFT_RESET.value) != 0),
            self.irq.eq(csr_bank.irq_status[0] & csr_bank.irq_enable[0]),
        ]
