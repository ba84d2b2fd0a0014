"""Turns the bytes in the buffer into the bytes to write."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Module, Mux, Signal, Value, ValueLike, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.bus.port import ReadPort
from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.queue import Queue
from convoy.hw.lib.stage import Stage
from convoy.hw.post.add import ADD_FIELDS
from convoy.hw.post.lut import LUT_FIELDS, Lut
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import EXTREME_CYCLES, NUM_TP_LANES
from convoy.spec.isa import TP, TP_TWO_OPERANDS, TP_WINDOWS, TpOp
from convoy.spec.limits import missing_unit

from .blend import Blend, BlendWeights
from .buffer import TpBuffer
from .math_lane import MathLane
from .pool import Average, PoolReduce
from .walk import GroupWalk, WindowWalk, group_layout, is_pool, pair_mode, pool_mode

__all__ = ["Process", "result_layout"]

_JOB = TP.subset(
    "op",
    "buffer_half",
    "num_0",
    "num_1",
    "num_2",
    "step_0",
    "step_1",
    "step_2",
    "b_step_0",
    "b_step_1",
    "b_step_2",
    "kernel_h",
    "kernel_w",
    "stride_h",
    "stride_w",
    "stride_h_frac",
    "stride_w_frac",
    "start_y",
    "start_x",
    "start_y_frac",
    "start_x_frac",
    "tile_ih",
    "tile_iw",
    "is_half_up",
    "is_wide",
    "is_high",
    "a_high_bytes",
    "b_high_bytes",
    *ADD_FIELDS,
    *LUT_FIELDS,
)


def result_layout(num_lanes: int) -> data.StructLayout:
    """The low `count` bytes of `data` are the next output bytes; `last` of the descriptor."""
    return data.StructLayout({"data": 8 * num_lanes, "count": range(num_lanes + 1), "last": 1})


class Process(wiring.Component):
    """Walks through a half of the buffer and computes.

    Groups are issued only when the result queue has room for them, so nothing behind the walk ever stalls. The next
    descriptor starts when the pipeline is empty, and when its lookup table, if it has one, has been fetched. Windows,
    and copies with a step of 1 or 0, then follow the load: a group is issued when its bytes are in the buffer. Others
    wait until all bytes are.

    Latency: about 17 cycles from `loaded` to the first result of operations with two operands, `ADD`, `SUB` and `MUL`
    `ARITHMETIC_CYCLES` more; 10 of others, `BILINEAR` `SCALE_CYCLES + BLEND_CYCLES` more, `MEAN` `MEAN_CYCLES`.
    Throughput: pools of int8: `2 * num_lanes` pixels of a window row, or `num_lanes` of each of two rows, per cycle;
    of int16, and `BILINEAR`: `num_lanes` pixels of a row (averages of int16: at least the cycles of `Average` per
    window); others: a group of `num_lanes` elements of a row per cycle, of two operands `tp_lanes` (one element if a
    step puts lanes into one bank, in `COPY` two if it puts all into one; of int16: two cycles).

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
    num_there : In
        Bytes of the next one after those that were taken from `loaded` which are in the buffer; anything while
        `loaded` has that one.
    freed : Out(1)
        Strobe when the descriptor's half is no longer read.
    read_addr, read_step, read_data
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
        super().__init__(
            {
                "job": In(stream.Signature(_JOB)),
                "loaded": In(stream.Signature(addr_bits)),
                "num_there": In(addr_bits),
                "freed": Out(1),
                "read_addr": Out(data.ArrayLayout(addr_bits, 2)),
                "read_step": Out(data.ArrayLayout(addr_bits - 1, 2)),
                "read_data": In(data.ArrayLayout(data.ArrayLayout(signed(8), num_lanes), 2)),
                "results": Out(stream.Signature(result_layout(num_lanes))),
                "read_lut": Out(ReadPort(config)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, half_bits = self._num_lanes, exact_log2(self._config.tp_buffer_bytes) - 1
        windows = tuple(filter(self._has, TP_WINDOWS))
        m.submodules.window_walk = window_walk = WindowWalk(half_bits, windows=windows)
        m.submodules.group_walk = group_walk = GroupWalk(
            half_bits,
            num_lanes=lanes,
            num_math_lanes=self._config.tp_lanes,
            num_banks=self._config.port_bytes,
            windows=windows,
        )
        # A group that waits does not hold the walk in the same cycle.
        m.submodules.group_queue = group_queue = Queue(group_layout(half_bits, lanes), 2)
        m.submodules.queue = queue = Queue(result_layout(lanes), self.QUEUE_DEPTH)
        wiring.connect(m, window_walk.windows, group_walk.windows)
        m.submodules.next_group = next_group = Stage(group_layout(half_bits, lanes))
        wiring.connect(m, group_walk.groups, group_queue.i)
        wiring.connect(m, group_queue.o, next_group.i)
        m.submodules.lut = lut = Lut(self._config, lanes)
        wiring.connect(m, queue.o, wiring.flipped(self.results))
        wiring.connect(m, lut.port, wiring.flipped(self.read_lut))

        job, b_offset, b_high_offset = Signal(_JOB, reset_less=True), Signal(half_bits), Signal(half_bits)
        # What a job is, a cycle after it: the walk does not begin before that.
        has_b, two_rows = Signal(), Signal()
        is_pair, is_wide_pool = Signal(), Signal()  # int16: low and high bytes in two cycles, or by both gathers
        halves, pairs = Signal(), Signal()  # of a copy both gathers read the lanes
        has_operands = Cat(job.op == op for op in TP_TWO_OPERANDS).any()
        step = job.step_2[:half_bits]
        m.d.sync += [
            has_b.eq(has_operands),
            two_rows.eq(pool_mode(job, lanes, windows)[0]),
            is_pair.eq(job.is_wide & has_operands),
            is_wide_pool.eq(job.is_wide & ~has_operands),
        ]
        for signal, mode in zip((halves, pairs), pair_mode(step, lanes, self._config.port_bytes), strict=True):
            m.d.sync += signal.eq((job.op == TpOp.COPY) & mode)
        pair_offset = Mux(halves, step << exact_log2(lanes // 2), step)
        first_b = Mux(has_b, self.loaded.p, lanes)
        for mode, offset in ((halves | pairs, pair_offset), (is_wide_pool, job.a_high_bytes), (two_rows, job.tile_iw)):
            first_b = Mux(mode, offset, first_b)
        is_loaded, is_end = Signal(), Signal()
        m.d.sync += is_loaded.eq(is_loaded | (self.loaded.valid & self.loaded.ready))
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(1)
                m.d.sync += [job.eq(self.job.p), lut.start.eq(self.job.valid)]
                with m.If(self.job.valid):
                    m.next = "WAIT"
            with m.State("WAIT"):
                can_start = lut.is_ready & ~lut.start & (self.loaded.valid | ~has_b)
                m.d.comb += [self.loaded.ready.eq(can_start & has_b), window_walk.start.eq(can_start)]
                m.d.sync += [
                    b_offset.eq(truncate(first_b, b_offset.shape())),
                    b_high_offset.eq(truncate(self.loaded.p + job.b_high_bytes, b_high_offset.shape())),
                    lut.start.eq(0),
                ]
                with m.If(can_start):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.loaded.ready.eq(~is_loaded)
                with m.If(is_end):
                    m.d.comb += self.freed.eq(1)
                    m.d.sync += is_loaded.eq(0)
                    m.next = "IDLE"
        _assign(m, window_walk.job, job)
        _assign(m, group_walk.job, job)
        _assign(m, lut.job, job)

        groups = next_group.o
        is_there = self._is_there(m, next_group, group_walk.steps[0], b_offset, is_loaded, has_b=has_b)
        is_issued, is_high = self._issue(m, job, groups, is_there, is_pair, windows)
        m.d.comb += [self.read_step.eq(group_walk.steps), group_walk.place_in.eq(window_walk.place)]
        a_addr, b_addr = Signal(half_bits), Signal(half_bits)
        m.d.comb += [
            a_addr.eq(groups.p.addr + Mux(is_high, job.a_high_bytes[:half_bits], 0)),
            b_addr.eq(Mux(has_b, groups.p.addr_b, groups.p.addr) + Mux(is_high, b_high_offset, b_offset)),
        ]
        m.d.sync += [
            self.read_addr[0].eq(Cat(a_addr, job.buffer_half)),
            self.read_addr[1].eq(Cat(b_addr, job.buffer_half)),
        ]
        is_low = is_pair & ~is_high
        tags = {
            "en": is_issued & ~is_low,
            "is_low": is_low,
            "count": groups.p.count,
            "count_b": groups.p.count_b,
            "fill": groups.p.is_fill,
            "window_last": groups.p.window_last,
            "last": groups.p.last,
        }
        tags = _delay(m, tags, 1 + TpBuffer.GATHER_CYCLES, "gather")
        weights = self._weights(m, groups.p.is_row_0, groups.p.place) if self._has(TpOp.BILINEAR) else None
        half = lanes // 2
        read_a, read_b = self.read_data
        copied = Mux(
            halves,
            Cat(*[read_a[lane] for lane in range(half)], *[read_b[lane] for lane in range(half)]),
            Mux(pairs, Cat(read_a[0], read_b[0]), Value.cast(read_a)),
        )
        self._compute(m, job, tags, weights, copied, lut, queue.i)
        m.d.comb += is_end.eq(queue.i.valid & queue.i.p.last)
        return m

    def _is_there(self, m, stage, step, b_offset, is_loaded, *, has_b):
        """Are the bytes of the group that leaves `stage` in the buffer? While they are loaded this is a cycle late.
        With the last group all bytes are, so that no load goes on behind it. The second gather's bytes, if there are
        any, lie `b_offset` behind those of the first. Steps are 1 or 0 where groups follow the load.
        """
        in_order, limit = Signal(), Signal(signed(len(self.num_there) + 2))
        m.d.sync += [in_order.eq(~step[1:].any() & ~has_b), limit.eq(self.num_there - b_offset - self._num_lanes)]
        may_go = [
            ~group.last & (group.is_fill | (in_order & (group.addr <= limit))) for group in (stage.i.p, stage.o.p)
        ]
        is_next_there = Signal()
        m.d.sync += is_next_there.eq(Mux(stage.i.ready, *may_go))
        return is_loaded | self.loaded.valid | is_next_there

    def _issue(self, m, job, groups, is_there, is_pair, windows):
        """Let a group go when it `is_there` and its result will find room, and windows of int16 to be averaged not
        faster than the divider; those that `is_pair` twice.

        Whether a group goes, and whether for the second time.
        """
        room = Signal(range(self.QUEUE_DEPTH + 1), init=self.QUEUE_DEPTH)
        pause = Signal(range(Average.WIDE_CYCLES))
        is_high = Signal()
        is_spaced, is_reduced, can_issue, is_issued = Signal(), Signal(), Signal(), Signal()
        is_taken, is_given = Signal(), Signal()  # of the room, and back
        m.d.sync += [
            is_spaced.eq((job.op == TpOp.AVG_POOL) & job.is_wide if self._has(TpOp.AVG_POOL) else 0),
            is_reduced.eq(is_pool(job.op, windows)),
        ]
        m.d.comb += [
            can_issue.eq(is_there & (room != 0) & ~(is_spaced & groups.p.window_last & (pause != 0))),
            groups.ready.eq(can_issue & (is_high | ~is_pair)),
            is_issued.eq(groups.valid & can_issue),
            is_taken.eq(is_issued & groups.ready & (groups.p.window_last | ~is_reduced)),
            is_given.eq(self.results.valid & self.results.ready),
        ]
        with m.If(is_issued):
            m.d.sync += is_high.eq(is_pair & ~is_high)
        with m.If(is_taken & ~is_given):
            m.d.sync += room.eq(room - 1)
        with m.Elif(is_given & ~is_taken):
            m.d.sync += room.eq(room + 1)
        with m.If(is_issued & groups.p.window_last):
            m.d.sync += pause.eq(Average.WIDE_CYCLES - 1)
        with m.Elif(pause != 0):
            m.d.sync += pause.eq(pause - 1)
        return is_issued, is_high

    def _weights(self, m, is_row_0, place):
        """Weights of the first two bytes of the group that was issued, when the bytes have been read."""
        m.submodules.blend_weights = weights = BlendWeights()
        issued = _delay(m, {"is_row_0": is_row_0, "place": place}, 1, "issued")
        m.d.comb += [weights.is_row_0.eq(issued["is_row_0"]), weights.place.eq(issued["place"])]
        return _delay(
            m,
            {"a": weights.weight_0, "b": weights.weight_1},
            TpBuffer.GATHER_CYCLES - weights.PIPELINE_CYCLES,
            "weight",
        )

    def _compute(self, m, job, tags, weights, copied, lut, results):
        """The bytes that were read or the fill, or what is made of them, looked up if need be, into the queue."""
        count_b, is_low = tags.pop("count_b"), tags.pop("is_low")
        pool = self._pool(m, job, tags, count_b) if self._has(TpOp.MAX_POOL) else None
        makers = self._arithmetic(m, job, tags, is_low, weights, pool) if self._has(TpOp.ADD) else []
        if pool is not None:
            pooled = Mux(job.is_high, pool.result[8:], pool.result[:8])
            makers.append(_Maker((TpOp.MAX_POOL, TpOp.AVG_POOL), pool.valid, pooled, 1, pool.result_last))
        filled = Mux(tags["fill"], job.zero_point_out[:8].replicate(self._num_lanes), copied)
        makers.append(_Maker((TpOp.COPY,), tags["en"], filled, tags["count"], tags["last"]))

        result = {"count": Signal.like(results.p.count), "last": Signal()}
        with m.Switch(job.op):
            for maker in makers:
                with m.Case(*maker.ops):
                    m.d.sync += [
                        lut.valid.eq(maker.valid),
                        lut.lanes.eq(maker.bytes),
                        result["count"].eq(maker.count),
                        result["last"].eq(maker.last),
                    ]
        result = _delay(m, result, Lut.PIPELINE_CYCLES, "lut")
        m.d.comb += [
            results.valid.eq(lut.out_valid),
            results.p.data.eq(lut.outs),
            results.p.count.eq(result["count"]),
            results.p.last.eq(result["last"]),
        ]

    def _has(self, op: TpOp) -> bool:
        return missing_unit(op, self._config) is None

    def _arithmetic(self, m, job, tags, is_low, weights, pool):
        """Operations on two operands, with low bytes of int16 that are kept till the high ones are there, of int8
        zero; by the first lane `BILINEAR` and `MEAN`.
        """
        read_a, read_b = self.read_data
        num_lanes = self._config.tp_lanes
        low_a, low_b = (
            [Signal(8, reset_less=True, name=f"low_{name}_{lane}") for lane in range(num_lanes)] for name in "ab"
        )
        with m.If(~job.is_wide):
            m.d.sync += Cat(low_a, low_b).eq(0)
        with m.Elif(is_low):
            m.d.sync += [
                low.eq(read[lane]) for lows, read in ((low_a, read_a), (low_b, read_b)) for lane, low in enumerate(lows)
            ]
        is_minimum, is_weighted, is_mean, is_math, gives_low = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            gives_low.eq(job.is_wide & ~job.is_high),
            is_minimum.eq(job.op == TpOp.MINIMUM),
            is_weighted.eq(job.op == TpOp.BILINEAR),
            is_mean.eq(job.op == TpOp.MEAN),
            is_math.eq((job.op == TpOp.ADD) | (job.op == TpOp.SUB) | (job.op == TpOp.MUL)),
        ]
        maths, extremes = [], []  # extremes: a cycle after the elements, which are compared first
        for lane in range(num_lanes):
            a, b = read_a[lane], read_b[lane]
            m.submodules[f"math{lane}"] = math = MathLane(has_windows=lane == 0)
            _assign(m, math.job, job)
            m.d.comb += [math.a.eq(Cat(low_a[lane], a)), math.b.eq(Cat(low_b[lane], b))]
            maths.append(math)
            is_b = Signal(name=f"is_b_{lane}")
            byte_a, byte_b = (Signal(8, reset_less=True, name=f"byte_{name}_{lane}") for name in "ab")
            m.d.sync += [
                is_b.eq((math.a < math.b) ^ is_minimum),
                byte_a.eq(Mux(gives_low, low_a[lane], a)),
                byte_b.eq(Mux(gives_low, low_b[lane], b)),
            ]
            extremes.append(Mux(is_b, byte_b, byte_a))
        extreme_tags = _delay(m, tags, EXTREME_CYCLES, "extreme")
        sum_tags = _delay(m, tags | {"en": tags["en"] & is_math}, MathLane.PIPELINE_CYCLES, "math")
        bytes_out = Cat(Mux(job.is_high, math.y[8:], math.y[:8]) for math in maths)
        makers = [
            _Maker(
                (TpOp.MAXIMUM, TpOp.MINIMUM),
                extreme_tags["en"],
                Cat(extremes),
                extreme_tags["count"],
                extreme_tags["last"],
            ),
            _Maker((TpOp.ADD, TpOp.SUB, TpOp.MUL), sum_tags["en"], bytes_out, sum_tags["count"], sum_tags["last"]),
        ]
        if self._has(TpOp.MEAN):
            m.d.comb += maths[0].total.eq(pool.total)
            total_tags = {"en": pool.total_en & is_mean, "last": pool.total_last}
            mean_tags = _delay(m, total_tags, MathLane.TOTAL_CYCLES, "mean")
            makers.append(_Maker((TpOp.MEAN,), mean_tags["en"], bytes_out, 1, mean_tags["last"]))
        if self._has(TpOp.BILINEAR):
            m.submodules.blend = blend = Blend()
            m.d.comb += [
                maths[0].pixel_b.eq(read_a[1]),
                maths[0].weight_a.eq(weights["a"]),
                maths[0].weight_b.eq(weights["b"]),
            ]
            row_tags = _delay(m, tags | {"en": tags["en"] & is_weighted}, MathLane.ROW_CYCLES, "row")
            m.d.comb += [
                blend.en.eq(row_tags["en"]),
                blend.row.eq(maths[0].row),
                blend.window_last.eq(row_tags["window_last"]),
                blend.last.eq(row_tags["last"]),
            ]
            makers.append(_Maker((TpOp.BILINEAR,), blend.valid, blend.result, 1, blend.result_last))
        return makers

    def _pool(self, m, job, tags, count_b):
        m.submodules.pool = pool = PoolReduce(num_lanes=self._num_lanes)
        _assign(m, pool.job, job)
        has_pool = Signal()
        m.d.sync += has_pool.eq(is_pool(job.op) & (job.op != TpOp.BILINEAR))
        m.d.comb += [
            pool.bytes.eq(self.read_data),
            pool.en.eq(tags["en"] & has_pool),
            pool.counts.eq(Cat(tags["count"], count_b)),
            pool.window_last.eq(tags["window_last"]),
            pool.last.eq(tags["last"]),
        ]
        return pool


@dataclass(frozen=True)
class _Maker:
    """Where the bytes of a result of some operations come from."""

    ops: tuple[TpOp, ...]
    valid: Value
    bytes: Value
    count: ValueLike
    last: Value


def _assign(m, target, job):
    """The fields that `target` has, from `job`."""
    for name, _ in target.shape():
        m.d.comb += target[name].eq(job[name])


def _delay(m, tags, num_cycles, prefix):
    """`tags`, `num_cycles` later."""
    return {name: delay(m, value, num_cycles, name=f"{prefix}_{name}") for name, value in tags.items()}
