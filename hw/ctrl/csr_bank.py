"""The AXI4-Lite register bank, generated from `convoy.spec.csr.REGISTERS`."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.axi import AxiLiteSignature, Resp
from convoy.hw.lib.choose import any_of, gated
from convoy.spec.csr import CSR_ADDR_BITS, REGISTERS, WindowControl

__all__ = ["CsrBank"]


class CsrBank(wiring.Component):
    """Registers of `REGISTERS` behind AXI4-Lite; unmapped addresses answer SLVERR, all others OKAY.

    The two low address bits are ignored, byte strobes are honoured, AW and W may come in any order. Writes to `ro`
    registers are ignored, reads of `wo` registers give 0. One write takes 3 cycles, one read 4; they do not disturb
    each other.

    Members, for each register by its name in lower case (all 32 bits wide)
    -----------------------------------------------------------------------
    `ro` : In
        The value a read returns.
    `rw` : Out
        The value written last, 0 after reset; while the register is locked or held, writes are ignored.
    `wo` : Out
        The value written, for one cycle; 0 at all other times.
    `w1c` : Out, and In with the suffix `_set`
        Bits set by the hardware (which wins) and cleared by writing ones.

    And `is_busy` : In(1), high while registers with `is_held` are held; `is_active` : Out(1), low when nothing inside
    would change: the unit may rest.
    """

    def __init__(self):
        members = {"bus": In(AxiLiteSignature(addr_bits=CSR_ADDR_BITS))}
        for name, register in REGISTERS.items():
            members[name.lower()] = In(32) if register.access == "ro" else Out(32)
            if register.access == "w1c":
                members[f"{name.lower()}_set"] = In(32)
        members["is_busy"] = In(1)
        members["is_active"] = Out(1)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        is_writing, is_reading = self._elaborate_write(m), self._elaborate_read(m)
        sets = (
            getattr(self, f"{name.lower()}_set") for name, register in REGISTERS.items() if register.access == "w1c"
        )
        m.d.comb += self.is_active.eq(is_writing | is_reading | Cat(sets).any())
        return m

    def _elaborate_write(self, m):
        bus = self.bus
        addr = Signal(CSR_ADDR_BITS - 2)
        value = Signal(32)
        strobe = Signal(4)
        has_addr = Signal()
        has_data = Signal()
        write = Signal()
        m.d.comb += [bus.awready.eq(~has_addr), bus.wready.eq(~has_data), write.eq(has_addr & has_data & ~bus.bvalid)]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [addr.eq(bus.awaddr[2:]), has_addr.eq(1)]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [value.eq(bus.wdata), strobe.eq(bus.wstrb), has_data.eq(1)]
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(write):
            m.d.sync += [has_addr.eq(0), has_data.eq(0), bus.bvalid.eq(1), bus.bresp.eq(Resp.SLVERR)]

        mask = Cat(bit.replicate(8) for bit in strobe)
        for name, register in REGISTERS.items():
            member = getattr(self, name.lower())
            select = Signal(name=f"write_{name.lower()}")
            m.d.comb += select.eq(write & (addr == register.addr >> 2))
            with m.If(select):
                m.d.sync += bus.bresp.eq(Resp.OKAY)
            if register.access == "rw":
                if register.locked_by:
                    select = select & ((getattr(self, register.locked_by.lower()) & WindowControl.LOCK.value) == 0)
                if register.is_held:
                    select = select & ~self.is_busy
                for byte, is_written in enumerate(strobe):
                    with m.If(select & is_written):
                        m.d.sync += member.word_select(byte, 8).eq(value.word_select(byte, 8))
            elif register.access == "wo":
                with m.If(select):
                    m.d.comb += member.eq(value & mask)
            elif register.access == "w1c":
                clear = Signal(32, name=f"clear_{name.lower()}")
                with m.If(select):
                    m.d.comb += clear.eq(value & mask)
                m.d.sync += member.eq((member & ~clear) | getattr(self, f"{name.lower()}_set"))
        return bus.awvalid | bus.wvalid | bus.bvalid | has_addr | has_data

    def _elaborate_read(self, m):
        bus = self.bus
        addr = Signal(CSR_ADDR_BITS - 2)
        has_addr, has_select, has_value = Signal(), Signal(), Signal()
        m.d.comb += bus.arready.eq(~(has_addr | has_select | has_value | bus.rvalid))
        m.d.sync += [has_addr.eq(bus.arvalid & bus.arready), has_select.eq(has_addr), has_value.eq(has_select)]
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += addr.eq(bus.araddr[2:])
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += bus.rvalid.eq(0)

        # Of all values only the one that is read is not cleared.
        selects = {name: Signal(name=f"read_{name.lower()}") for name in REGISTERS}
        m.d.sync += [selects[name].eq(has_addr & (addr == register.addr >> 2)) for name, register in REGISTERS.items()]
        values = [
            gated(m, getattr(self, name.lower()), selects[name], name=f"value_{name.lower()}")
            for name, register in REGISTERS.items()
            if register.access != "wo"
        ]
        is_known = Signal()
        m.d.sync += is_known.eq(Cat(selects.values()).any())
        with m.If(has_value):
            m.d.sync += [
                bus.rvalid.eq(1),
                bus.rdata.eq(any_of(values)),
                bus.rresp.eq(Mux(is_known, Resp.OKAY, Resp.SLVERR)),
            ]
        return bus.arvalid | bus.rvalid | has_addr | has_select | has_value
