"""The accelerator: control, the two engines and the memory port. Wiring only."""

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.axi import AxiLiteSignature, AxiSignature
from convoy.hw.bus.read_mux import ReadMux
from convoy.hw.bus.write_mux import WriteMux
from convoy.hw.ctrl.control import Control
from convoy.hw.nn.engine import NnEngine
from convoy.hw.tp.engine import TpEngine
from convoy.spec.config import NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS

__all__ = ["Npu"]


class Npu(wiring.Component):
    """A Convoy NPU.

    Parameters
    ----------
    config
        What to build.
    nn_engine, tp_engine
        Take the place of `NnEngine(config)` and `TpEngine(config)`; for tests of everything else.

    Members
    -------
    m_axi : Out(AxiSignature)
        The memory port, `config.port_bits` wide: descriptors, weights, activations, completion records.
    s_axil : In(AxiLiteSignature)
        The registers of `convoy.spec.csr`.
    irq : Out
        The program has ended; level, cleared through IRQ_STATUS.
    """

    def __init__(self, config: NpuConfig, *, nn_engine: wiring.Component | None = None, tp_engine: wiring.Component | None = None):
        self._config = config
        self._nn_engine = nn_engine
        self._tp_engine = tp_engine
        super().__init__({
            "m_axi": Out(AxiSignature(data_bits=config.port_bits)),
            "s_axil": In(AxiLiteSignature(addr_bits=CSR_ADDR_BITS)),
            "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.control = control = Control(config)
        m.submodules.nn = nn = self._nn_engine or NnEngine(config)
        m.submodules.tp = tp = self._tp_engine or TpEngine(config)

        # Earlier clients first where the multiplexers have a preference
        reads = (control.read, nn.read_tables, nn.read_params, nn.read_acts, nn.read_weights, tp.read)
        writes = (control.write, nn.write, tp.write)
        m.submodules.read_mux = read_mux = ReadMux(config, len(reads))
        m.submodules.write_mux = write_mux = WriteMux(config, len(writes))
        for read, client in zip(reads, read_mux.clients, strict=True):
            wiring.connect(m, read, client)
        for write, client in zip(writes, write_mux.clients, strict=True):
            wiring.connect(m, write, client)

        wiring.connect(m, wiring.flipped(self.s_axil), control.s_axil)
        wiring.connect(m, control.nn, nn.job)
        wiring.connect(m, control.tp, tp.job)
        m.d.comb += [
            self.irq.eq(control.irq),
            control.nn_done.eq(nn.done),
            control.tp_done.eq(tp.done),
            control.read_beat.eq(self.m_axi.rvalid & self.m_axi.rready),
            control.weight_beat.eq(nn.read_weights.beats.valid),
        ]
        for index, write in enumerate((nn.write, tp.write)):
            m.d.comb += control.write_strobes[index].eq(Mux(write.beats.valid & write.beats.ready, write.beats.p.strobe, 0))
        return m
