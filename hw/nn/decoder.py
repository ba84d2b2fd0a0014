"""Weight streams: from port beats to tokens, from tokens to weights with their place."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.multiple import multiple
from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.isa import MAX_RUN_BITS, MAX_STEP_KERNELS, NN

__all__ = ["DECODER_FIELDS", "WEIGHT_BITS", "TapWrite", "TokenBits", "TokenDecoder", "WeightBeat", "WeightPlace"]

DECODER_FIELDS = (
    "num_sb",
    "num_groups",
    "num_z",
    "num_z_last",
    "kernels_per_z",
    "kernels_per_z_last",
    "num_taps",
    "run_bits",
    "wgt_zero_point",
    "is_wide",
    "is_depthwise",
    "num_vec",
)
"""What the decoder needs of an NN descriptor."""

WEIGHT_BITS = 9
"""Bits of a weight, signed: what a byte holds, less the zero point."""
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
    """A decoded weight: `entry` is the accumulator entry of its kernel's vector 0, `tap_offset` its pixel in the
    window.

    `is_new_window`: it is the first token of the next window; `is_last`: the group ends with it. A `value` of zero
    comes only with one of these.
    """
    return data.StructLayout(
        {
            "value": signed(WEIGHT_BITS),
            "tap_offset": 16,
            "entry": exact_log2(config.num_acc_entries),
            "is_new_window": 1,
            "is_last": 1,
        }
    )


class Token(data.Struct):
    """A token with the division of its step, which is run + 1, by the taps of a kernel.

    With one tap a kernel `kernels` is the step, `taps` 0.
    """

    value: 8
    """The byte as it is stored."""
    kernels: MAX_RUN_BITS + 1
    """step div num_taps."""
    next_kernels: range(MAX_STEP_KERNELS + 2)
    """One more; not used with one tap."""
    taps: MAX_RUN_BITS + 1
    """step mod num_taps."""


class StepDivider(wiring.Component):
    """Divides the step of a token, run + 1, by the taps of a kernel.

    Combinational; multiples of the taps are in registers.

    Members
    -------
    num_taps : In(TAP_BITS), constant from the cycle before the first `run` on
    run : In(MAX_RUN_BITS), less than `MAX_STEP_KERNELS` * num_taps if that is not 1
    kernels, next_kernels, taps : as in `Token`
    """

    def __init__(self):
        super().__init__(
            {
                "num_taps": In(TAP_BITS),
                "run": In(MAX_RUN_BITS),
                "kernels": Out(MAX_RUN_BITS + 1),
                "next_kernels": Out(range(MAX_STEP_KERNELS + 2)),
                "taps": Out(MAX_RUN_BITS + 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # The least run whose step covers so many kernels; one that is never reached where there is none
        never = 1 << MAX_RUN_BITS
        is_single = Signal()
        least_runs = [
            Signal(MAX_RUN_BITS + 1, name=f"least_run_{count}", init=never) for count in range(1, MAX_STEP_KERNELS + 1)
        ]
        m.d.sync += is_single.eq(self.num_taps == 1)
        for count, least_run in enumerate(least_runs, 1):
            step = multiple(self.num_taps, count)
            m.d.sync += least_run.eq(Mux((self.num_taps == 1) | (step > never), never, step - 1))

        quotient, below, rest = (
            Signal(range(MAX_STEP_KERNELS + 1)),
            Signal(signed(MAX_RUN_BITS + 2), init=-1),
            Signal(MAX_RUN_BITS + 1),
        )
        m.d.comb += [below.eq(-1), self.next_kernels.eq(1)]
        for count, least_run in enumerate(least_runs, 1):
            with m.If(self.run >= least_run):
                m.d.comb += [quotient.eq(count), self.next_kernels.eq(count + 1), below.eq(least_run)]
        m.d.comb += [
            rest.eq(self.run - below),
            self.kernels.eq(Mux(is_single, rest, quotient)),
            self.taps.eq(Mux(is_single, 0, rest)),
        ]
        return m


class TokenBits(wiring.Component):
    """Cuts a stream of beats into tokens, lowest bit first: one per cycle.

    Members
    -------
    beats : In(stream of WeightBeat)
    en : In(1), cut tokens; `run_bits` : In(3), `num_taps` : In(TAP_BITS), constant from the cycle before `en` until
        `flush`
    tokens : Out(stream of Token), registered
    flush : In(1), the stream has ended: drop what is left of its last beat
    is_active : Out(1), low when nothing inside would change
    """

    HALF_BITS = cycles.TOKEN_PART_BITS

    def __init__(self, config: NpuConfig):
        self._num_halves = config.port_bits // self.HALF_BITS
        super().__init__(
            {
                "beats": In(stream.Signature(WeightBeat(config))),
                "en": In(1),
                "run_bits": In(3),
                "num_taps": In(TAP_BITS),
                "flush": In(1),
                "tokens": Out(stream.Signature(Token)),
                "is_active": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.divider = divider = StepDivider()
        bits = Signal(cycles.TOKEN_BUFFER_BITS)
        level = Signal(range(cycles.TOKEN_BUFFER_BITS + 1))
        index = Signal(range(self._num_halves))
        is_ended = Signal()  # the whole last beat has been taken in
        num_bits, run = Signal(4), Signal(MAX_RUN_BITS)
        m.d.comb += num_bits.eq(8 + self.run_bits)

        half, appended = Signal(self.HALF_BITS), Signal(cycles.TOKEN_BUFFER_BITS)
        can_append = Signal()
        m.d.comb += [
            half.eq(self.beats.payload.data.word_select(index, self.HALF_BITS)),
            can_append.eq(self.beats.valid & ~is_ended & (level <= cycles.TOKEN_BUFFER_BITS - self.HALF_BITS)),
        ]
        # A half goes behind the bits while a token is cut off in front
        take = Signal()
        spare = Signal(
            Token, reset_less=True
        )  # a token cut when the one before was not taken: `ready` reaches no further
        has_spare = Signal()
        m.d.comb += [
            take.eq(self.en & (level >= num_bits) & ~has_spare),
            appended.eq(bits | Mux(can_append, half << level[: exact_log2(self.HALF_BITS) + 1], 0)),
        ]
        m.d.sync += [bits.eq(appended), level.eq(level + Mux(can_append, self.HALF_BITS, 0) - Mux(take, num_bits, 0))]
        for width in range(MAX_RUN_BITS + 1):
            with m.If(self.run_bits == width):
                m.d.comb += run.eq(bits[8 : 8 + width])
                with m.If(take):
                    m.d.sync += bits.eq(appended >> (8 + width))

        cut = Signal(Token)
        m.d.comb += [
            divider.num_taps.eq(self.num_taps),
            divider.run.eq(run),
            cut.value.eq(bits[:8]),
            cut.kernels.eq(divider.kernels),
            cut.next_kernels.eq(divider.next_kernels),
            cut.taps.eq(divider.taps),
        ]
        with m.If(self.tokens.ready | ~self.tokens.valid):
            m.d.sync += [
                self.tokens.valid.eq(take | has_spare),
                self.tokens.payload.eq(Mux(has_spare, spare, cut)),
                has_spare.eq(0),
            ]
        with m.Elif(take):
            m.d.sync += has_spare.eq(1)
        with m.If(~has_spare):
            m.d.sync += spare.eq(cut)

        with m.If(self.flush):
            m.d.comb += self.beats.ready.eq(~is_ended)
            m.d.sync += [bits.eq(0), level.eq(0), index.eq(0), is_ended.eq(0), self.tokens.valid.eq(0), has_spare.eq(0)]
        with m.Elif(can_append):
            is_last_half = index == self._num_halves - 1
            m.d.comb += self.beats.ready.eq(is_last_half)
            m.d.sync += [index.eq(Mux(is_last_half, 0, index + 1)), is_ended.eq(is_last_half & self.beats.payload.last)]
        m.d.comb += self.is_active.eq(self.flush | can_append | take | (self.tokens.valid & self.tokens.ready))
        return m


class TokenDecoder(wiring.Component):
    """Follows the position (z, kz, tap) of a weight stream and looks up tap offsets: one token per cycle.

    Members
    -------
    job : In(stream of DECODER_FIELDS)
    beats : In(stream of WeightBeat), the core's weight streams in order
    tap_write : In(TapWrite), fills the tap table; two banks, used by descriptors alternately, starting with bank 0
    weights : Out(stream of WeightPlace); tokens of value zero only where they begin a window or end the group
    is_active : Out(1), low when nothing inside would change: the unit may rest

    Latency: 4 cycles from token to weight. Three cycles are lost between groups, four between superblocks.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(stream.Signature(NN.subset(*DECODER_FIELDS))),
                "beats": In(stream.Signature(WeightBeat(config))),
                "tap_write": In(TapWrite),
                "weights": Out(stream.Signature(WeightPlace(config))),
                "is_active": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.bits = bits = TokenBits(self._config)
        wiring.connect(m, wiring.flipped(self.beats), bits.beats)

        job = Signal(self.job.payload.shape(), reset_less=True)
        sb, group, bank = Signal(16), Signal(16), Signal(init=1)
        num_z, kernels_per_z = Signal(16), Signal(9)
        tap, kernel = Signal(TAP_BITS), Signal(9)
        tap_left, kz_left, z_left = Signal(TAP_BITS), Signal(9), Signal(17)  # positions that follow, at each level
        m.d.comb += [bits.run_bits.eq(job.run_bits), bits.num_taps.eq(job.num_taps)]

        # The next position is the last one plus kernels and taps, with at most one carry at each level
        token = bits.tokens.payload
        next_tap, tap_carry = Signal(TAP_BITS), Signal()
        kz_step, next_kernel, kz_carry = Signal(len(token.kernels)), Signal(9), Signal()
        is_end = Signal()  # the last token taken was the group's last one
        m.d.comb += [
            tap_carry.eq(token.taps > tap_left),
            next_tap.eq(Mux(tap_carry, tap + token.taps - job.num_taps, tap + token.taps)),
            kz_step.eq(Mux(tap_carry, token.next_kernels, token.kernels)),
            kz_carry.eq(kz_step > kz_left),
            next_kernel.eq(Mux(kz_carry & ~job.is_depthwise, kernel + kz_step - kernels_per_z, kernel + kz_step)),
            is_end.eq((tap_left == 0) & (kz_left == 0) & (z_left == 0)),
        ]

        # A token's value is a weight modulo 256; the largest weight is 127 - wgt_zero_point
        weight, max_weight = Signal(signed(WEIGHT_BITS)), Signal(8)
        m.d.comb += [
            max_weight.eq(Cat(~job.wgt_zero_point[:7], job.wgt_zero_point[7])),
            weight.eq(Cat(token.value, token.value > max_weight)),
        ]

        placed = Signal(
            data.StructLayout(
                {"value": signed(WEIGHT_BITS), "kernel": 9, "is_new_window": 1, "is_zero": 1, "is_valid": 1}
            )
        )
        can_place, take = Signal(), Signal()
        is_stepping = Signal()  # the state is about to change
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.job.ready.eq(~placed.is_valid)
                with m.If(self.job.valid & self.job.ready):
                    m.d.comb += is_stepping.eq(1)
                    new = self.job.payload
                    m.d.sync += [
                        job.eq(new),
                        job.num_vec.eq(new.num_vec << new.is_wide),
                        sb.eq(0),
                        group.eq(0),
                        bank.eq(~bank),
                    ]
                    m.next = "SUPERBLOCK"
            with m.State("SUPERBLOCK"):
                is_last_sb = sb == job.num_sb - 1
                m.d.sync += [
                    num_z.eq(Mux(is_last_sb, job.num_z_last, job.num_z)),
                    kernels_per_z.eq(Mux(is_last_sb, job.kernels_per_z_last, job.kernels_per_z)),
                ]
                m.d.comb += is_stepping.eq(1)
                m.next = "GROUP"
            with m.State("GROUP"):
                # One step before the first position
                m.d.sync += [
                    tap.eq(job.num_taps - 1),
                    tap_left.eq(0),
                    kz_left.eq(0),
                    z_left.eq(num_z),
                    kernel.eq(Mux(job.is_depthwise, 0, kernels_per_z) - 1),
                ]
                m.d.comb += is_stepping.eq(1)
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [
                    bits.en.eq(1),
                    take.eq(bits.tokens.valid & can_place & ~is_end),
                    bits.tokens.ready.eq(take),
                ]
                with m.If(take):
                    m.d.sync += [
                        tap.eq(next_tap),
                        kernel.eq(next_kernel),
                        z_left.eq(z_left - kz_carry),
                        tap_left.eq(Mux(tap_carry, tap_left + job.num_taps - token.taps, tap_left - token.taps)),
                        kz_left.eq(Mux(kz_carry, kz_left + kernels_per_z - kz_step, kz_left - kz_step)),
                    ]
                with m.If(is_end & can_place):
                    m.d.comb += is_stepping.eq(1)
                    m.next = "FLUSH"
            with m.State("FLUSH"):
                m.d.comb += [bits.flush.eq(1), is_stepping.eq(1)]
                m.d.sync += group.eq(group + 1)
                m.next = "GROUP"
                with m.If(group == job.num_groups - 1):
                    m.d.sync += [group.eq(0), sb.eq(sb + 1)]
                    m.next = "SUPERBLOCK"
                    with m.If(sb == job.num_sb - 1):
                        m.next = "IDLE"

        # Tap lookup, then entry = kernel * num_vec, twice that if is_wide; all held while the output is
        m.submodules.taps = taps = Memory(shape=unsigned(16), depth=2 << TAP_BITS, init=[])
        tap_write, tap_read = taps.write_port(), taps.read_port()
        m.d.comb += [
            tap_write.en.eq(self.tap_write.en),
            tap_write.addr.eq(Cat(self.tap_write.tap, self.tap_write.bank)),
            tap_write.data.eq(self.tap_write.offset),
            tap_read.addr.eq(Cat(next_tap, bank)),
            tap_read.en.eq(take),
            can_place.eq(self.weights.ready | ~self.weights.valid),
        ]
        looked_up = Signal(
            data.StructLayout(
                {"value": signed(WEIGHT_BITS), "entry": 9, "is_new_window": 1, "is_last": 1, "is_valid": 1}
            )
        )
        offset = Signal(16)
        output = self.weights.payload
        with m.If(can_place):
            m.d.sync += [
                placed.value.eq(weight),
                placed.kernel.eq(next_kernel),
                placed.is_new_window.eq(kz_carry),
                placed.is_valid.eq(take),
                placed.is_zero.eq(token.value == 0),
                looked_up.value.eq(placed.value),
                looked_up.entry.eq(_product(placed.kernel, job.num_vec)),
                offset.eq(tap_read.data),
                looked_up.is_new_window.eq(placed.is_new_window),
                looked_up.is_last.eq(is_end),
                looked_up.is_valid.eq(placed.is_valid & (~placed.is_zero | placed.is_new_window | is_end)),
                output.value.eq(looked_up.value),
                output.entry.eq(looked_up.entry),
                output.tap_offset.eq(offset),
                output.is_new_window.eq(looked_up.is_new_window),
                output.is_last.eq(looked_up.is_last),
                self.weights.valid.eq(looked_up.is_valid),
            ]
        has_any = take | placed.is_valid | looked_up.is_valid | self.weights.valid
        m.d.comb += self.is_active.eq(is_stepping | bits.is_active | self.tap_write.en | (can_place & has_any))
        return m


def _product(a, b):
    """a * b in look-up tables: both are small, and the multipliers of the device are for the lanes."""
    terms = [Mux(bit, b << n, 0) for n, bit in enumerate(a)]
    while len(terms) > 1:
        terms = [sum(terms[n : n + 2]) for n in range(0, len(terms), 2)]
    return terms[0]
