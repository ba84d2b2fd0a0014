"""`Copier`: a small accelerator with the ports and registers of the NPU, to test simulators and bus models with."""

from amaranth.hdl import Array, C, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.axi import AxiLiteSignature, AxiSignature
from convoy.spec.config import NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS, ID, REGISTERS

__all__ = ["BURST_BEATS", "FLAW_LAST", "FLAW_UNSTABLE", "Copier"]

BURST_BEATS = 8
"""Beats of every burst of a `Copier`."""
FLAW_LAST = 1 << 16
FLAW_UNSTABLE = 1 << 17


class Copier(wiring.Component):
    """Copies PROGRAM_COUNT bursts of `BURST_BEATS` beats from PROGRAM_BASE to RECORD_BASE when the doorbell is rung.

    Up to four read bursts and four write bursts are in flight. Addresses go to the bus as they are: a base that is not
    a multiple of the burst breaks the rules of AXI, which is what the tests of protocol checkers want; so do two bits
    of PROGRAM_COUNT, `FLAW_LAST` (WLAST comes one beat early) and `FLAW_UNSTABLE` (AWADDR changes while it waits).

    Parameters
    ----------
    config : NpuConfig
        Only `port_bits` matters.

    Members
    -------
    m_axi, s_axil, irq :
        As those of the NPU.
    """

    def __init__(self, config: NpuConfig):
        self.config = config
        super().__init__(
            {
                "m_axi": Out(AxiSignature(data_bits=config.port_bits)),
                "s_axil": In(AxiLiteSignature(addr_bits=CSR_ADDR_BITS)),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        regs = self._csrs(m)
        step_bytes = BURST_BEATS * self.config.port_bytes
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=self.config.port_bits, depth=4 * BURST_BEATS)
        start = Signal()
        is_busy = regs["STATUS"][0]
        m.d.comb += start.eq(regs["doorbell"] & ~is_busy)
        self._reader(m, start, regs, fifo, step_bytes)
        is_done = self._writer(m, start, regs, fifo, step_bytes)
        with m.If(start):
            m.d.sync += [is_busy.eq(1), regs["CYCLES"].eq(0)]
        with m.Elif(is_busy):
            m.d.sync += regs["CYCLES"].eq(regs["CYCLES"] + 1)
            with m.If(is_done):
                m.d.sync += [is_busy.eq(0), regs["IRQ_STATUS"].eq(1)]
        m.d.comb += self.irq.eq(regs["IRQ_STATUS"][0] & regs["IRQ_ENABLE"][0])
        return m

    def _csrs(self, m):
        bus = self.s_axil
        regs = {name: Signal(32, name=name.lower()) for name in REGISTERS}
        regs["doorbell"] = doorbell = Signal()
        words = Array([C(0, 32)] * 64)
        for register in REGISTERS.values():
            words[register.addr // 4] = C(ID, 32) if register.name == "ID" else regs[register.name]
        write = Signal()
        m.d.comb += [
            write.eq(bus.awvalid & bus.wvalid & ~bus.bvalid),
            bus.awready.eq(write),
            bus.wready.eq(write),
            bus.arready.eq(~bus.rvalid),
            doorbell.eq(write & (bus.awaddr == REGISTERS["CONTROL"].addr) & bus.wdata[0]),
        ]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(write):
            m.d.sync += bus.bvalid.eq(1)
            for register in REGISTERS.values():
                with m.If(bus.awaddr == register.addr):
                    if register.access == "rw":
                        m.d.sync += regs[register.name].eq(bus.wdata)
                    elif register.access == "w1c":
                        m.d.sync += regs[register.name].eq(regs[register.name] & ~bus.wdata)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(words[bus.araddr[2:8]])]
        return regs

    def _reader(self, m, start, regs, fifo, step_bytes):
        bus = self.m_axi
        num_left = Signal(16)
        credit = Signal(range(5), init=4)
        is_sent = bus.arvalid & bus.arready
        popped = Signal(range(BURST_BEATS))
        is_freed = fifo.r_en & fifo.r_rdy & (popped == BURST_BEATS - 1)
        m.d.comb += [
            bus.arlen.eq(BURST_BEATS - 1),
            bus.arsize.eq(self.config.port_bytes.bit_length() - 1),
            bus.arburst.eq(1),
            bus.arid.eq(1),
            bus.arvalid.eq((num_left != 0) & (credit != 0)),
            bus.rready.eq(1),
            fifo.w_en.eq(bus.rvalid),
            fifo.w_data.eq(bus.rdata),
        ]
        with m.If(start):
            m.d.sync += [num_left.eq(regs["PROGRAM_COUNT"]), bus.araddr.eq(regs["PROGRAM_BASE"])]
        with m.Elif(is_sent):
            m.d.sync += [num_left.eq(num_left - 1), bus.araddr.eq(bus.araddr + step_bytes)]
        with m.If(fifo.r_en & fifo.r_rdy):
            m.d.sync += popped.eq(popped + 1)
        m.d.sync += credit.eq(credit - is_sent + is_freed)
        with m.If(bus.rvalid & (bus.rresp != 0)):
            m.d.sync += [regs["ERROR"].eq(2), regs["STATUS"][1].eq(1)]

    def _writer(self, m, start, regs, fifo, step_bytes):
        bus = self.m_axi
        num_left = Signal(16)
        num_due = Signal(16)
        num_open = Signal(3)
        beat = Signal(range(BURST_BEATS))
        flaws = regs["PROGRAM_COUNT"][16:18]
        wobble = Signal(32)
        addr = Signal(32)
        is_sent = bus.awvalid & bus.awready
        is_answered = bus.bvalid & bus.bready
        is_finished = bus.wvalid & bus.wready & (beat == BURST_BEATS - 1)
        m.d.comb += [
            bus.awaddr.eq(addr ^ wobble),
            bus.awlen.eq(BURST_BEATS - 1),
            bus.awsize.eq(self.config.port_bytes.bit_length() - 1),
            bus.awburst.eq(1),
            bus.awid.eq(2),
            bus.awvalid.eq((num_left != 0) & (num_open < 4)),
            bus.bready.eq(1),
            bus.wdata.eq(fifo.r_data),
            bus.wstrb.eq(~C(0, self.config.port_bytes)),
            bus.wvalid.eq(fifo.r_rdy & (num_open != 0)),
            bus.wlast.eq(beat == Mux(flaws[0], BURST_BEATS - 2, BURST_BEATS - 1)),
            fifo.r_en.eq(bus.wready & (num_open != 0)),
        ]
        with m.If(bus.awvalid & ~bus.awready & flaws[1]):
            m.d.sync += wobble.eq(wobble ^ 0x1000)
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += beat.eq(beat + 1)
        m.d.sync += num_open.eq(num_open + is_sent - is_finished)
        with m.If(start):
            m.d.sync += [
                num_left.eq(regs["PROGRAM_COUNT"]),
                num_due.eq(regs["PROGRAM_COUNT"]),
                addr.eq(regs["RECORD_BASE"]),
            ]
        with m.Else():
            m.d.sync += num_due.eq(num_due - is_answered)
            with m.If(is_sent):
                m.d.sync += [num_left.eq(num_left - 1), addr.eq(addr + step_bytes)]
        with m.If(is_answered & (bus.bresp != 0)):
            m.d.sync += [regs["ERROR"].eq(3), regs["STATUS"][1].eq(1)]
        is_done = Signal()
        m.d.comb += is_done.eq(num_due == 0)
        return is_done
