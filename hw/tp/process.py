"""Turns the bytes in the buffer into the bytes to write."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.lib.queue import Queue
from convoy.hw.post.lut import LUT_FIELDS, Lut
from convoy.spec.config import NpuConfig
from convoy.spec.isa import TP, TpOp

from .add import AddLane
from .buffer import TpBuffer
from .pool import Average, PoolReduce
from .walk import GroupWalk, WindowWalk, is_pool

__all__ = ["NUM_TP_LANES", "Process", "result_layout"]

NUM_TP_LANES = 4
"""Bytes that the tensor processor takes from each operand per cycle."""

_JOB = TP.subset(
    "op", "buffer_half", "num_0", "num_1", "num_2", "step_0", "step_1", "step_2",
    "kernel_h", "kernel_w", "stride_h", "stride_w", "start_y", "start_x", "tile_ih", "tile_iw",
    "a_zero_point", "b_zero_point", "a_mult", "b_mult", "out_mult", "a_shift", "b_shift", "out_shift", "zero_point_out", "act_min", "act_max", "is_half_up",
    *LUT_FIELDS)


def result_layout(num_lanes: int) -> data.StructLayout:
    """The low `count` bytes of `data` are the next output bytes; `last` of the descriptor."""
    return data.StructLayout({"data": 8 * num_lanes, "count": range(num_lanes + 1), "last": 1})


class Process(wiring.Component):
    """Walks through the loaded half of the buffer and computes.

    Groups are issued only when the result queue has room for them, so nothing behind the walk ever stalls. The next
    descriptor starts when the pipeline is empty, and when its lookup table, if it has one, has been fetched.

    Latency: about 14 cycles from `loaded` to the first result, `ADD` 14 more. Throughput: `COPY`, `ADD`: a group of
    `num_lanes` elements per cycle (one element if `step_2` puts lanes into one bank), and at least two cycles per iteration
    of the outer loops; pools: `num_lanes` pixels of a window row per cycle, and at least two cycles per window
    (averages: `Average.CYCLES`).

    Parameters
    ----------
    num_lanes : int
        Bytes of each operand taken per cycle, a power of two, at most port_bytes.

    Members
    -------
    job : In(stream)
        Fields of the descriptor.
    loaded : In(stream)
        Bytes of operand A, for each descriptor that is in the buffer.
    freed : Out(1)
        Strobe when the descriptor's half is no longer read.
    read_addr, read_count, read_step, read_data
        A gather of `TpBuffer` for A and one for B.
    results : Out(stream of `result_layout`)
        `count` is at least 1.
    read_lut : Out(ReadPort)
        For lookup tables.
    """

    QUEUE_DEPTH = 32

    def __init__(self, config: NpuConfig, num_lanes: int = NUM_TP_LANES):
        self._config, self._num_lanes = config, num_lanes
        addr_bits = exact_log2(config.tp_buffer_bytes)
        super().__init__({
            "job": In(stream.Signature(_JOB)),
            "loaded": In(stream.Signature(addr_bits)),
            "freed": Out(1),
            "read_addr": Out(data.ArrayLayout(addr_bits, 2)),
            "read_count": Out(range(num_lanes + 1)),
            "read_step": Out(addr_bits - 1),
            "read_data": In(data.ArrayLayout(data.ArrayLayout(signed(8), num_lanes), 2)),
            "results": Out(stream.Signature(result_layout(num_lanes))),
            "read_lut": Out(ReadPort(config)),
        })

    def elaborate(self, platform):
        m = Module()
        lanes, half_bits = self._num_lanes, exact_log2(self._config.tp_buffer_bytes) - 1
        m.submodules.window_walk = window_walk = WindowWalk(half_bits)
        m.submodules.group_walk = group_walk = GroupWalk(half_bits, num_lanes=lanes, num_banks=self._config.port_bytes)
        m.submodules.queue = queue = Queue(result_layout(lanes), self.QUEUE_DEPTH)
        wiring.connect(m, window_walk.windows, group_walk.windows)
        m.submodules.lut = lut = Lut(self._config, lanes)
        wiring.connect(m, queue.o, wiring.flipped(self.results))
        wiring.connect(m, lut.port, wiring.flipped(self.read_lut))

        job, b_offset = Signal(_JOB), Signal(half_bits)
        is_end = Signal()
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(1)
                m.d.sync += [job.eq(self.job.p), lut.start.eq(self.job.valid)]
                with m.If(self.job.valid):
                    m.next = "WAIT"
            with m.State("WAIT"):
                can_start = lut.is_ready & ~lut.start
                m.d.comb += [self.loaded.ready.eq(can_start), window_walk.start.eq(self.loaded.valid & can_start)]
                m.d.sync += [b_offset.eq(self.loaded.p), lut.start.eq(0)]
                with m.If(self.loaded.valid & can_start):
                    m.next = "RUN"
            with m.State("RUN"), m.If(is_end):
                m.d.comb += self.freed.eq(1)
                m.next = "IDLE"
        _assign(m, window_walk.job, job)
        _assign(m, group_walk.job, job)
        _assign(m, lut.job, job)

        groups = group_walk.groups
        is_issued = self._issue(m, job, groups)
        m.d.comb += self.read_step.eq(group_walk.step)
        m.d.sync += [
            self.read_addr[0].eq(Cat(groups.p.addr, job.buffer_half)),
            self.read_addr[1].eq(Cat((groups.p.addr + b_offset)[:half_bits], job.buffer_half)),
            self.read_count.eq(groups.p.count),
        ]
        tags = {"en": is_issued, "count": groups.p.count, "fill": groups.p.is_fill, "window_last": groups.p.window_last, "last": groups.p.last}
        tags = _delay(m, tags, 1 + TpBuffer.GATHER_CYCLES, "gather")
        self._compute(m, job, tags, lut, queue.i)
        m.d.comb += is_end.eq(queue.i.valid & queue.i.p.last)
        return m

    def _issue(self, m, job, groups):
        """Let a group go when its result will find room, and windows to be averaged not faster than the divider."""
        room = Signal(range(self.QUEUE_DEPTH + 1), init=self.QUEUE_DEPTH)
        pause = Signal(range(Average.CYCLES))
        gives_result, is_average, can_issue, is_issued = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            is_average.eq(job.op == TpOp.AVG_POOL),
            gives_result.eq(groups.p.window_last | ~is_pool(job.op)),
            can_issue.eq((room != 0) & ~(is_average & groups.p.window_last & (pause != 0))),
            groups.ready.eq(can_issue),
            is_issued.eq(groups.valid & groups.ready),
        ]
        m.d.sync += room.eq(room + (self.results.valid & self.results.ready) - (is_issued & gives_result))
        with m.If(is_issued & groups.p.window_last):
            m.d.sync += pause.eq(Average.CYCLES - 1)
        with m.Elif(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        return is_issued

    def _compute(self, m, job, tags, lut, results):
        """The bytes that were read or the fill, or their sums, or their reduction, looked up if need be, into the queue."""
        read_a, read_b = self.read_data
        sums = []
        for lane in range(self._num_lanes):
            m.submodules[f"add{lane}"] = add = AddLane()
            _assign(m, add.job, job)
            m.d.comb += [add.a.eq(read_a[lane]), add.b.eq(read_b[lane])]
            sums.append(add.y)
        sum_tags = _delay(m, tags | {"en": tags["en"] & (job.op == TpOp.ADD)}, AddLane.PIPELINE_CYCLES, "add")

        m.submodules.pool = pool = PoolReduce(num_lanes=self._num_lanes)
        _assign(m, pool.job, job)
        m.d.comb += [
            pool.en.eq(tags["en"] & is_pool(job.op)), pool.bytes.eq(read_a), pool.count.eq(tags["count"]),
            pool.window_last.eq(tags["window_last"]), pool.last.eq(tags["last"]),
        ]

        result = {"count": Signal.like(results.p.count), "last": Signal()}
        with m.Switch(job.op):
            with m.Case(TpOp.COPY):
                m.d.sync += [
                    lut.valid.eq(tags["en"]), lut.lanes.eq(Mux(tags["fill"], job.zero_point_out[:8].replicate(self._num_lanes), read_a)),
                    result["count"].eq(tags["count"]), result["last"].eq(tags["last"]),
                ]
            with m.Case(TpOp.ADD):
                m.d.sync += [
                    lut.valid.eq(sum_tags["en"]), lut.lanes.eq(Cat(sums)),
                    result["count"].eq(sum_tags["count"]), result["last"].eq(sum_tags["last"]),
                ]
            with m.Default():
                m.d.sync += [
                    lut.valid.eq(pool.valid), lut.lanes.eq(pool.result),
                    result["count"].eq(1), result["last"].eq(pool.result_last),
                ]
        result = _delay(m, result, Lut.PIPELINE_CYCLES, "lut")
        m.d.comb += [
            results.valid.eq(lut.out_valid), results.p.data.eq(lut.outs), results.p.count.eq(result["count"]), results.p.last.eq(result["last"]),
        ]


def _assign(m, target, job):
    """The fields that `target` has, from `job`."""
    for name, _ in target.shape():
        m.d.comb += target[name].eq(job[name])


def _delay(m, tags, num_cycles, prefix):
    """`tags`, `num_cycles` later."""
    for cycle in range(num_cycles):
        later = {name: Signal.like(Value.cast(value), name=f"{prefix}_{name}_{cycle}") for name, value in tags.items()}
        m.d.sync += [later[name].eq(value) for name, value in tags.items()]
        tags = later
    return tags
