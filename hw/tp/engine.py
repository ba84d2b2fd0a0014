"""The tensor processor: copies, sums and pools."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.bus.port import ReadPort, WritePort
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import NUM_TP_LANES
from convoy.spec.isa import TP, TP_FEATURES

from .buffer import TpBuffer
from .load import Load
from .output import Output
from .process import Process

__all__ = ["TpEngine"]


class TpEngine(wiring.Component):
    """Executes `TP` descriptors as docs/architecture.md defines them.

    Loading, processing and writing are units of their own; each has the fields it needs in registers of its own, and
    loads one descriptor ahead into the other half of the buffer. A descriptor is accepted when all three units have
    taken it. One that is not released is not loaded; its table, if it has one, is.

    Throughput: the slowest of the three; see `Load`, `Process`, `Output`.

    Members
    -------
    job : In(stream of `TP.layout`)
    is_released : In(1)
        What the job at `job` waits for is done.
    read, read_lut : Out(ReadPort)
    write : Out(WritePort)
    done : Out(1)
        Strobe for each descriptor, in order, when all its writes have been acknowledged.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(TP.layout)),
                "is_released": In(1, init=1),
                "read": Out(ReadPort(config)),
                "read_lut": Out(ReadPort(config)),
                "write": Out(WritePort(config)),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.load = load = Load(config)
        m.submodules.buffer = buffer = TpBuffer(
            num_bytes=config.tp_buffer_bytes, num_banks=config.port_bytes, num_lanes=NUM_TP_LANES
        )
        m.submodules.process = process = Process(config)
        m.submodules.output = output = Output(config)

        self._fork(m, [load.job, process.job, output.job])
        wiring.connect(m, load.port, wiring.flipped(self.read))
        wiring.connect(m, process.read_lut, wiring.flipped(self.read_lut))
        wiring.connect(m, load.loaded, process.loaded)
        wiring.connect(m, process.results, output.results)
        wiring.connect(m, output.port, wiring.flipped(self.write))
        m.d.comb += [
            load.is_released.eq(self.is_released),
            load.freed.eq(process.freed),
            process.num_there.eq(load.num_there),
            buffer.write_en.eq(load.write_en),
            buffer.write_addr.eq(load.write_addr),
            buffer.write_data.eq(load.write_data),
            buffer.write_skip.eq(load.write_skip),
            buffer.write_count.eq(load.write_count),
            buffer.read_addr.eq(process.read_addr),
            buffer.read_count.eq(process.read_count),
            buffer.read_step.eq(process.read_step),
            process.read_data.eq(buffer.read_data),
            self.done.eq(output.done),
        ]
        return m

    def _fork(self, m, units):
        """Offer the descriptor to each unit until it has taken it."""
        is_taken, absent = Signal(len(units)), self._config.absent(TP_FEATURES)
        for index, unit in enumerate(units):
            m.d.comb += unit.valid.eq(self.job.valid & ~is_taken[index])
            for name, _ in unit.p.shape():
                m.d.comb += unit.p[name].eq(0 if name in absent else self.job.p[name])
            with m.If(unit.valid & unit.ready):
                m.d.sync += is_taken[index].eq(1)
        m.d.comb += self.job.ready.eq(
            Cat(taken | unit.ready for taken, unit in zip(is_taken, units, strict=True)).all()
        )
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += is_taken.eq(0)
