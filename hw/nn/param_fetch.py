"""Output-channel parameters: from memory to the drain, in the order it uses them."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.dma.record_assembler import RecordAssembler
from convoy.hw.dma.run_reader import RunReader
from convoy.hw.dma.types import Run
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import LOW_PARAM_RECORDS, PARAM_DEPTH_RECORDS
from convoy.spec.isa import NN, PARAM

__all__ = ["PARAM_FIELDS", "ParamFetcher"]

PARAM_FIELDS = ("param_addr", "num_sb", "num_groups", "num_kernels", "num_kernels_last", "is_swapped", "tile_iw")
"""What the parameter fetcher needs of an NN descriptor."""


class _ParamRuns(wiring.Component):
    """One run of memory for each superblock and group: the records of the superblock's kernels, or with `is_swapped` of
    all channels. One run per cycle.
    """

    def __init__(self, config: NpuConfig):
        self._kernel_bytes_log2 = exact_log2(config.num_cores * PARAM.num_bytes)
        super().__init__({"job": In(stream.Signature(NN.subset(*PARAM_FIELDS))), "runs": Out(stream.Signature(Run))})

    def elaborate(self, platform):
        m = Module()
        job = Signal.like(self.job.payload, reset_less=True)
        sb_left, group_left = Signal(16), Signal(16)  # with the one in work
        is_last_sb = Signal()
        run = self.runs.payload
        num_kernels = Mux(is_last_sb, job.num_kernels_last, job.num_kernels)
        m.d.comb += [
            self.job.ready.eq(~self.runs.valid),
            run.num_bytes.eq(
                Mux(job.is_swapped, job.tile_iw << exact_log2(PARAM.num_bytes), num_kernels << self._kernel_bytes_log2)
            ),
        ]
        with m.If(~self.runs.valid):
            load = self.job.payload
            m.d.sync += [
                job.eq(load),
                self.runs.valid.eq(self.job.valid),
                run.addr.eq(load.param_addr),
                sb_left.eq(load.num_sb),
                is_last_sb.eq(load.num_sb == 1),
                group_left.eq(load.num_groups),
            ]
        with m.Elif(self.runs.ready):
            m.d.sync += group_left.eq(group_left - 1)
            with m.If(group_left == 1):
                m.d.sync += [
                    group_left.eq(job.num_groups),
                    sb_left.eq(sb_left - 1),
                    is_last_sb.eq(sb_left == 2),
                    run.addr.eq(run.addr + run.num_bytes),
                    self.runs.valid.eq(~is_last_sb),
                ]
        return m


class ParamFetcher(wiring.Component):
    """Fetches the records of each superblock once per group, in the order of the drain.

    Throughput: one record per cycle, or per `16 / port_bytes` cycles on a port narrower than a record. Reads about
    `PARAM_DEPTH_RECORDS` ahead, across jobs: the next job is taken when the last run of the previous one has been
    requested.

    Members
    -------
    job : In(stream of NN.subset(*PARAM_FIELDS))
    port : Out(ReadPort)
    params : Out(stream of PARAM.layout)
    gives_way : In(1), pixels are urgent: fetch only while fewer than `LOW_PARAM_RECORDS` are requested or here
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*PARAM_FIELDS))),
                "port": Out(ReadPort(config)),
                "params": Out(stream.Signature(PARAM.layout)),
                "gives_way": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config = self._config
        depth_beats = max(PARAM_DEPTH_RECORDS * PARAM.num_bytes // config.port_bytes, 2 * config.max_burst_beats)
        m.submodules.runs = runs = _ParamRuns(config)
        low_beats = -(-LOW_PARAM_RECORDS * PARAM.num_bytes // config.port_bytes)
        m.submodules.reader = reader = RunReader(config, depth_beats, low_beats)
        m.submodules.assembler = assembler = RecordAssembler(config, PARAM.num_bytes)
        wiring.connect(m, wiring.flipped(self.job), runs.job)
        wiring.connect(m, runs.runs, reader.runs)
        wiring.connect(m, reader.port, wiring.flipped(self.port))
        wiring.connect(m, reader.beats, assembler.beats)
        m.d.comb += [
            reader.hold.eq(self.gives_way),
            self.params.valid.eq(assembler.records.valid),
            self.params.payload.eq(assembler.records.payload[: PARAM.num_bits]),
            assembler.records.ready.eq(self.params.ready),
        ]
        return m
