"""Lookup tables: any function of one byte, applied to the outputs of an engine."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.lib.delay import delay
from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.isa import LUT_BYTES, NN

__all__ = ["LUT_FIELDS", "Lut"]

LUT_FIELDS = ("has_lut", "lut_addr")
"""What `Lut` needs of a descriptor."""


class Lut(wiring.Component):
    """Fetches the table of a descriptor and looks up `num_lanes` bytes per cycle; passes them on unchanged if there
    is none.

    Outputs come `PIPELINE_CYCLES` cycles after their inputs, one set per cycle. A table is there about
    `LUT_BYTES / port_bytes` cycles and a round trip to memory after `start`. Each lane has a copy of the table.

    Members
    -------
    job : In
        Fields of the descriptor, constant from `start` until its last byte has left.
    start : In(1)
        Strobe: fetch the table of `job`. Not while bytes are in the pipeline.
    is_ready : Out(1)
        From the cycle after `start`: the table is there, or none is needed. Bytes may follow from the next cycle on.
    port : Out(ReadPort)
    valid, lanes : In
    out_valid, outs : Out
    """

    PIPELINE_CYCLES = cycles.LUT_CYCLES
    """Cycles from `valid` to `out_valid`."""

    def __init__(self, config: NpuConfig, num_lanes: int):
        self._config, self._num_lanes = config, num_lanes
        super().__init__(
            {
                "job": In(NN.subset(*LUT_FIELDS)),
                "start": In(1),
                "is_ready": Out(1),
                "port": Out(ReadPort(config)),
                "valid": In(1),
                "lanes": In(data.ArrayLayout(8, num_lanes)),
                "out_valid": Out(1),
                "outs": Out(data.ArrayLayout(8, num_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        num_beats = LUT_BYTES // config.port_bytes
        burst_beats = min(num_beats, config.max_burst_beats)

        # The fetch: all bursts at once, their beats counted.
        bursts, beats = self.port.bursts, self.port.beats
        num_requests = Signal(range(num_beats // burst_beats + 1))  # still to be made
        num_due = Signal(range(num_beats + 1))
        row = Signal(range(max(num_beats, 2)))
        m.d.comb += [
            bursts.valid.eq(num_requests != 0),
            bursts.p.last_beat.eq(burst_beats - 1),
            self.is_ready.eq(num_due == 0),
        ]
        with m.If(self.start):
            m.d.sync += [
                num_requests.eq(Mux(self.job.has_lut, num_beats // burst_beats, 0)),
                num_due.eq(Mux(self.job.has_lut, num_beats, 0)),
                bursts.p.addr.eq(self.job.lut_addr),
                row.eq(0),
            ]
        with m.Else():
            with m.If(bursts.valid & bursts.ready):
                m.d.sync += [
                    num_requests.eq(num_requests - 1),
                    bursts.p.addr.eq(bursts.p.addr + burst_beats * config.port_bytes),
                ]
            with m.If(beats.valid):
                m.d.sync += [num_due.eq(num_due - 1), row.eq(row + 1)]

        # The lookup: a row of the table, then a byte of the row.
        byte_bits = exact_log2(config.port_bytes)
        outs = data_register(m, self.outs)
        m.d.comb += self.out_valid.eq(delay(m, self.valid, self.PIPELINE_CYCLES, name="valid"))
        for lane in range(self._num_lanes):
            table = Memory(shape=config.port_bits, depth=num_beats, init=[])
            m.submodules[f"table_{lane}"] = table
            write, read = table.write_port(), table.read_port()
            byte = Signal(8, reset_less=True, name=f"byte_{lane}")
            m.d.comb += [
                write.addr.eq(row),
                write.data.eq(beats.p),
                write.en.eq(beats.valid),
                read.addr.eq(self.lanes[lane][byte_bits:]),
                read.en.eq(1),
            ]
            m.d.sync += [
                byte.eq(self.lanes[lane]),
                outs[lane].eq(Mux(self.job.has_lut, read.data.word_select(byte[:byte_bits], 8), byte)),
            ]
        return m
