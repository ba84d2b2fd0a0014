"""The drain: accumulators of finished groups to requantised bytes in memory."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.wiring import In, Member, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.dma.chunk_writer import Chunk
from convoy.hw.lib.delay import delay
from convoy.hw.lib.idle import Rest, rested
from convoy.hw.lib.queue import Queue
from convoy.hw.post.compress import Compressor
from convoy.hw.post.fused_pool import Pool
from convoy.hw.post.lut import LUT_FIELDS, Lut
from convoy.hw.post.requant import Requantiser
from convoy.hw.post.residual import Residual
from convoy.hw.post.split import ByteSplitter
from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN, PARAM

from .drain_units import DRAIN_FIELDS, SCALE_FIELDS, UnitSequencer, place_layout, unit_layout
from .drain_walk import Walker

__all__ = ["DrainChunks", "drain_ports"]


def drain_ports(config: NpuConfig) -> dict[str, Member]:
    """The read ports of the units that the drain has: `read_lut` for lookup tables, `read_residual` for second operands
    of sums.
    """
    ports = {"read_lut": config.has_lut, "read_residual": config.has_residual}
    return {name: Out(ReadPort(config)) for name, is_there in ports.items() if is_there}


class DrainChunks(wiring.Component):
    """Reads, requantises, looks up and compresses the accumulators of finished groups, and adds a residual or pools,
    into chunks for `ChunkWriter`. What the configuration lacks is left out, and so are its cycles.

    The loops are those of "Drain" in docs/architecture.md. Beyond what is written there the descriptor must obey:
    `post_lanes <= num_lanes >> split_log2`; without `is_flat` no chunk reaches into the next row, whatever
    `drain_pitch` is; with `is_flat` `split_log2` is 0 and `num_vec_x` is not used. `num_vec` (or `num_vec_last`)
    vectors of every kernel are cleared, each once, with or after the last read from it, also where no position or no
    output channel needs them.

    Throughput: one chunk of `post_lanes` positions per cycle, per two cycles if is_wide; a row of each kernel begins a
    new chunk; one cycle per vector of an output channel that does not exist; about 4 cycles per group. The next job is
    taken when the chunks of the last one have left; a job with a lookup table starts when that has been fetched. With a
    residual `Residual` sets the pace, and with a pool `Pool` where rows are no multiples of `post_lanes`; its results
    leave some 16 cycles later.

    | cycle | what happens to a chunk |
    | -- | -- |
    | 0 | `Walker` visits an entry, if there is room in the queues for what comes of it |
    | 1 | the read: `acc_read`; its place is queued, a cycle later its mask is known |
    | 1 + `acc_read_cycles` | the accumulators are here and go through `Requantiser`, `Lut`, `Compressor` |
    | then | the bytes are queued; with their place they go to `Residual`, `Pool` and `ByteSplitter` in turn |

    Parameters
    ----------
    config : NpuConfig
    acc_read_cycles : int
        Cycles from `acc_read` to `acc_data`, at least 1.

    Members
    -------
    job : In(stream of NN.subset(*DRAIN_FIELDS))
        Taken when nothing of the job before is on its way.
    params : In(stream of PARAM.layout)
        One for each group, kernel and core.
    group_valid : In(1)
        The accumulators of the next group to drain are complete. In the cycle after `group_done` it must speak of the
        following group.
    group_done : Out(1)
        High for one cycle, together with the last `acc_clear` of a group.
    acc_read : Out(1)
        Strobe: read lanes `acc_lane * post_lanes` and up of `acc_entry` of `acc_core`.
    acc_clear : Out(1)
        Strobe: clear all lanes of `acc_entry` of `acc_core`, after the read if there is one in the same cycle.
    acc_core : Out(range of cores)
        Valid with `acc_read` and `acc_clear`.
    acc_entry : Out(range of entries)
        `kernel * num_vec + v`, with `is_wide` as docs/architecture.md says; valid with `acc_read` and `acc_clear`.
    acc_lane : Out(range of chunks in a vector)
        Valid with `acc_read`.
    acc_data : In(array of signed(32))
        The `post_lanes` accumulators, `acc_read_cycles` cycles after `acc_read`.
    chunks : Out(stream of Chunk(chunk_lanes))
        One `last` per job; such a chunk may be empty.
    read_lut, read_residual : Out(ReadPort)
        Those of `drain_ports`.
    """

    FIFO_DEPTH = 32
    """Chunks on their way; more than the cycles, some 26, until one that leaves allows the next one."""

    def __init__(self, config: NpuConfig, acc_read_cycles: int = 2):
        self._config, self._acc_read_cycles = config, acc_read_cycles
        num_parts = config.num_lanes // config.post_lanes
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*DRAIN_FIELDS))),
                "params": In(stream.Signature(PARAM.layout)),
                "group_valid": In(1),
                "group_done": Out(1),
                "acc_read": Out(1),
                "acc_clear": Out(1),
                "acc_core": Out(range(config.num_cores)),
                "acc_entry": Out(exact_log2(config.num_acc_entries)),
                "acc_lane": Out(range(num_parts)),
                "acc_data": In(data.ArrayLayout(signed(32), config.post_lanes)),
                "chunks": Out(stream.Signature(Chunk(config.chunk_lanes))),
                **drain_ports(config),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, depth = self._config, self.FIFO_DEPTH
        m.submodules.sequencer = sequencer = UnitSequencer(config)
        walker = Walker(config)
        m.submodules.walker_rest = walker_rest = Rest(tail_cycles=3)
        m.submodules.walker = rested(walker, walker_rest.is_active, platform, "walk")
        requantiser, compressor = Requantiser(config, config.post_lanes), Compressor(config.post_lanes)
        lut = Lut(config, config.post_lanes) if config.has_lut else None
        places = fifo.SyncFIFO(width=place_layout().size, depth=depth)
        results = fifo.SyncFIFO(width=len(compressor.out) + len(compressor.count), depth=depth)
        has_chunks = Signal()  # between the walker and the residual
        for name, unit in (
            ("requantiser", requantiser),
            ("lut", lut),
            ("compressor", compressor),
            ("places", places),
            ("results", results),
        ):
            if unit is not None:
                m.submodules[name] = rested(unit, has_chunks, platform, "post")

        # Every chunk issued has its room in the queues.
        num_free = Signal(range(depth + 1), init=depth)
        can_issue, is_taken = Signal(init=1), Signal()
        m.d.sync += [
            num_free.eq(num_free - walker.is_emitted + is_taken),
            can_issue.eq(num_free > Mux(sequencer.fields.is_wide, 2, 1)),
        ]
        m.d.comb += [
            has_chunks.eq((num_free != depth) | (0 if lut is None else lut.start | ~lut.is_ready)),
            walker_rest.offered.eq(walker.units.valid | walker.prepare | walker.is_active),
        ]

        wiring.connect(m, wiring.flipped(self.job), sequencer.job)
        wiring.connect(m, wiring.flipped(self.params), sequencer.params)
        m.submodules.chunks = chunks = Queue(
            Chunk(config.post_lanes), 2
        )  # keeps what comes behind off the paths in front
        is_interleaved = sequencer.fields.is_wide & (sequencer.fields.pool_size != 0)
        behind_is_idle = self._connect_behind(m, platform, sequencer, walker, chunks.o, is_interleaved)
        m.d.comb += [
            walker.is_interleaved.eq(is_interleaved),
            requantiser.is_interleaved.eq(is_interleaved),
            sequencer.is_quiet.eq((num_free == depth) & behind_is_idle & ~chunks.o.valid),
            sequencer.group_valid.eq(self.group_valid),
            sequencer.group_done.eq(walker.group_done),
            sequencer.is_prepared.eq(walker.is_prepared & (1 if lut is None else lut.is_ready)),
            walker.prepare.eq(sequencer.prepare),
            walker.fields.eq(sequencer.fields),
            walker.group.eq(sequencer.group),
            walker.can_issue.eq(can_issue),
            *(
                getattr(self, name).eq(getattr(walker, name))
                for name in ("acc_read", "acc_clear", "acc_core", "acc_entry", "acc_lane", "group_done")
            ),
        ]

        if lut is not None:
            wiring.connect(m, lut.port, wiring.flipped(self.read_lut))
            m.d.sync += lut.start.eq(sequencer.job.valid & sequencer.job.ready)
            m.d.comb += [
                *(lut.job[name].eq(sequencer.fields[name]) for name in LUT_FIELDS),
                lut.valid.eq(requantiser.out_valid),
                lut.lanes.eq(requantiser.outs),
            ]
        looked_up = requantiser if lut is None else lut
        mask = delay(m, walker.mask, self._mask_cycles(), name="mask", reset_less=True)
        scale = delay(m, walker.scale, self._acc_read_cycles, name="scale", reset_less=True)
        m.d.comb += [
            requantiser.valid.eq(delay(m, walker.emit, self._acc_read_cycles, name="emit")),
            requantiser.is_low.eq(delay(m, walker.is_low, self._acc_read_cycles, name="is_low")),
            requantiser.accs.eq(self.acc_data),
            *(requantiser.param[name].eq(scale[name]) for name in SCALE_FIELDS),
            *(
                getattr(requantiser, name).eq(sequencer.fields[name])
                for name in ("is_wide", "rounding", "zero_point_out", "act_min", "act_max")
            ),
            places.w_en.eq(walker.emit),
            places.w_data.eq(walker.place),
            compressor.valid.eq(looked_up.out_valid),
            compressor.lanes.eq(looked_up.outs),
            compressor.mask.eq(mask),
            results.w_en.eq(compressor.out_valid),
            results.w_data.eq(Cat(compressor.out, compressor.count)),
        ]

        m.d.comb += [
            is_taken.eq(results.r_rdy & chunks.i.ready),
            results.r_en.eq(is_taken),
            places.r_en.eq(is_taken),
            chunks.i.valid.eq(results.r_rdy),
            Cat(chunks.i.p.data, chunks.i.p.count).eq(results.r_data),
            Cat(chunks.i.p.addr, chunks.i.p.start, chunks.i.p.last).eq(places.r_data),
        ]
        return m

    def _mask_cycles(self) -> int:
        """From the mask of a chunk, a cycle after the read, to its bytes at the compressor."""
        return self._acc_read_cycles + Requantiser.PIPELINE_CYCLES + self._config.has_lut * Lut.PIPELINE_CYCLES - 1

    def _connect_behind(self, m, platform, sequencer, walker, chunks, is_interleaved):
        """Residual, pool and splitter one after another behind `chunks`; a value that is high while nothing is in them.

        The walker, the residual and the pool see the same units; the latter only those that make outputs.
        """
        config, fields = self._config, sequencer.fields
        m.submodules.units = units = Queue(
            unit_layout(config), 2
        )  # keeps the walk's decisions off the path to the parameters
        wiring.connect(m, sequencer.units, units.i)
        unit, followers, idle = units.o.p, [], []

        if config.has_residual:
            residual = Residual(config)
            m.submodules.residual = rested(residual, residual.job.has_residual, platform, "residual")
            m.d.comb += [
                residual.units.p.addr.eq(unit.addr),
                residual.units.p.is_last_group.eq(unit.is_last_group),
                *(residual.job[name].eq(fields[name]) for name, _ in residual.job.shape()),
            ]
            wiring.connect(m, residual.port, wiring.flipped(self.read_residual))
            # Keeps what comes behind off the paths to the sums.
            m.submodules.sums = sums = Queue(Chunk(config.post_lanes), 2)
            wiring.connect(m, chunks, residual.i)
            wiring.connect(m, residual.o, sums.i)
            chunks = sums.o
            followers.append((residual.units, fields.has_residual))
            idle += [residual.is_idle, ~sums.o.valid]
        if config.has_fused_pool:
            pool = Pool(config)
            m.submodules.pool = rested(pool, pool.job.pool_size != 0, platform, "pool")
            m.d.comb += [
                *(pool.units.p[name].eq(unit[name]) for name, _ in pool.units.p.shape()),
                *(pool.job[name].eq(fields[name]) for name, _ in pool.job.shape()),
            ]
            wiring.connect(m, chunks, pool.i)
            chunks = pool.o
            followers.append((pool.units, fields.pool_size != 0))
            idle.append(pool.is_idle)
        if config.has_int16:
            splitter = ByteSplitter(config.chunk_lanes)
            m.submodules.splitter = rested(splitter, splitter.is_wide, platform, "split")
            m.d.comb += [
                splitter.has_both.eq(is_interleaved),
                splitter.is_wide.eq(fields.is_wide),
                splitter.high_bytes.eq(fields.out_high_bytes),
            ]
            wiring.connect(m, chunks, splitter.i)
            chunks = splitter.o
            idle.append(splitter.is_idle)
        wiring.connect(m, chunks, wiring.flipped(self.chunks))

        has_room = Cat(each.ready for each, _ in followers).all()
        is_taken = units.o.valid & walker.units.ready & unit.is_valid & has_room
        m.d.comb += [
            walker.units.p.eq(unit),
            walker.units.valid.eq(units.o.valid & has_room),
            units.o.ready.eq(walker.units.ready & has_room),
            *(each.valid.eq(is_taken & is_wanted) for each, is_wanted in followers),
        ]
        return Cat(idle).all()
