"""The accelerator: control, the two engines and the memory port. Wiring only."""

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.axi import AxiLiteSignature, AxiSignature
from convoy.hw.bus.read_mux import ReadMux
from convoy.hw.bus.write_mux import WriteMux
from convoy.hw.ctrl.control import Control
from convoy.hw.lib.idle import Rest, rested
from convoy.hw.lib.reset import add_resettable
from convoy.hw.nn.drain import drain_ports
from convoy.hw.nn.engine import NnEngine
from convoy.hw.tp.engine import TpEngine
from convoy.spec.config import NpuConfig
from convoy.spec.csr import CSR_ADDR_BITS, Error

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

    def __init__(
        self, config: NpuConfig, *, nn_engine: wiring.Component | None = None, tp_engine: wiring.Component | None = None
    ):
        self._config = config
        self._nn_engine = nn_engine
        self._tp_engine = tp_engine
        super().__init__(
            {
                "m_axi": Out(AxiSignature(data_bits=config.port_bits)),
                "s_axil": In(AxiLiteSignature(addr_bits=CSR_ADDR_BITS)),
                "irq": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.control = control = Control(config)
        nn = self._nn_engine or NnEngine(config)
        tp = self._tp_engine or TpEngine(config)
        tp_rest = Rest(max_open=15, tail_cycles=63)
        tp_reset, nn_reset = control.resets[:2]
        add_resettable(m, "nn", nn, nn_reset, platform)
        add_resettable(m, "tp_rest", tp_rest, tp_reset, platform)
        add_resettable(m, "tp", rested(tp, tp_rest.is_active, platform, "tp"), tp_reset, platform)

        reads = (
            control.read,
            nn.read_tables,
            nn.read_params,
            nn.read_acts,
            nn.read_weights,
            *(getattr(nn, name) for name in drain_ports(config)),
            tp.read,
            tp.read_lut,
        )
        writes = (control.write, nn.write, tp.write)
        weights_client, records_client = 4, 0
        m.submodules.read_mux = read_mux = ReadMux(config, len(reads))
        m.submodules.write_mux = write_mux = WriteMux(config, len(writes))
        for read, client in zip(reads, read_mux.clients, strict=True):
            wiring.connect(m, read, client)
        for write, client in zip(writes, write_mux.clients, strict=True):
            wiring.connect(m, write, client)

        for mux in (read_mux, write_mux):
            for name, member in mux.axi.signature.members.items():
                inner, outer = getattr(mux.axi, name), getattr(self.m_axi, name)
                m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)

        wiring.connect(m, wiring.flipped(self.s_axil), control.s_axil)
        wiring.connect(m, control.nn, nn.job)
        wiring.connect(m, control.tp, tp.job)
        m.d.comb += [
            self.irq.eq(control.irq),
            nn.unit_resets.eq(control.resets[2:]),
            tp.is_released.eq(control.tp_released),
            nn.tp_due.eq(control.nn_due),
            nn.tp_done.eq(tp.done),
            control.nn_done.eq(nn.done),
            control.tp_done.eq(tp.done),
            control.activity.eq(nn.activity),
            tp_rest.offered.eq(tp.job.valid),
            tp_rest.accepted.eq(tp.job.valid & tp.job.ready),
            tp_rest.done.eq(tp.done),
            control.read_beat.eq(read_mux.beat_strobe.any()),
            control.weight_beat.eq(read_mux.beat_strobe[weights_client]),
            control.write_bytes.eq(Mux(write_mux.num_bytes_client == records_client, 0, write_mux.num_bytes)),
        ]
        muxes: tuple[ReadMux | WriteMux, ...] = (read_mux, write_mux)
        for guard, mux in zip(control.guards, muxes, strict=True):
            wiring.connect(m, guard, mux.guard)
        for fault, mux, code in zip(control.bus_faults, muxes, (Error.BUS_READ, Error.BUS_WRITE), strict=True):
            m.d.comb += [fault.valid.eq(mux.error), fault.p.code.eq(code), fault.p.addr.eq(mux.error_addr)]
        return m
