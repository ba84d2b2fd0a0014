"""The accelerator as compiled simulators like it: units at rest have no clock."""

from amaranth.hdl import Cat, ClockDomain, ClockSignal, Fragment, Module, Mux, ResetSignal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.lib.idle import ClockGates, rest_domains
from convoy.spec.config import NpuConfig

from .npu import Npu

__all__ = ["GatedNpu"]


class GatedNpu(wiring.Component):
    """An `Npu` whose units get clocks of their own from outside, which stand still when the unit rests; the same
    otherwise, cycle for cycle.

    Members
    -------
    rest_active : Out
        A bit for each of `rest_domains(config)`, valid before the edge of `clk`.
    rest_clk : In
        Their clocks: they must rise together with `clk` where `rest_active` is 1.
    is_reset : Out
        The NPU or a unit in it is in reset, or a register on the way of a reset to its unit is 1. While this is 0 the
        next edge of `clk` resets nothing, and the resets behind those registers stay 0 with it.
    m_axi, s_axil, irq
        As in `Npu`.
    """

    def __init__(self, config: NpuConfig):
        self._npu = Npu(config)
        self._domains = rest_domains(config)
        super().__init__(
            {
                **self._npu.signature.members,
                "rest_active": Out(len(self._domains)),
                "rest_clk": In(len(self._domains)),
                "is_reset": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        gates = ClockGates(self._domains)
        m.submodules.npu = Fragment.get(self._npu, gates)
        for name in self._npu.signature.members:
            inner, outer = getattr(self._npu, name), getattr(self, name)
            if name == "irq":
                m.d.comb += outer.eq(inner)
            else:
                wiring.connect(m, inner, wiring.flipped(outer))
        for number, name in enumerate(self._domains):
            m.domains += ClockDomain(name)
            m.d.comb += [ClockSignal(name).eq(self.rest_clk[number]), ResetSignal(name).eq(ResetSignal())]
        m.d.comb += [
            self.is_reset.eq(Cat(gates.resets, ResetSignal()).any()),
            self.rest_active.eq(Mux(self.is_reset, ~0, Cat(gates.is_active.get(name, 0) for name in self._domains))),
        ]
        return m
