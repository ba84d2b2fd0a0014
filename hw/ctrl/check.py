"""Checks descriptors before they are started."""

from dataclasses import dataclass

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.spec.config import NpuConfig
from convoy.spec.csr import Error
from convoy.spec.cycles import CHECK_CYCLES
from convoy.spec.isa import (
    HEADER,
    LUT_BYTES,
    MAX_PRODUCT_SHIFT,
    MAX_PRODUCT_SHIFT_WIDE,
    MAX_RUN_BITS,
    MAX_SRC_PLANE_BYTES,
    MAX_STEP_KERNELS,
    NN,
    NN_AT_LEAST_ONE,
    NN_FEATURES,
    NN_INT8,
    NN_RESIDUAL_AT_LEAST_ONE,
    NN_RESIDUAL_INT8,
    NN_SWAPPED_AT_LEAST_ONE,
    NN_TABLES,
    TABLE_ALIGN_BYTES,
    TP,
    TP_AT_LEAST_ONE,
    TP_B_AT_LEAST_ONE,
    TP_FEATURES,
    TP_INT8,
    TP_POOL_AT_LEAST_ONE,
    TP_TWO_OPERANDS,
    TP_WIDE,
    TP_WINDOWS,
    Opcode,
    Rounding,
    TpOp,
)
from convoy.spec.limits import missing_unit

from .descriptor_fetch import Fetched
from .fault import Fault

__all__ = ["DescriptorCheck"]

FACTOR_BITS = 16


@dataclass
class _Sum:
    """`a * b + c <= limit`, or with `is_equal` `==`; `is_needed` says whether the rule holds for the descriptor at
    hand.

    With `is_more`, it is the product of the rule before that is added, and not `c`.
    """

    is_needed: ValueLike
    a: ValueLike
    b: ValueLike
    c: ValueLike
    limit: ValueLike
    is_equal: bool = False
    is_more: bool = False


def _exceeds(value, limit: int) -> Value:
    """value > limit, without a sum where the limit is a power of two or one less."""
    bits = limit.bit_length()
    if not limit & (limit + 1):
        return value[bits:].any()
    if not limit & (limit - 1):
        return value[bits:].any() | (value[bits - 1] & value[: bits - 1].any())
    return value > limit


def _is_step_too_long(run_bits, num_taps, kernels) -> Value:
    """Whether a step of a token may be longer than `MAX_STEP_KERNELS` or all kernels, which are at least 1; with one
    tap than all kernels.
    """
    steps = [1 << min(bits, MAX_RUN_BITS) for bits in range(1 << len(run_bits))]
    most_taps = Array(  # that are too few, by the kernels that count, the most of them first
        Array((step - 1) // count for step in steps)[run_bits]
        for count in (MAX_STEP_KERNELS, *range(1, MAX_STEP_KERNELS))
    )
    counted = Mux(_exceeds(kernels, MAX_STEP_KERNELS - 1), 0, kernels[: exact_log2(MAX_STEP_KERNELS)])
    is_few = ~num_taps[MAX_RUN_BITS:].any() & (num_taps[:MAX_RUN_BITS] <= most_taps[counted])
    return Mux(num_taps == 1, ~(kernels >> run_bits).any(), is_few)


def _is_beyond_int8(value) -> Value:
    """A signed value that int8 does not hold."""
    sign = value[7:]
    return (sign != 0) & ~sign.all()


def _phases_log2(nn) -> Value:
    return Mux(nn.num_phases[2], 2, Mux(nn.num_phases[1], 1, 0))


class DescriptorCheck(wiring.Component):
    """Lets only descriptors pass that keep the rules of the instruction set which the hardware can check at little
    cost.

    Checked, as `check_nn` and `check_tp` of the golden model do it: opcodes and enumerations; counts that must not be
    0; alignment of tables; memories that would be exceeded (accumulators, windows, stripe, TP buffer); the phases, the
    pads and the pitches of a stripe; run_bits; zero points and clamps; what int16 does not allow; all of a fused pool;
    that nothing is asked of units which the NPU lacks.

    Left to the golden model: what concerns several descriptors, or a descriptor and its tables; that as many bytes are
    read as the stripe holds; that the counts of a swapped descriptor multiply up, and its stripe is one row a plane;
    that `TP.out_run_bytes` divides what is written; that COPY starts at most at 0; that
    nothing is read which was not loaded, and outputs do not overlap. A breach of these ends with an error of the memory
    windows, with the watchdog, or with wrong results inside the windows.

    Throughput: the next descriptor is checked while it stands at `i`, `LATENCY_CYCLES` from its arrival until it is
    offered at `o`.

    Members
    -------
    i, o : streams of `Fetched`
        Before and after; `o` shows what `i` does, once it has been checked.
    fault : Out, stream of `Fault`
        Valid while a descriptor stands at `i` that does not pass.
    is_active : Out(1)
        Low when nothing inside would change: the unit may rest.
    """

    PIPELINE_CYCLES = 3
    LATENCY_CYCLES = CHECK_CYCLES
    NUM_SUMS = LATENCY_CYCLES - PIPELINE_CYCLES
    """From the arrival of a descriptor at `i` to the verdict."""

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "i": In(stream.Signature(Fetched)),
                "o": Out(stream.Signature(Fetched)),
                "fault": Out(stream.Signature(Fault, always_ready=True)),
                "is_active": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        raw = self.i.p.raw
        header = data.View(HEADER.layout, raw[: HEADER.num_bits])
        nn, tp = (data.View(record.layout, raw[: record.num_bits]) for record in (NN, TP))
        is_nn, is_tp = header.opcode == Opcode.NN, header.opcode == Opcode.TP

        # The comparisons of single fields, registered in two steps.
        nn_breaches, tp_breaches, pool_breaches = self._nn_breaches(nn), self._tp_breaches(tp), self._pool_breaches(nn)
        nn_flags, tp_flags, pool_flags = Signal(len(nn_breaches)), Signal(len(tp_breaches)), Signal(len(pool_breaches))
        has_breach, is_unknown, has_wrong_pool = Signal(), Signal(), Signal()
        m.d.sync += [
            nn_flags.eq(Cat(nn_breaches)),
            tp_flags.eq(Cat(tp_breaches)),
            pool_flags.eq(Cat(pool_breaches)),
            has_wrong_pool.eq(is_nn & (nn.pool_size != 0) & pool_flags.any()),
            has_breach.eq((is_nn & nn_flags.any()) | (is_tp & tp_flags.any()) | (header.reserved != 0)),
            is_unknown.eq(~is_nn & ~is_tp),
        ]

        # Products and sums, one after another through one multiplier.
        sums = self._sums(is_nn, is_tp, nn, tp)
        step = Signal(range(self.LATENCY_CYCLES + 1))
        is_checked = Signal()
        m.d.comb += is_checked.eq(step == self.LATENCY_CYCLES)
        has_wrong_sum = self._check_sums(m, step, sums)
        with m.If(~self.i.valid | (self.o.valid & self.o.ready)):
            m.d.sync += step.eq(0)
        with m.Elif(~is_checked):
            m.d.sync += step.eq(step + 1)

        is_malformed = has_breach | has_wrong_sum
        is_bad = is_malformed | is_unknown | has_wrong_pool
        m.d.comb += [
            Value.cast(self.o.p).eq(Value.cast(self.i.p)),
            self.o.valid.eq(self.i.valid & is_checked & ~is_bad),
            self.i.ready.eq(self.o.valid & self.o.ready),
            self.fault.valid.eq(self.i.valid & is_checked & is_bad),
            self.fault.p.code.eq(Mux(is_unknown, Error.OPCODE, Mux(is_malformed, Error.MALFORMED, Error.POOL))),
            self.fault.p.addr.eq(self.i.p.addr),
            self.is_active.eq(Mux(self.i.valid, ~is_checked | self.i.ready, step != 0)),
        ]
        return m

    def _check_sums(self, m, step, sums):
        """Evaluate sum `step` in a pipeline of `PIPELINE_CYCLES`; a bit that is high when one of those so far is
        wrong.
        """
        assert len(sums) == self.NUM_SUMS, f"NUM_SUMS should be {len(sums)}"
        num_bits = max(len(Value.cast(value)) for each in sums for value in (each.c, each.limit))
        kind = data.StructLayout({"addend": num_bits, "limit": num_bits, "is_needed": 1, "is_equal": 1, "is_more": 1})
        a, b = Signal(FACTOR_BITS, reset_less=True), Signal(FACTOR_BITS, reset_less=True)
        product, product_before = Signal(2 * FACTOR_BITS, reset_less=True), Signal(2 * FACTOR_BITS, reset_less=True)
        # A product of more bits than a limit has is beyond any
        is_beyond, before = product[num_bits:].any(), product_before[:num_bits]
        chosen, first, second = Signal(kind), Signal(kind, reset_less=True), Signal(kind, reset_less=True)

        m.d.sync += [product.eq(a * b), product_before.eq(product), first.eq(chosen), second.eq(first)]
        with m.Switch(step):
            for number, each in enumerate(sums):
                with m.Case(number):
                    m.d.sync += [a.eq(each.a), b.eq(each.b)]
                    m.d.comb += [
                        chosen.addend.eq(each.c),
                        chosen.limit.eq(each.limit),
                        chosen.is_needed.eq(each.is_needed),
                        chosen.is_equal.eq(each.is_equal),
                        chosen.is_more.eq(each.is_more),
                    ]
        summed, total, is_wrong = Signal(kind, reset_less=True), Signal(num_bits + 1, reset_less=True), Signal()
        was_beyond, total_beyond = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += [
            was_beyond.eq(is_beyond),
            total_beyond.eq(is_beyond | (second.is_more & was_beyond)),
            total.eq(product[:num_bits] + Mux(second.is_more, before, second.addend)),
            summed.eq(second),
        ]
        with m.If(step < self.PIPELINE_CYCLES):
            m.d.sync += is_wrong.eq(0)
        with m.Elif(
            summed.is_needed & (total_beyond | (total > summed.limit) | (summed.is_equal & (total != summed.limit)))
        ):
            m.d.sync += is_wrong.eq(1)
        return is_wrong

    def _sums(self, is_nn, is_tp, nn, tp):
        config = self._config
        is_depthwise = is_nn & nn.is_depthwise
        half_bytes = config.tp_buffer_bytes // 2
        phases_log2 = _phases_log2(nn)
        window_planes = nn.num_slots << phases_log2
        return [
            _Sum(is_nn, nn.num_vec << nn.is_wide, nn.num_kernels, 0, config.num_acc_entries),
            _Sum(is_nn, nn.num_vec << nn.is_wide, nn.num_kernels_last, 0, config.num_acc_entries),
            _Sum(is_nn, window_planes << nn.is_wide, nn.seg_words, 0, config.window_words),
            _Sum(
                is_nn,
                (nn.tile_rows - 1)[:FACTOR_BITS],
                nn.pitch_row,
                nn.tile_cols,
                nn.phase_words << exact_log2(config.num_lanes),
            ),
            _Sum(
                is_nn,
                (Mux(nn.ring_channels == 0, nn.num_ic, nn.ring_channels) - 1)[:FACTOR_BITS],
                nn.channel_words,
                (nn.phase_words << phases_log2) + Mux(nn.ring_channels == 0, nn.stripe_word, 0),
                config.stripe_words,
            ),
            _Sum(is_depthwise, nn.num_z, nn.kernels_per_z, 0, nn.num_kernels, is_equal=True),
            _Sum(is_depthwise, nn.num_z_last, nn.kernels_per_z_last, 0, nn.num_kernels_last, is_equal=True),
            _Sum(is_tp, tp.a_run_bytes[:FACTOR_BITS], tp.num_a_runs, 0, half_bytes),
            _Sum(
                is_tp & (tp.b_run_bytes != 0), tp.b_run_bytes[:FACTOR_BITS], tp.num_b_runs, 0, half_bytes, is_more=True
            ),
        ]

    def _nn_breaches(self, d):
        """Bits that are high when a rule of an `NN` descriptor is broken."""
        config = self._config
        phase_count = sum(d.phase_mask)
        rows = (d.pad_top + d.tile_ih + d.stride_h_log2) >> d.stride_h_log2
        cols = (d.pad_left + d.tile_iw + d.stride_w_log2) >> d.stride_w_log2
        pitch = (config.num_lanes >> d.split_log2) + (d.split_words << exact_log2(config.num_lanes))
        plane_words = d.phase_words << _phases_log2(d)
        breaches = [d[name] == 0 for name in NN_AT_LEAST_ONE]
        breaches += [d[name] for name in config.absent(NN_FEATURES) if name != "pool_size"]
        breaches += [d[name][: exact_log2(TABLE_ALIGN_BYTES)] != 0 for name in NN_TABLES]
        breaches += [_is_beyond_int8(d[name]) for name in NN_INT8]
        breaches += [d.has_residual & (d[name] == 0) for name in NN_RESIDUAL_AT_LEAST_ONE]
        breaches += [d.has_residual & _is_beyond_int8(d[name]) for name in NN_RESIDUAL_INT8]
        breaches += [
            ~d.stride_h_log2 & (d.phase_mask[2:] != 0),
            ~d.stride_w_log2 & (d.phase_mask[1] | d.phase_mask[3]),
            (phase_count != d.num_phases) | (phase_count == 3),
            d.tile_rows < rows,
            d.tile_cols < cols,
            d.num_vec_last > d.num_vec,
            d.run_bits > MAX_RUN_BITS,
            d.split_log2 > 2,
            (d.split_log2 != 0) & (d.pitch_row != pitch),
            d.is_wide & (d.rounding == Rounding.FLOAT),
            d.act_min > d.act_max,
            d.has_lut & (d.lut_addr[: exact_log2(LUT_BYTES)] != 0),
            d.is_wide & (d.has_lut | d.has_residual | (d.zero_point_in != 0) | d.num_ic[0]),
            (d.channel_words < plane_words) | (d.is_wide & (d.channel_words != plane_words)),
            ~d.is_wide & (_is_beyond_int8(d.act_min) | _is_beyond_int8(d.act_max)),
            d.has_residual & (d.res_act_min > d.res_act_max),
            d.tile_ow > d.drain_pitch,
            d.is_flat & ((d.split_log2 != 0) | (d.num_vec_x != d.num_vec)),
        ]
        breaches += [d.is_swapped & (d[name] == 0) for name in NN_SWAPPED_AT_LEAST_ONE]
        is_single = (d.num_sb == 1) & (d.num_groups == 1) & ~d.is_depthwise & ~d.is_wide
        breaches += [
            (d.is_swapped | (d.ring_channels != 0)) & ~is_single,
            d.is_swapped & (_exceeds(d.src_plane_bytes, MAX_SRC_PLANE_BYTES)),
            d.is_swapped & (d.tile_iw > d.num_vec << exact_log2(config.num_lanes)),
            d.is_swapped & ((d.num_taps != 1) | ~d.is_flat | (d.run_bits != 0) | (d.pool_size != 0)),
        ]
        for suffix in ("", "_last"):
            kernels, per_z, num_z = d[f"num_kernels{suffix}"], d[f"kernels_per_z{suffix}"], d[f"num_z{suffix}"]
            breaches += [
                ~d.is_depthwise & ((kernels != per_z) | (num_z << d.is_wide != d.num_ic)),
                _is_step_too_long(d.run_bits, d.num_taps, per_z),
            ]
        return breaches

    def _pool_breaches(self, d):
        """The same for the fused pool of an `NN` descriptor that has one; `spec.limits` explains the first rules."""
        config = self._config
        if not config.has_fused_pool:
            return [Const(1)]
        is_three, is_single, is_part = d.pool_size == 3, d.num_groups == 1, d.pool_continues | d.pool_is_open
        keeps_rows = is_part | (~is_single & (is_three | d.pool_rows[0]))
        max_kernels, row_bytes = config.pool_channels // config.num_cores, d.tile_ow << d.is_wide
        is_odd = (~d.num_groups[0] & d.pool_rows[0]) ^ d.pool_rows_last[0]  # rows of all groups
        return [
            d.pool_size == 1,
            is_three != d.tile_ow[0],
            (is_three & ~d.pool_is_open) != is_odd,
            is_three & ((d.tile_ow == 1) | _exceeds(row_bytes, config.pool_line_bytes - 1)),
            is_three & is_single & ~d.pool_continues & (d.pool_rows_last == 1),
            ~is_three & is_part,
            ~is_single & (d.pool_rows == 0),
            d.pool_rows_last == 0,
            d.has_residual,
            keeps_rows & (_exceeds(d.num_kernels, max_kernels) | _exceeds(d.num_kernels_last, max_kernels)),
            keeps_rows & _exceeds(row_bytes, config.pool_line_bytes),
            _exceeds(row_bytes, config.pool_max_row_bytes),
        ]

    def _tp_breaches(self, d):
        """The same for a `TP` descriptor."""
        has_b = Cat(d.op == op for op in TP_TWO_OPERANDS).any()
        has_windows = Cat(d.op == op for op in TP_WINDOWS).any()
        can_be_wide = Cat(d.op == op for op in TP_WIDE).any()
        limit = self._config.tp_buffer_bytes // 2
        return [
            *(d.op == op for op in TpOp if missing_unit(op, self._config)),
            *(d[name] == 0 for name in TP_AT_LEAST_ONE),
            *(d[name] for name in self._config.absent(TP_FEATURES)),
            *(has_b & (d[name] == 0) for name in TP_B_AT_LEAST_ONE),
            *(has_windows & (d[name] == 0) for name in TP_POOL_AT_LEAST_ONE),
            *(_is_beyond_int8(d[name]) for name in TP_INT8),
            d.op > max(TpOp).value,
            ~has_b & (d.b_run_bytes != 0),
            (d.op == TpOp.BILINEAR) & ((d.kernel_h != 2) | (d.kernel_w != 2)),
            (d.op == TpOp.MUL) & ((d.b_shift > MAX_PRODUCT_SHIFT) | (d.is_wide & (d.b_shift > MAX_PRODUCT_SHIFT_WIDE))),
            _exceeds(d.a_run_bytes, limit),
            _exceeds(d.b_run_bytes, limit),
            (d.op != TpOp.COPY) & (d.act_min > d.act_max),
            ~d.is_wide
            & (d.is_high | ((d.op != TpOp.COPY) & (_is_beyond_int8(d.act_min) | _is_beyond_int8(d.act_max)))),
            d.is_wide
            & (~can_be_wide | d.has_lut | (d.a_zero_point != 0) | (d.b_zero_point != 0) | (d.zero_point_out != 0)),
            d.has_lut & (d.lut_addr[: exact_log2(LUT_BYTES)] != 0),
        ]
