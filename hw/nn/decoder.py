"""Weight streams: from port beats to tokens, from tokens to weights with their place."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.spec.config import NpuConfig
from convoy.spec.isa import NN

__all__ = ["DECODER_FIELDS", "TapWrite", "TokenBits", "TokenDecoder", "WeightBeat", "WeightPlace"]

DECODER_FIELDS = (
    "num_sb", "num_groups", "num_z", "num_z_last", "kernels_per_z", "kernels_per_z_last", "num_taps", "run_bits", "is_depthwise", "num_vec",
)
"""What the decoder needs of an NN descriptor."""

MAX_RUN_BITS = 5
TAP_BITS = 9
"""Bits of a tap's number."""


def WeightBeat(config: NpuConfig) -> data.StructLayout:
    """A beat of a weight stream; `last` on the stream's last beat."""
    return data.StructLayout({"data": config.port_bits, "last": 1})


class TapWrite(data.Struct):
    """A write of the tap tables of all cores."""

    en: 1
    bank: 1
    tap: TAP_BITS
    offset: 16


def WeightPlace(config: NpuConfig) -> data.StructLayout:
    """A decoded weight: `entry` is the accumulator entry of its kernel's vector 0, `tap_offset` its pixel in the window.

    `is_new_window`: it is the first token of the next window; `is_last`: the group ends with it. A `value` of zero only moves on.
    """
    return data.StructLayout({
        "value": signed(8), "tap_offset": 16, "entry": exact_log2(config.num_acc_entries), "is_new_window": 1, "is_last": 1,
    })


class TokenBits(wiring.Component):
    """Cuts a stream of beats into tokens of `num_bits` (8..13) bits, lowest bit first, up to one per cycle.

    Members
    -------
    beats : In(stream of WeightBeat)
    num_bits : In(4), constant during a stream
    token : Out(13), valid while `is_valid`; `take` consumes it
    flush : In(1), the stream has ended: drop what is left of its last beat
    """

    HALF_BITS = 16

    def __init__(self, config: NpuConfig):
        self._num_halves = config.port_bits // self.HALF_BITS
        super().__init__({
            "beats": In(stream.Signature(WeightBeat(config))), "num_bits": In(4),
            "token": Out(8 + MAX_RUN_BITS), "is_valid": Out(1), "take": In(1), "flush": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        bits = Signal(32)
        level = Signal(range(33))
        index = Signal(range(self._num_halves))
        is_ended = Signal()  # the whole last beat has been taken in
        m.d.comb += [self.token.eq(bits), self.is_valid.eq(level >= self.num_bits)]

        half = Signal(self.HALF_BITS)
        m.d.comb += half.eq(self.beats.payload.data.word_select(index, self.HALF_BITS))
        can_append = Signal()
        m.d.comb += can_append.eq(self.beats.valid & ~is_ended & (level <= 32 - self.HALF_BITS))

        kept = Signal(32)
        kept_level = Signal(range(33))
        m.d.comb += [kept.eq(bits), kept_level.eq(level)]
        with m.If(self.take):
            for width in range(8, 8 + MAX_RUN_BITS + 1):
                with m.If(self.num_bits == width):
                    m.d.comb += kept.eq(bits >> width)
            m.d.comb += kept_level.eq(level - self.num_bits)

        with m.If(self.flush):
            m.d.comb += self.beats.ready.eq(~is_ended)
            m.d.sync += [bits.eq(0), level.eq(0), index.eq(0), is_ended.eq(0)]
        with m.Elif(can_append):
            is_last_half = index == self._num_halves - 1
            m.d.comb += self.beats.ready.eq(is_last_half)
            m.d.sync += [
                bits.eq(kept | (half << kept_level)),
                level.eq(kept_level + self.HALF_BITS),
                index.eq(Mux(is_last_half, 0, index + 1)),
                is_ended.eq(is_last_half & self.beats.payload.last),
            ]
        with m.Else():
            m.d.sync += [bits.eq(kept), level.eq(kept_level)]
        return m


class TokenDecoder(wiring.Component):
    """Follows the position (z, kz, tap) of a weight stream and looks up tap offsets: one token per cycle.

    Members
    -------
    job : In(stream of DECODER_FIELDS)
    beats : In(stream of WeightBeat), the core's weight streams in order
    tap_write : In(TapWrite), fills the tap table; two banks, used by descriptors alternately, starting with bank 0
    weights : Out(stream of WeightPlace)

    Latency: 3 cycles from token to weight. One cycle per group is lost at its end.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__({
            "job": In(stream.Signature(NN.subset(*DECODER_FIELDS))),
            "beats": In(stream.Signature(WeightBeat(config))),
            "tap_write": In(TapWrite),
            "weights": Out(stream.Signature(WeightPlace(config))),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.bits = bits = TokenBits(self._config)
        m.submodules.taps = taps = Memory(shape=unsigned(16), depth=2 << TAP_BITS, init=[])
        tap_write, tap_read = taps.write_port(), taps.read_port()
        wiring.connect(m, wiring.flipped(self.beats), bits.beats)
        m.d.comb += [
            tap_write.en.eq(self.tap_write.en),
            tap_write.addr.eq(Cat(self.tap_write.tap, self.tap_write.bank)),
            tap_write.data.eq(self.tap_write.offset),
        ]

        job = Signal(self.job.payload.shape())
        is_busy, bank = Signal(), Signal(init=1)
        sb, group, z = Signal(16), Signal(16), Signal(16)
        num_z, kernels_per_z = Signal(16), Signal(9)
        kz, tap, first_kernel = Signal(9), Signal(TAP_BITS), Signal(9)
        is_start, is_flush = Signal(), Signal()  # before the first token of a group; after the last one
        is_last_sb = Signal()

        m.d.comb += [self.job.ready.eq(~is_busy), bits.num_bits.eq(8 + job.run_bits), bits.flush.eq(is_flush)]

        def start_sb(fields, next_sb):
            last = next_sb == fields.num_sb - 1
            return [
                is_last_sb.eq(last),
                num_z.eq(Mux(last, fields.num_z_last, fields.num_z)),
                kernels_per_z.eq(Mux(last, fields.kernels_per_z_last, fields.kernels_per_z)),
            ]

        # Stage D: the next position is the last one plus run + 1; at most one carry at each level
        pipeline_ready = Signal()
        step = Signal(MAX_RUN_BITS + 1)
        run = Signal(MAX_RUN_BITS)
        for width in range(1, MAX_RUN_BITS + 1):
            with m.If(job.run_bits == width):
                m.d.comb += run.eq(bits.token[8:8 + width])
        m.d.comb += step.eq(run + 1)
        is_single_tap = Signal()
        m.d.comb += is_single_tap.eq(job.num_taps == 1)
        tap_sum, next_tap, tap_carry = Signal(TAP_BITS + 1), Signal(TAP_BITS), Signal()
        kz_sum, next_kz, kz_carry = Signal(10), Signal(9), Signal()
        m.d.comb += [
            tap_sum.eq(tap + step),
            tap_carry.eq((tap_sum >= job.num_taps) | is_start),
            next_tap.eq(Mux(is_single_tap, 0, Mux(is_start, run, Mux(tap_carry, tap_sum - job.num_taps, tap_sum)))),
            kz_sum.eq(kz + Mux(is_single_tap, step, tap_carry)),
            kz_carry.eq((kz_sum >= kernels_per_z) | is_start),
            next_kz.eq(Mux(is_start, Mux(is_single_tap, run, 0), Mux(kz_carry, kz_sum - kernels_per_z, kz_sum))),
        ]
        next_z, next_first_kernel = Signal(16), Signal(9)
        m.d.comb += [next_z.eq(z), next_first_kernel.eq(first_kernel)]
        with m.If(is_start):
            m.d.comb += [next_z.eq(0), next_first_kernel.eq(0)]
        with m.Elif(kz_carry):
            m.d.comb += [next_z.eq(z + 1), next_first_kernel.eq(first_kernel + Mux(job.is_depthwise, kernels_per_z, 0))]
        is_last = Signal()
        m.d.comb += is_last.eq((next_tap == job.num_taps - 1) & (next_kz == kernels_per_z - 1) & (next_z == num_z - 1))

        take = Signal()
        m.d.comb += [take.eq(is_busy & ~is_flush & bits.is_valid & pipeline_ready), bits.take.eq(take)]
        with m.If(take):
            m.d.sync += [
                tap.eq(next_tap), kz.eq(next_kz), z.eq(next_z), first_kernel.eq(next_first_kernel),
                is_start.eq(is_last), is_flush.eq(is_last),
            ]
        with m.If(is_flush):
            m.d.sync += is_flush.eq(0)
            with m.If(group != job.num_groups - 1):
                m.d.sync += group.eq(group + 1)
            with m.Else():
                m.d.sync += [group.eq(0), sb.eq(sb + 1), start_sb(job, sb + 1)]
                with m.If(is_last_sb):
                    m.d.sync += is_busy.eq(0)
        with m.If(self.job.valid & self.job.ready):
            m.d.sync += [
                job.eq(self.job.payload), is_busy.eq(1), is_start.eq(1), bank.eq(~bank), sb.eq(0), group.eq(0),
                start_sb(self.job.payload, 0),
            ]

        # Stages E (tap lookup) and F (entry = kernel * num_vec), all held while the output is
        placed = Signal(data.StructLayout({
            "value": signed(8), "kernel": 9, "num_vec": 9, "is_new_window": 1, "is_last": 1, "is_valid": 1,
        }))
        looked_up = Signal.like(placed)
        out_valid = Signal()
        m.d.comb += [
            pipeline_ready.eq(self.weights.ready | ~out_valid),
            tap_read.addr.eq(Cat(next_tap, bank)),
            tap_read.en.eq(take),
        ]
        offset = Signal(16)
        with m.If(pipeline_ready):
            m.d.sync += [
                placed.value.eq(bits.token[:8].as_signed()),
                placed.kernel.eq(next_kz + next_first_kernel),
                placed.num_vec.eq(job.num_vec),
                placed.is_new_window.eq(kz_carry),
                placed.is_last.eq(is_last),
                placed.is_valid.eq(take),
                looked_up.eq(placed),
                offset.eq(tap_read.data),
                self.weights.payload.value.eq(looked_up.value),
                self.weights.payload.tap_offset.eq(offset),
                self.weights.payload.entry.eq(_product(looked_up.kernel, looked_up.num_vec)),
                self.weights.payload.is_new_window.eq(looked_up.is_new_window),
                self.weights.payload.is_last.eq(looked_up.is_last),
                out_valid.eq(looked_up.is_valid),
            ]
        m.d.comb += self.weights.valid.eq(out_valid)
        return m


def _product(a, b):
    """a * b in look-up tables: both are small, and the multipliers of the device are for the lanes."""
    terms = [Mux(bit, b << n, 0) for n, bit in enumerate(a)]
    while len(terms) > 1:
        terms = [sum(terms[n:n + 2]) for n in range(0, len(terms), 2)]
    return terms[0]
