"""Lookup tables: any function of one byte, applied to the outputs of an engine."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.lib.delay import delay
from convoy.hw.lib.queue import Queue
from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.isa import LUT_BYTES, NN

__all__ = ["LUT_FIELDS", "Lut"]

LUT_FIELDS = ("has_lut", "lut_addr")
"""What `Lut` needs of a descriptor."""


class Lut(wiring.Component):
    """Fetches the tables of descriptors and looks up `num_lanes` bytes per cycle; passes them on unchanged if there
    is none.

    Outputs come `PIPELINE_CYCLES` cycles after their inputs, one set per cycle. There is room for two tables: that of
    the next job is fetched while bytes of the present one go through, and written in cycles without bytes. It is there
    `LUT_BYTES / ROW_BYTES` such cycles and a round trip to memory after its job is offered. Two lanes share a block
    memory with both tables.

    Members
    -------
    next_job : In(fields of a descriptor)
        The job to come, if `has_next`: its table may be fetched.
    has_next : In(1)
        High at least in the cycle before `start`.
    start : In(1)
        Strobe, in the cycle after the last one of a job as `next_job`: bytes are those of this job from now on. Not
        while bytes are in the pipeline.
    has_lut : In(1)
        Of the job that was started; constant until its last byte has left.
    is_ready : Out(1)
        From the cycle after `start`: the table is there, or none is needed. Bytes may follow from the next cycle on.
    is_active : Out(1)
        Low when nothing inside would change but by `valid`: the unit may rest.
    port : Out(ReadPort)
    valid, lanes : In
    out_valid, outs : Out
    """

    PIPELINE_CYCLES = cycles.LUT_CYCLES
    """Cycles from `valid` to `out_valid`."""
    ROW_BYTES = cycles.LUT_ROW_BYTES
    """What a block memory with two ports takes in a cycle."""

    def __init__(self, config: NpuConfig, num_lanes: int):
        self._config, self._num_lanes = config, num_lanes
        super().__init__(
            {
                "next_job": In(NN.subset(*LUT_FIELDS)),
                "has_next": In(1),
                "start": In(1),
                "has_lut": In(1),
                "is_ready": Out(1),
                "is_active": Out(1),
                "port": Out(ReadPort(config)),
                "valid": In(1),
                "lanes": In(data.ArrayLayout(8, num_lanes)),
                "out_valid": Out(1),
                "outs": Out(data.ArrayLayout(8, num_lanes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bank, row, row_data, is_write = self._fetch(m)

        # The lookup: a row of the table, then a byte of the row.
        outs = data_register(m, self.outs)
        m.d.comb += self.out_valid.eq(delay(m, self.valid, self.PIPELINE_CYCLES, name="valid"))
        for first in range(0, self._num_lanes, 2):
            table = Memory(shape=8 * self.ROW_BYTES, depth=2 * LUT_BYTES // self.ROW_BYTES, init=[])
            m.submodules[f"table_{first}"] = table
            for lane in range(first, min(first + 2, self._num_lanes)):
                port = table.read_port()
                byte = Signal(8, reset_less=True, name=f"byte_{lane}")
                addr = Signal.like(port.addr, name=f"addr_{lane}")
                m.d.comb += [port.addr.eq(addr), port.en.eq(1), addr.eq(Cat(self.lanes[lane][1:], bank))]
                m.d.sync += [
                    byte.eq(self.lanes[lane]),
                    outs[lane].eq(Mux(self.has_lut, port.data.word_select(byte[0], 8), byte)),
                ]
                if lane == first:  # shares its port with the write
                    write = table.write_port()
                    m.d.comb += [write.addr.eq(addr), write.data.eq(row_data), write.en.eq(is_write)]
                    with m.If(is_write):
                        m.d.comb += addr.eq(row)
        return m

    def _fetch(self, m):
        """The table that is looked up; where what is to be written, and whether it is."""
        port_bytes = self._config.port_bytes
        burst_beats = min(cycles.LUT_BURST_BEATS, LUT_BYTES // port_bytes, self._config.max_burst_beats)
        job, bursts = self.next_job, self.port.bursts
        m.submodules.beats = beats = Queue(8 * port_bytes, burst_beats)
        # A burst is asked for when the one before has been written.
        num_bursts = Signal(range(LUT_BYTES // port_bytes // burst_beats + 1))  # still to be asked for
        num_due = Signal(range(burst_beats + 1))  # beats of this one that are not written
        num_rows = Signal(range(LUT_BYTES // self.ROW_BYTES + 1))  # of the table that are not written
        bank, write_bank = Signal(), Signal()
        is_ahead = Signal()  # the table written last is that of the next job
        begins, is_write = Signal(), Signal()
        row = Signal(exact_log2(LUT_BYTES // self.ROW_BYTES))
        part = row[: exact_log2(port_bytes // self.ROW_BYTES)]
        m.d.comb += [
            begins.eq(self.has_next & job.has_lut & (num_rows == 0) & ~is_ahead & ~self.start),
            self.is_ready.eq((num_rows == 0) | is_ahead),
            self.is_active.eq(begins | (num_rows != 0) | self.start),
            beats.i.valid.eq(self.port.beats.valid),
            beats.i.p.eq(self.port.beats.p),
            is_write.eq(beats.o.valid & ~self.valid),
            beats.o.ready.eq(is_write & part.all()),
            bursts.p.last_beat.eq(burst_beats - 1),
        ]
        m.d.sync += num_due.eq(
            num_due + Mux(bursts.valid & bursts.ready, burst_beats, 0) - (beats.o.valid & beats.o.ready)
        )
        with m.If(bursts.valid & bursts.ready):
            m.d.sync += [
                bursts.valid.eq(0),
                num_bursts.eq(num_bursts - 1),
                bursts.p.addr.eq(bursts.p.addr + burst_beats * port_bytes),
            ]
        with m.Elif(~bursts.valid & (num_bursts != 0) & (num_due == 0)):
            m.d.sync += bursts.valid.eq(1)
        with m.If(is_write):
            m.d.sync += [row.eq(row + 1), num_rows.eq(num_rows - 1)]
        with m.If(self.start):
            m.d.sync += [bank.eq(Mux(is_ahead, write_bank, bank)), is_ahead.eq(0)]
        with m.If(begins):
            m.d.sync += [
                num_bursts.eq(LUT_BYTES // port_bytes // burst_beats),
                num_rows.eq(LUT_BYTES // self.ROW_BYTES),
                bursts.p.addr.eq(job.lut_addr),
                write_bank.eq(~write_bank),
                is_ahead.eq(1),
            ]
        return bank, Cat(row, write_bank), beats.o.p.word_select(part, 8 * self.ROW_BYTES), is_write
