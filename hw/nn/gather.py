"""Swapped operands: makes the weight streams of all cores from activations.

reader's beats -> _Source, the planes that are in work
_Taps -> _Positions -> reads of the source -> tokens for the queues of the cores
"""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from convoy.hw.dma.types import SkipBeat
from convoy.hw.lib.delay import delay
from convoy.hw.lib.narrow import truncate
from convoy.hw.lib.register import data_register
from convoy.spec.config import NpuConfig
from convoy.spec.isa import MAX_SRC_PLANE_BYTES, NN, SRC_PLACE_BITS

__all__ = ["GATHER_FIELDS", "Gather"]

_TAP_FIELDS = (
    "src_addr",
    "src_plane_bytes",
    "src_kernel_h",
    "src_kernel_w",
    "src_dilation_h",
    "src_dilation_w",
    "src_start_y",
    "src_start_x",
    "src_start_bytes",
    "src_step_tap_bytes",
)
_POSITION_FIELDS = (
    "src_ih",
    "src_iw",
    "src_stride_h",
    "src_stride_w",
    "src_oh",
    "src_ow",
    "src_step_row_bytes",
    "num_kernels",
)
GATHER_FIELDS = (*_TAP_FIELDS, *_POSITION_FIELDS, "num_z", "wgt_zero_point")
"""What the gatherer needs of an NN descriptor."""

_BUFFER_BYTES = 2 * MAX_SRC_PLANE_BYTES
_BYTE_BITS = exact_log2(_BUFFER_BYTES)
"""A plane in work and the next ones; places of bytes are counted modulo this."""
_PLACE = signed(SRC_PLACE_BITS)


class _Source(wiring.Component):
    """The planes of the source from the one in work on, as far as there is room.

    Latency: 1 cycle from `place` to `value`; a beat counts from the next cycle on. Throughput: one beat and one byte
    per cycle.

    Members
    -------
    beats : In(stream of SkipBeat(port_bytes))
        Those of the source, as long as `is_open`.
    plane_bytes : In(11)
        Constant after `start`.
    start : In(1)
        Strobe: no beat is here.
    is_open : In(1)
        Take beats.
    is_over : In(1)
        Take all that is left.
    release : In(1)
        Strobe: the plane in work is not read any more.
    has_plane : Out(1)
        The plane in work is here; or nothing more will come.
    is_ended : Out(1)
        The last beat is here.
    place : In(_BYTE_BITS)
        Byte to read, counted from the beginning of the first beat.
    value : Out(8)
        It, two cycles later.
    """

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "beats": In(stream.Signature(SkipBeat(config.port_bytes))),
                "plane_bytes": In(NN.fields["src_plane_bytes"].bits),
                "start": In(1),
                "is_open": In(1),
                "is_over": In(1),
                "release": In(1),
                "has_plane": Out(1),
                "is_ended": Out(1),
                "place": In(_BYTE_BITS),
                "value": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        port_bytes = self._config.port_bytes
        beat_log2 = exact_log2(port_bytes)
        m.submodules.bytes = memory = Memory(shape=8 * port_bytes, depth=_BUFFER_BYTES // port_bytes, init=[])
        write, read = memory.write_port(), memory.read_port()
        surplus = Signal(signed(exact_log2(_BUFFER_BYTES) + 2))  # bytes behind the plane in work, less than 0: missing
        has_room, taken, index, word_index = Signal(), Signal(), Signal(beat_log2), Signal(beat_log2)
        word = Signal(8 * port_bytes, reset_less=True)  # what was read, late
        m.d.comb += [
            self.beats.ready.eq(self.is_open & ~self.is_ended & (has_room | self.is_over)),
            taken.eq(self.beats.valid & self.beats.ready),
            write.en.eq(taken),
            write.data.eq(self.beats.payload.data),
            self.has_plane.eq((surplus >= 0) | self.is_ended),
            read.addr.eq(self.place[beat_log2:]),
            self.value.eq(word.word_select(word_index, 8)),
        ]
        # Room for this beat, for one that comes in this cycle, and for what the first one skips
        came, gone = Mux(taken, self.beats.payload.count, 0), Mux(self.start | self.release, self.plane_bytes, 0)
        m.d.sync += [
            has_room.eq(surplus <= _BUFFER_BYTES - 4 * port_bytes - self.plane_bytes),
            index.eq(self.place[:beat_log2]),
            word_index.eq(index),
            word.eq(read.data),
            surplus.eq(truncate(Mux(self.start, 0, surplus) + came - gone, surplus.shape())),
        ]
        with m.If(self.start):
            m.d.sync += [write.addr.eq(0), self.is_ended.eq(0), has_room.eq(0)]
        with m.Else():
            m.d.sync += [
                write.addr.eq(write.addr + taken),
                self.is_ended.eq(self.is_ended | (taken & self.beats.payload.last)),
            ]
        return m


class _Taps(wiring.Component):
    """Walks planes, rows and columns of taps: where the first position meets the tap.

    | cycle | work |
    | -- | -- |
    | `start` | a cycle later the first tap |
    | `step` | a cycle later the next one |

    Latency: 1 cycle. Throughput: one tap per cycle.

    Members
    -------
    job : In(fields)
        Constant after `start`.
    start, step : In(1)
        Strobes.
    y, x : Out
        Row and column in the source.
    place : Out(_BYTE_BITS)
        Of the byte there.
    is_new_plane : Out(1)
        The tap is the first one of its plane.
    """

    def __init__(self, config: NpuConfig):
        self._beat_log2 = exact_log2(config.port_bytes)
        super().__init__(
            {
                "job": In(NN.subset(*_TAP_FIELDS)),
                "start": In(1),
                "step": In(1),
                "y": Out(_PLACE),
                "x": Out(_PLACE),
                "place": Out(_BYTE_BITS),
                "is_new_plane": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, shape = self.job, self.place.shape()
        y, x, place = data_register(m, self.y), data_register(m, self.x), data_register(m, self.place)
        plane, row = Signal(shape, reset_less=True), Signal(shape, reset_less=True)  # of the first tap, of the row's
        rows_left, cols_left = Signal(8, reset_less=True), Signal(8, reset_less=True)
        next_plane, next_row = Signal(shape), Signal(shape)
        is_plane_end, is_row_end = Signal(), Signal()
        first = truncate(job.src_start_bytes, shape) + job.src_addr[: self._beat_log2]
        m.d.comb += [
            next_plane.eq(Mux(self.start, first, plane + job.src_plane_bytes)),
            next_row.eq(row + truncate(job.src_step_tap_bytes, shape)),
            is_row_end.eq(cols_left == 1),
            is_plane_end.eq(is_row_end & (rows_left == 1)),
        ]
        with m.If(self.start | (self.step & is_plane_end)):
            m.d.sync += [
                plane.eq(next_plane),
                row.eq(next_plane),
                place.eq(next_plane),
                y.eq(job.src_start_y),
                x.eq(job.src_start_x),
                rows_left.eq(job.src_kernel_h),
                cols_left.eq(job.src_kernel_w),
                self.is_new_plane.eq(1),
            ]
        with m.Elif(self.step):
            m.d.sync += self.is_new_plane.eq(0)
            with m.If(is_row_end):
                m.d.sync += [
                    row.eq(next_row),
                    place.eq(next_row),
                    y.eq(y + job.src_dilation_h),
                    x.eq(job.src_start_x),
                    rows_left.eq(rows_left - 1),
                    cols_left.eq(job.src_kernel_w),
                ]
            with m.Else():
                m.d.sync += [
                    place.eq(place + job.src_dilation_w),
                    x.eq(x + job.src_dilation_w),
                    cols_left.eq(cols_left - 1),
                ]
        return m


class _Positions(wiring.Component):
    """Walks the positions that meet a tap and deals them to the cores, whole rounds of them: what is behind the last
    position is no activation, and cores that have none in a round get that at once.

    | cycle | work |
    | -- | -- |
    | `start` | a cycle later the first position |
    | `step` | a cycle later the next one |

    Latency: 1 cycle. Throughput: one position per cycle.

    Members
    -------
    job : In(fields)
        Constant after the first `start`.
    y, x, place : In
        Of the first position, with `start`.
    start : In(1)
        Strobe: a new tap; may come with the last `step` of the one before.
    step : In(1)
        Strobe.
    cores : Out(num_cores)
        Who gets the token.
    is_inside : Out(1)
        It is the byte at `at`; else zero.
    at : Out(_BYTE_BITS)
    is_last_round : Out(1)
        No core gets another token for the tap.
    is_end : Out(1)
        No token follows for the tap.
    """

    def __init__(self, config: NpuConfig):
        self._num_cores = config.num_cores
        super().__init__(
            {
                "job": In(NN.subset(*_POSITION_FIELDS)),
                "y": In(_PLACE),
                "x": In(_PLACE),
                "place": In(_BYTE_BITS),
                "start": In(1),
                "step": In(1),
                "cores": Out(config.num_cores),
                "is_inside": Out(1),
                "at": Out(_BYTE_BITS),
                "is_last_round": Out(1),
                "is_end": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        job, at = self.job, data_register(m, self.at)
        shape = at.shape()
        y, x, first_x = (Signal(_PLACE, reset_less=True, name=name) for name in ("here_y", "here_x", "first_x"))
        row = Signal(shape, reset_less=True)  # place of its first position
        rows_left, cols_left = Signal(13, reset_less=True), Signal(13, reset_less=True)
        rounds_left = Signal(9, reset_less=True)
        has_position = Signal(reset_less=True)
        waiting = Signal(self._num_cores, reset_less=True)  # cores that have no token of the round yet
        next_row, turn, is_round_end = Signal(shape), Signal(self._num_cores), Signal()
        is_last_round = data_register(m, self.is_last_round)
        m.d.comb += [
            next_row.eq(row + truncate(job.src_step_row_bytes, shape)),
            turn.eq(waiting & ~(waiting << 1)[: self._num_cores]),
            self.cores.eq(Mux(has_position, turn, waiting)),
            self.is_inside.eq(has_position & _is_within(y, job.src_ih) & _is_within(x, job.src_iw)),
            is_round_end.eq(self.cores[-1]),
            self.is_end.eq(is_round_end & self.is_last_round),
        ]
        with m.If(self.step):
            m.d.sync += waiting.eq(Mux(is_round_end, ~0, waiting ^ turn))
            with m.If(is_round_end):
                m.d.sync += [rounds_left.eq(rounds_left - 1), is_last_round.eq(rounds_left == 2)]
            with m.If(cols_left == 1):
                m.d.sync += [
                    row.eq(next_row),
                    at.eq(next_row),
                    y.eq(y + job.src_stride_h),
                    x.eq(first_x),
                    rows_left.eq(rows_left - 1),
                    cols_left.eq(job.src_ow),
                ]
                with m.If(rows_left == 1):
                    m.d.sync += has_position.eq(0)
            with m.Else():
                m.d.sync += [at.eq(at + job.src_stride_w), x.eq(x + job.src_stride_w), cols_left.eq(cols_left - 1)]
        with m.If(self.start):
            m.d.sync += [
                y.eq(self.y),
                x.eq(self.x),
                first_x.eq(self.x),
                row.eq(self.place),
                at.eq(self.place),
                rows_left.eq(job.src_oh),
                cols_left.eq(job.src_ow),
                rounds_left.eq(job.num_kernels),
                is_last_round.eq(job.num_kernels == 1),
                has_position.eq(1),
                waiting.eq(~0),
            ]
        return m


def _is_within(place, size):
    """0 <= place < size."""
    return (place >= 0) & (place[: SRC_PLACE_BITS - 1] < size)


class Gather(wiring.Component):
    """Reads the source of a swapped descriptor and gives every core its stream of activations, a token at a time.

    | state | work |
    | -- | -- |
    | IDLE | until `start` |
    | TAP | wait until the tap's plane is here |
    | DEAL | a token per cycle, while the queues have room |
    | REST | drop what is left of the source; a source that its descriptor calls too short or too long ends here too |

    Latency: 5 cycles from a plane's last beat to its first token. Throughput: one activation per cycle, and one cycle
    more for each tap where the last round is not full, one for each plane.

    Members
    -------
    job : In(fields)
        Constant from `start` until `is_idle`.
    start : In(1)
        Strobe.
    is_idle : Out(1)
    beats : In(stream of SkipBeat(port_bytes))
        Of the source, one run from `src_addr` on.
    has_room : In(1)
        Every queue has room for `MIN_ROOM` tokens, or had two cycles before.
    token : Out(8)
        The activation less its zero point, modulo 256.
    last : Out(1)
        It is the last one of its streams.
    en : Out(num_cores)
        The cores that get it.
    """

    PIPELINE_CYCLES = 3
    MIN_ROOM = 8

    def __init__(self, config: NpuConfig):
        self._config = config
        super().__init__(
            {
                "job": In(NN.subset(*GATHER_FIELDS)),
                "start": In(1),
                "is_idle": Out(1),
                "beats": In(stream.Signature(SkipBeat(config.port_bytes))),
                "has_room": In(1),
                "token": Out(8),
                "last": Out(1),
                "en": Out(config.num_cores),
            }
        )

    def elaborate(self, platform):
        m = Module()
        config, job = self._config, self.job
        m.submodules.source = source = _Source(config)
        m.submodules.taps = taps = _Taps(config)
        m.submodules.positions = positions = _Positions(config)
        z_left = Signal(16, reset_less=True)
        next_tap, is_last_z = Signal(), Signal(reset_less=True)
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.is_idle.eq(1)
                m.d.sync += [z_left.eq(job.num_z), is_last_z.eq(job.num_z == 1)]
                with m.If(self.start):
                    m.next = "TAP"
            with m.State("TAP"), m.If(source.has_plane):
                m.d.comb += next_tap.eq(1)
                m.next = "DEAL"
            with m.State("DEAL"):
                m.d.comb += positions.step.eq(self.has_room)
                with m.If(positions.step & positions.is_end):
                    m.d.sync += [z_left.eq(z_left - 1), is_last_z.eq(z_left == 2)]
                    with m.If(is_last_z):
                        m.next = "REST"
                    with m.Elif(taps.is_new_plane):
                        m.d.comb += source.release.eq(1)
                        m.next = "TAP"
                    with m.Else():
                        m.d.comb += next_tap.eq(1)
            with m.State("REST"):
                m.d.comb += source.is_over.eq(1)
                with m.If(source.is_ended):
                    m.next = "IDLE"

        # The byte comes two cycles later, its token is in a register then
        asked = Signal(data.StructLayout({"cores": config.num_cores, "is_inside": 1, "is_last": 1}))
        m.d.comb += [
            asked.cores.eq(Mux(positions.step, positions.cores, 0)),
            asked.is_inside.eq(positions.is_inside),
            asked.is_last.eq(is_last_z & positions.is_last_round),
        ]
        come = delay(m, asked, self.PIPELINE_CYCLES - 1, name="asked")
        m.d.sync += [
            self.token.eq(Mux(come.is_inside, source.value - job.wgt_zero_point, 0)),
            self.last.eq(come.is_last),
            self.en.eq(come.cores),
        ]
        wiring.connect(m, wiring.flipped(self.beats), source.beats)
        m.d.comb += [
            source.plane_bytes.eq(job.src_plane_bytes),
            source.start.eq(self.start),
            source.is_open.eq(~self.is_idle),
            source.place.eq(positions.at),
            *(unit.job[name].eq(job[name]) for unit in (taps, positions) for name, _ in unit.job.shape()),
            taps.start.eq(self.start),
            taps.step.eq(next_tap),
            positions.start.eq(next_tap),
            positions.y.eq(taps.y),
            positions.x.eq(taps.x),
            positions.place.eq(taps.place),
        ]
        return m
