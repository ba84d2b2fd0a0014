"""Weight streams: from port beats to tokens, from tokens to weights with their place."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.lib.multiple import multiple
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec import cycles
from convoy.spec.config import NpuConfig
from convoy.spec.isa import MAX_RUN_BITS, MAX_STEP_KERNELS, NN

__all__ = [
    "DECODER_FIELDS",
    "TAP_BITS",
    "WEIGHT_BITS",
    "TapWrite",
    "TokenBits",
    "TokenDecoder",
    "WeightBeat",
    "WeightPlace",
]

DECODER_FIELDS = (
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
_KERNEL_BITS = 9


def WeightBeat(config: NpuConfig) -> data.StructLayout:
    """A beat of a weight stream; `last` on the stream's last beat. With `is_byte`, as all beats of a stream have or
    none, it is one byte, at the beginning of its first and of its second part of `TOKEN_PART_BITS`. All beats of a
    stream say whether it is for the superblock's last group, and for a group of the last superblock.
    """
    return data.StructLayout({"data": config.port_bits, "last": 1, "is_byte": 1, "is_last_group": 1, "is_last_sb": 1})


class TapWrite(data.Struct):
    """A write of the tap tables of all cores, in which a tap is known by how many follow it in a kernel."""

    en: 1
    bank: 1
    taps_left: TAP_BITS
    offset: 16


def WeightPlace(config: NpuConfig) -> data.StructLayout:
    """A decoded weight: `entry` is the accumulator entry of its kernel's vector 0, `tap_offset` its pixel in the
    window, modulo the window memory.

    `is_new_window`: it is the first token of the next window; `is_last`: the group ends with it. A `value` of zero
    comes only with one of these. `is_last_group` and `is_last_sb` are those of the stream.
    """
    return data.StructLayout(
        {
            "value": signed(WEIGHT_BITS),
            "tap_offset": exact_log2(config.window_words * config.num_lanes),
            "entry": exact_log2(config.num_acc_entries),
            "is_new_window": 1,
            "is_last": 1,
            "is_last_group": 1,
            "is_last_sb": 1,
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

    Latency: 0 cycles; multiples of the taps are in registers. Throughput: one token per cycle.

    Members
    -------
    num_taps : In(TAP_BITS)
        Constant from the cycle before the first `run` on.
    run : In(MAX_RUN_BITS)
        Less than `MAX_STEP_KERNELS` * num_taps if that is not 1.
    kernels : Out(MAX_RUN_BITS + 1)
        As in `Token`.
    next_kernels : Out(range(MAX_STEP_KERNELS + 2))
        As in `Token`.
    taps : Out(MAX_RUN_BITS + 1)
        As in `Token`.
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
        before = Signal(MAX_RUN_BITS)  # num_taps - 1, if that is a run at all
        has_many = self.num_taps[MAX_RUN_BITS:].any() & (self.num_taps != never)
        m.d.comb += before.eq(truncate(self.num_taps - 1, before.shape()))
        m.d.sync += is_single.eq(self.num_taps == 1)
        for count, least_run in enumerate(least_runs, 1):
            # Less one is the multiple of the lowest bit of `count`; what is above it is added
            above = count & (count - 1)
            run = Cat(Const(count - above - 1, exact_log2(count - above)), before)
            if above:
                run += multiple(self.num_taps[: MAX_RUN_BITS + 1], above)
            is_never = (self.num_taps == 1) | has_many | run[MAX_RUN_BITS:].any()
            m.d.sync += least_run.eq(Mux(is_never, never, run[:MAX_RUN_BITS]))

        # All differences at once: the sign of one says whether the run covers so many kernels
        rests = [Signal(MAX_RUN_BITS + 1, name=f"rest_{count}") for count in range(MAX_STEP_KERNELS + 1)]
        m.d.comb += rests[0].eq(self.run + 1)
        for rest, least_run in zip(rests[1:], least_runs, strict=True):
            m.d.comb += rest.eq(truncate(self.run - least_run, rest.shape()))
        reaches = Cat(~rest[-1] for rest in rests[1:])  # the first so many

        def chosen(values) -> Value:
            """Of a value for each number of kernels, from 0 on, that for those the run covers."""

            def among(fewest: int, most: int) -> Value:
                if fewest == most:
                    return values[most]
                middle = (fewest + most + 1) // 2
                return Mux(reaches[middle - 1], among(middle, most), among(fewest, middle - 1))

            return among(0, MAX_STEP_KERNELS)

        m.d.comb += [
            self.next_kernels.eq(chosen(range(1, MAX_STEP_KERNELS + 2))),
            self.kernels.eq(Mux(is_single, rests[0], chosen(range(MAX_STEP_KERNELS + 1)))),
            self.taps.eq(Mux(is_single, 0, chosen(rests))),
        ]
        return m


class TokenBits(wiring.Component):
    """Cuts a stream of beats into tokens, lowest bit first.

    | cycle | work |
    | -- | -- |
    | 0 | half of the buffer is filled with a part of a beat |
    | 1 | a token is cut out (stage B) |
    | 2 | and its step divided (stage C) |
    | 3 | `tokens` |

    Latency: 3 cycles from beat to token. Throughput: one token, and one part of a beat (a beat with `is_byte`), per
    cycle.

    Members
    -------
    beats : In(stream of WeightBeat)
    en : In(1)
        Cut tokens.
    run_bits : In(3)
        Constant from `en` until `flush`.
    num_taps : In(TAP_BITS)
        The same.
    flush : In(1)
        The stream has ended: drop what is left of its last beat.
    tokens : Out(stream of Token)
        Registered.
    has_begun : Out(1)
        A part of the stream has been taken in.
    is_last_group, is_last_sb : Out(1)
        Those of the stream; after `flush` for a cycle more.
    is_active : Out(1)
        Low when nothing inside would change.
    """

    PART_BITS = cycles.TOKEN_PART_BITS

    def __init__(self, config: NpuConfig):
        self._num_parts = config.port_bits // self.PART_BITS
        super().__init__(
            {
                "beats": In(stream.Signature(WeightBeat(config))),
                "en": In(1),
                "run_bits": In(3),
                "num_taps": In(TAP_BITS),
                "flush": In(1),
                "tokens": Out(stream.Signature(Token)),
                "has_begun": Out(1),
                "is_last_group": Out(1),
                "is_last_sb": Out(1),
                "is_active": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.divider = divider = StepDivider()
        buffer_bits, part_bits, beat = cycles.TOKEN_BUFFER_BITS, self.PART_BITS, self.beats.payload
        part_log2 = exact_log2(part_bits)
        assert buffer_bits == 2 * part_bits == 4 * 8
        # A ring: parts are written to its halves in turn, tokens are read from bit `first` on
        bits, first = Signal(buffer_bits, reset_less=True), Signal(range(buffer_bits))
        level = Signal(range(buffer_bits + 1))
        index = Signal(range(self._num_parts))
        is_ended = Signal()  # the whole last beat has been taken in
        is_byte = Signal(reset_less=True)  # the stream's parts are a token each
        num_bits, run_mask = Signal(part_log2 + 1), Signal(MAX_RUN_BITS)
        can_append, take, has_spare = Signal(), Signal(), Signal()
        # A token is a byte and less than a byte, or a part
        is_here = level[part_log2:].any() | (~is_byte & level[3] & (level[:3] >= self.run_bits))
        m.d.comb += [
            num_bits.eq(Mux(is_byte, part_bits, 8 | self.run_bits)),
            run_mask.eq(truncate((1 << self.run_bits) - 1, MAX_RUN_BITS)),
            can_append.eq(self.beats.valid & ~is_ended & (level <= buffer_bits - part_bits)),
            take.eq(self.en & is_here & ~has_spare),
        ]
        for half in range(2):
            parts = [beat.data.word_select(number, part_bits) for number in range(half, self._num_parts, 2)]
            with m.If(can_append & (index[0] == half)):
                m.d.sync += bits.word_select(half, part_bits).eq(Array(parts)[index[1:]])
        is_last_group, is_last_sb = data_register(m, self.is_last_group), data_register(m, self.is_last_sb)
        with m.If(can_append):
            m.d.sync += [
                self.has_begun.eq(1),
                is_byte.eq(beat.is_byte),
                is_last_group.eq(beat.is_last_group),
                is_last_sb.eq(beat.is_last_sb),
            ]
        with m.If(take):
            m.d.sync += first.eq(first + num_bits)
        filled = Cat(level[:part_log2], level[part_log2:] + can_append)
        m.d.sync += level.eq(truncate(filled - Mux(take, num_bits, 0), level.shape()))

        # Only the bits that a token may need go through the stages that turn the ring
        cut, spare, token = (Signal(8 + MAX_RUN_BITS, reset_less=True, name=name) for name in ("cut", "spare", "token"))
        turned = bits
        for bit in reversed(range(len(first))):
            num_turned = len(cut) + (1 << bit) - 1
            wrapped = Cat(turned, turned)
            turned = Mux(first[bit], wrapped[1 << bit :][:num_turned], wrapped[:num_turned])
        # A token cut when the one before was not taken is spare: `ready` reaches no further
        has_token, can_divide = Signal(), Signal()
        m.d.comb += [
            cut.eq(turned & Cat(Const(-1, 8), run_mask)),
            can_divide.eq(~self.tokens.valid | self.tokens.ready),
        ]
        with m.If(can_divide | ~has_token):
            m.d.sync += [has_token.eq(take | has_spare), token.eq(Mux(has_spare, spare, cut)), has_spare.eq(0)]
        with m.Elif(take):
            m.d.sync += has_spare.eq(1)
        with m.If(~has_spare):
            m.d.sync += spare.eq(cut)

        divided = data_register(m, self.tokens.payload)
        m.d.comb += [divider.num_taps.eq(self.num_taps), divider.run.eq(token[8:])]
        with m.If(can_divide):
            m.d.sync += [
                self.tokens.valid.eq(has_token),
                divided.value.eq(token[:8]),
                divided.kernels.eq(divider.kernels),
                divided.next_kernels.eq(divider.next_kernels),
                divided.taps.eq(divider.taps),
            ]

        with m.If(self.flush):
            m.d.comb += self.beats.ready.eq(~is_ended)
            m.d.sync += [
                register.eq(0)
                for register in (first, level, index, self.has_begun, is_ended, has_spare, has_token, self.tokens.valid)
            ]
        with m.Elif(can_append):
            is_last_part = beat.is_byte | (index == self._num_parts - 1)
            m.d.comb += self.beats.ready.eq(is_last_part)
            m.d.sync += [index.eq(Mux(beat.is_byte, ~index[0], index + 1)), is_ended.eq(is_last_part & beat.last)]
        m.d.comb += self.is_active.eq(self.flush | can_append | take | (can_divide & (has_token | self.tokens.valid)))
        return m


def _located_layout() -> data.StructLayout:
    """A token with its position: its stored byte, the taps of its kernel that follow, its kernel (depthwise: of all
    windows' kernels), and whether it is the first of its window.
    """
    return data.StructLayout({"value": 8, "taps_left": TAP_BITS, "kernel": _KERNEL_BITS, "is_new_window": 1})


class _Groups(wiring.Component):
    """Takes jobs and walks their groups, superblock after superblock.

    | state | work |
    | -- | -- |
    | IDLE | take a job; `fields` and `bank` are its a cycle later |
    | SUPERBLOCK | wait for its first beat; windows and kernels of a superblock |
    | GROUP | `start` |
    | RUN | `run`, until `is_end`: `flush` |
    | NEXT | on to the next group, superblock or job |

    Latency: 3 cycles from a job to its first `run`. Throughput: three cycles are lost between groups (NEXT, GROUP and
    the one that sees `is_end`), four between superblocks.

    Members
    -------
    job : In(stream of DECODER_FIELDS)
    may_take : In(1)
        Nothing of the job before is left where its fields are read.
    has_begun : In(1)
        The next group's stream has, and tells the following.
    is_last_group, is_last_sb : In(1)
        Of the group's stream, until the cycle after `flush`.
    is_end : In(1)
        The last token of the group has gone on.
    fields : Out(DECODER_FIELDS)
        The job, its vectors counted in halves if is_wide.
    bank : Out(1)
        The tap table's bank that belongs to the job.
    num_z : Out(16)
        Windows of a group of the superblock.
    kernels_per_z : Out(9)
        Kernels that use a window, in the superblock.
    start : Out(1)
        Strobe: a group begins.
    has_job : Out(1)
        The next tokens are those of `fields`.
    run : Out(1)
        The group's tokens may go.
    flush : Out(1)
        Strobe: the group's stream is over.
    is_stepping : Out(1)
        The state is about to change.
    """

    def __init__(self):
        layout = NN.subset(*DECODER_FIELDS)
        super().__init__(
            {
                "job": In(stream.Signature(layout)),
                "may_take": In(1),
                "has_begun": In(1),
                "is_last_group": In(1),
                "is_last_sb": In(1),
                "is_end": In(1),
                "fields": Out(layout),
                "bank": Out(1, init=1),
                "num_z": Out(16),
                "kernels_per_z": Out(_KERNEL_BITS),
                "start": Out(1),
                "has_job": Out(1),
                "run": Out(1),
                "flush": Out(1),
                "is_stepping": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job = data_register(m, self.fields)
        m.d.comb += self.has_job.eq(1)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += [self.job.ready.eq(self.may_take), self.has_job.eq(0)]
                with m.If(self.job.valid & self.job.ready):
                    m.d.comb += self.is_stepping.eq(1)
                    new = self.job.payload
                    m.d.sync += [
                        job.eq(new),
                        # An entry for each half vector: at most num_acc_entries
                        job.num_vec.eq(truncate(new.num_vec << new.is_wide, 9)),
                        self.bank.eq(~self.bank),
                    ]
                    m.next = "SUPERBLOCK"
            with m.State("SUPERBLOCK"), m.If(self.has_begun):
                m.d.sync += [
                    self.num_z.eq(Mux(self.is_last_sb, job.num_z_last, job.num_z)),
                    self.kernels_per_z.eq(Mux(self.is_last_sb, job.kernels_per_z_last, job.kernels_per_z)),
                ]
                m.d.comb += self.is_stepping.eq(1)
                m.next = "GROUP"
            with m.State("GROUP"):
                m.d.comb += [self.start.eq(1), self.is_stepping.eq(1)]
                m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += self.run.eq(1)
                with m.If(self.is_end):
                    m.d.comb += [self.flush.eq(1), self.is_stepping.eq(1)]
                    m.next = "NEXT"
            with m.State("NEXT"):
                m.d.comb += self.is_stepping.eq(1)
                m.next = "GROUP"
                with m.If(self.is_last_group):
                    m.next = "SUPERBLOCK"
                    with m.If(self.is_last_sb):
                        m.next = "IDLE"
        return m


class _Position(wiring.Component):
    """Follows the position (z, kz, tap) of a group's tokens: the last one plus whole kernels and taps, with at most one
    carry at each level.

    | stage | cycle | work |
    | -- | -- | -- |
    | C | 0 | `start`: the position before the first |
    | D | 1.. | `located`, the token in its place; `take`: that becomes the last position |

    Latency: 0 cycles from token to `located`. Throughput: one token per cycle.

    Members
    -------
    job : In(fields)
        Constant from `start` to the end of the group.
    num_z : In(16)
        Windows of the group.
    kernels_per_z : In(9)
        Kernels that use a window.
    start : In(1)
        Strobe: the group begins.
    token : In(Token)
        The next token.
    take : In(1)
        Strobe: it goes on.
    located : Out(_located_layout)
        The token with its position.
    is_end : Out(1)
        The last position of the group has been taken.
    """

    def __init__(self):
        super().__init__(
            {
                "job": In(NN.subset("num_taps", "is_depthwise")),
                "num_z": In(16),
                "kernels_per_z": In(_KERNEL_BITS),
                "start": In(1),
                "token": In(Token),
                "take": In(1),
                "located": Out(_located_layout()),
                "is_end": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, token, located, kernels_per_z = self.job, self.token, self.located, self.kernels_per_z
        kernel = Signal(_KERNEL_BITS)
        tap_left, kz_left, z_left = Signal(TAP_BITS), Signal(_KERNEL_BITS), Signal(17)  # that follow, at each level
        tap_rest = Signal(signed(TAP_BITS + 1))
        tap_carry, kz_step, kz_carry = Signal(), Signal(len(token.kernels)), Signal()
        wrapped_kernel, wrapped_left = Signal(_KERNEL_BITS), Signal(_KERNEL_BITS + 1)
        next_bits = len(token.next_kernels)
        is_beyond_next = ~kz_left[next_bits:].any() & (kz_left[:next_bits] < token.next_kernels)
        m.d.comb += [
            tap_rest.eq(tap_left - token.taps),
            tap_carry.eq(tap_rest < 0),
            kz_step.eq(Mux(tap_carry, token.next_kernels, token.kernels)),
            # Both are compared while it is found out which of them is the step
            kz_carry.eq(Mux(tap_carry, is_beyond_next, kz_left < token.kernels)),
            located.value.eq(token.value),
            located.taps_left.eq(truncate(tap_rest + Mux(tap_carry, job.num_taps, 0), TAP_BITS)),
            # kernel - kernels_per_z, which is -1 - kz_left: the first token, at -1, begins a window
            wrapped_kernel.eq(Mux(job.is_depthwise, kernel, ~kz_left)),
            wrapped_left.eq(kz_left + kernels_per_z),
            located.kernel.eq(truncate(Mux(kz_carry, wrapped_kernel, kernel) + kz_step, located.kernel.shape())),
            located.is_new_window.eq(kz_carry),
            self.is_end.eq((tap_left == 0) & (kz_left == 0) & (z_left == 0)),
        ]
        with m.If(self.start):
            m.d.sync += [tap_left.eq(0), kz_left.eq(0), z_left.eq(self.num_z), kernel.eq(-1)]
        with m.Elif(self.take):
            m.d.sync += [
                tap_left.eq(located.taps_left),
                kernel.eq(located.kernel),
                kz_left.eq(truncate(Mux(kz_carry, wrapped_left, kz_left) - kz_step, kz_left.shape())),
            ]
            with m.If(kz_carry):
                m.d.sync += z_left.eq(z_left - 1)
        return m


class _Places(wiring.Component):
    """Looks up the tap offset of a token, and makes its weight and its accumulator entry.

    | stage | cycle | work |
    | -- | -- | -- |
    | D | 0 | token and its position; the tap table is read; value to weight |
    | E | 1 | entry = kernel * T; a zero that says nothing is dropped |
    | F | 2 | output register |
    | Q | 3 | `weights` |

    Latency: 3 cycles. Throughput: one token per cycle; everything is held while the output is.

    Members
    -------
    tokens : In(stream of _located_layout)
    job : In(fields)
        Constant while `is_busy`.
    bank : In(1)
        The tap table's bank to read.
    is_end : In(1)
        The token in stage E is its group's last.
    is_last_group, is_last_sb : In(1)
        Of the stream of the token in stage E.
    tap_write : In(TapWrite)
    weights : Out(stream of WeightPlace)
    is_busy : Out(1)
        There is a token in stage E.
    is_active : Out(1)
        Low when nothing inside would change.
    """

    def __init__(self, config: NpuConfig):
        super().__init__(
            {
                "tokens": In(stream.Signature(_located_layout())),
                "job": In(NN.subset("wgt_zero_point", "num_vec")),
                "bank": In(1),
                "is_end": In(1),
                "is_last_group": In(1),
                "is_last_sb": In(1),
                "tap_write": In(TapWrite),
                "weights": Out(stream.Signature(WeightPlace(config))),
                "is_busy": Out(1),
                "is_active": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        token, output, can_place, take = self.tokens.payload, self.weights.payload, Signal(), Signal()
        m.d.comb += [
            can_place.eq(self.weights.ready | ~self.weights.valid),
            self.tokens.ready.eq(can_place),
            take.eq(self.tokens.valid & can_place),
        ]

        # A token's value is a weight modulo 256; the largest weight is 127 - wgt_zero_point
        weight, max_weight = Signal(signed(WEIGHT_BITS)), Signal(8)
        m.d.comb += [
            max_weight.eq(Cat(~self.job.wgt_zero_point[:7], self.job.wgt_zero_point[7])),
            weight.eq(Cat(token.value, token.value > max_weight)),
        ]

        m.submodules.taps = taps = Memory(shape=unsigned(16), depth=2 << TAP_BITS, init=[])
        tap_write, tap_read = taps.write_port(), taps.read_port()
        m.d.comb += [
            tap_write.en.eq(self.tap_write.en),
            tap_write.addr.eq(Cat(self.tap_write.taps_left, self.tap_write.bank)),
            tap_write.data.eq(self.tap_write.offset),
            tap_read.addr.eq(Cat(token.taps_left, self.bank)),
            tap_read.en.eq(take),
        ]

        placed = Signal(
            data.StructLayout(
                {"value": signed(WEIGHT_BITS), "kernel": _KERNEL_BITS, "is_new_window": 1, "is_zero": 1, "is_valid": 1}
            )
        )
        looked_up, is_looked_up = Signal(output.shape()), Signal()
        with m.If(can_place):
            m.d.sync += [
                placed.value.eq(weight),
                placed.kernel.eq(token.kernel),
                placed.is_new_window.eq(token.is_new_window),
                placed.is_valid.eq(take),
                placed.is_zero.eq(token.value == 0),
                looked_up.value.eq(placed.value),
                looked_up.tap_offset.eq(truncate(tap_read.data, output.tap_offset.shape())),
                # A group's vectors have entries, so the product of what is in it has no more bits
                looked_up.entry.eq(truncate(_product(placed.kernel, self.job.num_vec), output.entry.shape())),
                looked_up.is_new_window.eq(placed.is_new_window),
                looked_up.is_last.eq(self.is_end),
                looked_up.is_last_group.eq(self.is_last_group),
                looked_up.is_last_sb.eq(self.is_last_sb),
                is_looked_up.eq(placed.is_valid & (~placed.is_zero | placed.is_new_window | self.is_end)),
                output.eq(looked_up),
                self.weights.valid.eq(is_looked_up),
            ]
        has_any = take | placed.is_valid | is_looked_up | self.weights.valid
        m.d.comb += [self.is_busy.eq(placed.is_valid), self.is_active.eq(self.tap_write.en | (can_place & has_any))]
        return m


class TokenDecoder(wiring.Component):
    """Follows the position (z, kz, tap) of a weight stream and looks up tap offsets.

    | stage | cycle | work | unit |
    | -- | -- | -- | -- |
    | B | 0 | cut a token | `TokenBits` |
    | C | 1 | whole kernels and taps of its step | `TokenBits` |
    | D | 2 | advance (z, kz, tap) by them; read the tap table | `_Position` |
    | E | 3 | accumulator entry; drop what says nothing | `_Places` |
    | F | 4 | output register | `_Places` |
    | Q | 5 | `weights` | |

    Latency: 5 cycles from token to weight. Throughput: one token per cycle; three cycles are lost between groups, four
    between superblocks.

    Members
    -------
    job : In(stream of DECODER_FIELDS)
    beats : In(stream of WeightBeat)
        The core's weight streams in order.
    tap_write : In(TapWrite)
        Fills the tap table; two banks, used by descriptors alternately, starting with bank 0.
    weights : Out(stream of WeightPlace)
        Tokens of value zero only where they begin a window or end the group.
    is_active : Out(1)
        Low when nothing inside would change: the unit may rest.
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
        m.submodules.groups = groups = _Groups()
        m.submodules.bits = bits = TokenBits(self._config)
        m.submodules.position = position = _Position()
        m.submodules.places = places = _Places(self._config)
        wiring.connect(m, wiring.flipped(self.job), groups.job)
        wiring.connect(m, wiring.flipped(self.beats), bits.beats)
        wiring.connect(m, places.weights, wiring.flipped(self.weights))
        job, take = groups.fields, Signal()
        m.d.comb += [
            take.eq(places.tokens.valid & places.tokens.ready),
            groups.may_take.eq(~places.is_busy),
            groups.has_begun.eq(bits.has_begun),
            *(unit.is_last_group.eq(bits.is_last_group) for unit in (groups, places)),
            *(unit.is_last_sb.eq(bits.is_last_sb) for unit in (groups, places)),
            groups.is_end.eq(position.is_end & places.tokens.ready),
            bits.run_bits.eq(job.run_bits),
            bits.num_taps.eq(job.num_taps),
            bits.en.eq(groups.has_job),
            bits.flush.eq(groups.flush),
            bits.tokens.ready.eq(take),
            position.job.num_taps.eq(job.num_taps),
            position.job.is_depthwise.eq(job.is_depthwise),
            position.num_z.eq(groups.num_z),
            position.kernels_per_z.eq(groups.kernels_per_z),
            position.start.eq(groups.start),
            position.token.eq(bits.tokens.payload),
            position.take.eq(take),
            places.tokens.payload.eq(position.located),
            places.tokens.valid.eq(groups.run & bits.tokens.valid & ~position.is_end),
            places.job.wgt_zero_point.eq(job.wgt_zero_point),
            places.job.num_vec.eq(job.num_vec),
            places.bank.eq(groups.bank),
            places.is_end.eq(position.is_end),
            places.tap_write.eq(self.tap_write),
            self.is_active.eq(groups.is_stepping | bits.is_active | places.is_active),
        ]
        return m


def _product(a, b):
    """a * b in look-up tables: both are small, and the multipliers of the device are for the lanes."""
    terms = [Mux(bit, b << n, 0) for n, bit in enumerate(a)]
    while len(terms) > 1:
        terms = [sum(terms[n : n + 2]) for n in range(0, len(terms), 2)]
    return terms[0]
