"""`Machine` on layers lowered by hand-sized rules, against `golden.ops`; and its refusals."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy.golden import ops
from convoy.golden.machine import Machine, MachineError
from convoy.golden.quant import quantize_multiplier
from convoy.golden.stream import decode_tokens
from convoy.spec.config import NpuConfig
from convoy.spec.isa import COMPLETION, MAX_RUN_BITS, MAX_STEP_KERNELS, NN, PARAM, STREAM, TP, Opcode, Rounding, TpOp

CONFIG = NpuConfig(num_cores=2, num_lanes=8, post_lanes=2, window_words=256, num_acc_entries=64)
OUT_ADDR, ACT_ADDR, RECORD_ADDR = 0x8000, 0x20000, 0x1F000


def encode_tokens(weights: np.ndarray, run_bits: int, port_bits: int) -> tuple[bytes, int]:
    """Stream and number of beats of dense weights."""
    bits, num_bits, run = 0, 0, 0
    for i, value in enumerate(weights):
        if value == 0 and i != len(weights) - 1 and run < (1 << run_bits) - 1:
            run += 1
            continue
        bits |= (int(value) & 255 | run << 8) << num_bits
        num_bits, run = num_bits + 8 + run_bits, 0
    num_beats = -(-num_bits // port_bits)
    return bits.to_bytes(num_beats * port_bits // 8, "little"), num_beats


class Image:
    """Memory that is filled from low addresses upwards."""

    def __init__(self):
        self.memory = np.zeros(0x30000, np.uint8)
        self.end = 0x100

    def put(self, raw: bytes, addr: int | None = None) -> int:
        if addr is None:
            addr, self.end = self.end, self.end + -(-len(raw) // 32) * 32
        self.memory[addr : addr + len(raw)] = np.frombuffer(raw, np.uint8)
        return addr

    def run(self, *descriptors: bytes, config: NpuConfig = CONFIG) -> Machine:
        addr = 0x2F000
        self.put(b"".join(descriptors), addr)
        machine = Machine(config, self.memory)
        machine.run(addr, len(descriptors), RECORD_ADDR)
        return machine

    def output(self, *shape: int) -> np.ndarray:
        return self.memory[OUT_ADDR : OUT_ADDR + int(np.prod(shape))].view(np.int8).reshape(shape)


@dataclass
class Layer:
    """A layer and how it is laid on the machine; weights (OC, KH, KW, IC), depthwise (1, KH, KW, OC)."""

    acts: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    is_depthwise: bool = False
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    is_flat: bool = True
    split_log2: int = 0
    rows_per_group: int = 1
    num_kernels: int = 2
    run_bits: int = 0
    zero_point_in: int = 5
    scale: float = 0.004
    plane_bytes: int = 0
    """From one output plane to the next, if not the size of one."""

    def expected(self) -> np.ndarray:
        """Planar output, shape (OC, OH, OW)."""
        layer = ops.depthwise_conv2d if self.is_depthwise else ops.conv2d
        quants = (1.0, self.zero_point_in), np.float32(self.scale), (1.0, -4)
        values = layer(self.acts, self.weights, self.bias, *quants, self.stride, self.dilation, self.pads)
        return values[0].transpose(2, 0, 1)

    def lower(self, image: Image) -> dict[str, int]:
        """Put tables and activations into memory; the fields of the descriptor."""
        lanes, (sh, sw) = CONFIG.num_lanes, self.stride
        num_ic, (ih, iw) = self.acts.shape[3], self.acts.shape[1:3]
        kh, kw = self.weights.shape[1:3]
        num_oc, oh, ow = self.expected().shape
        rows = max(-(-(self.pads[0] + ih) // sh), oh + (kh - 1) * self.dilation[0] // sh)
        cols = max(-(-(self.pads[2] + iw) // sw), ow + (kw - 1) * self.dilation[1] // sw)
        vector_cols = lanes >> self.split_log2
        pitch = max(cols - min(self.pads[2:]), ow) if self.stride == (1, 1) and self.is_flat else cols
        split_words = max(-(-(cols - vector_cols) // lanes), 0) if self.split_log2 else 0
        pitch = vector_cols + split_words * lanes if self.split_log2 else pitch
        phase_words = -(-((rows - 1) * pitch + cols) // lanes)

        tap = [
            divmod(ky * self.dilation[0], sh) + divmod(kx * self.dilation[1], sw)
            for ky in range(kh)
            for kx in range(kw)
        ]
        phases = sorted({2 * py + px for _, py, _, px in tap})
        if len(phases) == 3 or phases[-1] > sh * sw:
            phases = [2 * py + px for py in range(sh) for px in range(sw)]
        reach = max(y * pitch + x for y, _, x, _ in tap) + (self.rows_per_group - 1) * pitch + ow + lanes
        seg_words = -(-reach // lanes)
        offsets = [phases.index(2 * py + px) * seg_words * lanes + y * pitch + x for y, py, x, px in tap]

        last_rows = (oh - 1) % self.rows_per_group + 1
        vectors_x = -(-ow // vector_cols)
        drain_pitch = pitch if self.is_flat else vectors_x * vector_cols
        num_pos, num_pos_last = ((count - 1) * drain_pitch + ow for count in (self.rows_per_group, last_rows))
        split = 1 << self.split_log2
        num_vec, num_vec_last = (
            -(-pos // lanes) if self.is_flat else vectors_x * -(-count // split)
            for pos, count in ((num_pos, self.rows_per_group), (num_pos_last, last_rows))
        )
        num_groups = -(-oh // self.rows_per_group)

        fields = (
            dict.fromkeys(NN.fields, 0)
            | self._tables(image, num_oc)
            | dict(
                opcode=Opcode.NN,
                act_addr=ACT_ADDR,
                act_run_bytes=iw,
                num_act_inner=ih,
                num_act_outer=num_ic,
                act_pitch_inner_bytes=iw + 3,
                act_pitch_outer_bytes=ih * (iw + 3) + 1,
                num_ic=num_ic,
                tile_ih=ih,
                tile_iw=iw,
                pad_top=self.pads[0],
                pad_left=self.pads[2],
                stride_h_log2=sh - 1,
                stride_w_log2=sw - 1,
                phase_mask=sum(1 << phase for phase in phases),
                zero_point_in=self.zero_point_in,
                tile_rows=rows,
                tile_cols=cols,
                pitch_row=pitch,
                phase_words=phase_words,
                channel_words=phase_words * len(phases),
                stripe_word=3,
                num_groups=num_groups,
                group_step=self.rows_per_group * pitch,
                num_phases=len(phases),
                seg_words=seg_words,
                num_slots=1,
                num_vec=num_vec,
                num_vec_last=num_vec_last,
                num_vec_x=num_vec if self.is_flat else vectors_x,
                step_vec_x=vector_cols,
                step_vec_y=split * pitch,
                split_log2=self.split_log2,
                split_words=split_words,
                num_taps=kh * kw,
                tap_addr=image.put(np.array(offsets, "<u2").tobytes()),
                run_bits=self.run_bits,
                out_addr=OUT_ADDR,
                out_group_step_bytes=self.rows_per_group * ow,
                out_pitch_row_bytes=ow,
                drain_pitch=drain_pitch,
                tile_ow=ow,
                num_pos=num_pos,
                num_pos_last=num_pos_last,
                is_flat=self.is_flat,
                zero_point_out=-4,
                act_min=-128,
                act_max=127,
                rounding=Rounding.DOUBLE,
            )
        )
        for c in range(num_ic):
            for y in range(ih):
                image.put(self.acts[0, y, :, c].tobytes(), ACT_ADDR + c * (ih * (iw + 3) + 1) + y * (iw + 3))
        return fields

    def _tables(self, image: Image, num_oc: int) -> dict[str, int]:
        """Parameters and weight streams."""
        cores, num_ic = CONFIG.num_cores, self.acts.shape[3]
        per_z = self.weights.shape[3] // num_ic if self.is_depthwise else self.num_kernels
        kernels = [
            min(self.num_kernels, -(-num_oc // cores) - first)
            for first in range(0, -(-num_oc // cores), self.num_kernels)
        ]
        if self.is_depthwise:
            num_z = max(self.num_kernels // per_z, 1)
            kernels = [
                min(num_z, -(-num_ic // cores) - first) * per_z for first in range(0, -(-num_ic // cores), num_z)
            ]
        params, directory, streams = b"", b"", b""
        for s, count in enumerate(kernels):
            oc = self._channels(s * kernels[0], count, per_z)
            for kernel, core in np.ndindex(oc.shape):
                params += self._param(int(oc[kernel, core]), num_oc)
            for core in range(cores):
                raw, num_beats = encode_tokens(
                    self._dense(oc[:, core], num_oc).ravel(), self.run_bits, CONFIG.port_bits
                )
                directory += STREAM.encode(offset_bytes=len(streams), num_beats=num_beats)
                streams += raw + bytes(-len(raw) % 32)
        num_z, num_z_last = (kernels[0] // per_z, kernels[-1] // per_z) if self.is_depthwise else (num_ic, num_ic)
        return dict(
            is_depthwise=self.is_depthwise,
            num_sb=len(kernels),
            num_kernels=kernels[0],
            num_kernels_last=kernels[-1],
            num_z=num_z,
            num_z_last=num_z_last,
            kernels_per_z=per_z if self.is_depthwise else kernels[0],
            kernels_per_z_last=per_z if self.is_depthwise else kernels[-1],
            param_addr=image.put(params),
            stream_addr=image.put(directory),
            wgt_addr=image.put(streams),
        )

    def _channels(self, first: int, count: int, per_z: int) -> np.ndarray:
        """Output channel of each (kernel, core)."""
        kernel, core = first + np.arange(count)[:, None], np.arange(CONFIG.num_cores)
        if self.is_depthwise:
            return (kernel // per_z * CONFIG.num_cores + core) * per_z + kernel % per_z
        return kernel * CONFIG.num_cores + core

    def _param(self, oc: int, num_oc: int) -> bytes:
        if oc >= num_oc:
            return PARAM.encode(bias=0, mult=0, is_valid=0, out_offset_bytes=0, shift_left=0, shift_right=0, bias_low=0)
        mult, left, right = quantize_multiplier(float(np.float32(self.scale)))
        _, num_oh, num_ow = self.expected().shape
        kernel = self.weights[..., oc] if self.is_depthwise else self.weights[oc]
        bias = int(self.bias[oc]) - self.zero_point_in * int(kernel.astype(int).sum())
        return PARAM.encode(
            bias=bias,
            mult=mult,
            is_valid=1,
            out_offset_bytes=oc * (self.plane_bytes or num_oh * num_ow),
            shift_left=left,
            shift_right=right,
            bias_low=0,
        )

    def _dense(self, oc: np.ndarray, num_oc: int) -> np.ndarray:
        """Weights of one core in the order (z, kernel, tap)."""
        exists = (oc < num_oc)[:, None, None, None]
        if self.is_depthwise:
            return np.where(exists[..., 0], self.weights[0][..., np.minimum(oc, num_oc - 1)].transpose(2, 0, 1), 0)
        return np.where(exists, self.weights[np.minimum(oc, num_oc - 1)], 0).transpose(3, 0, 1, 2)


def random_layer(seed: int) -> Layer:
    rng = np.random.default_rng(seed)

    def pick(low, high):
        return int(rng.integers(low, high + 1))

    is_depthwise, is_flat = bool(pick(0, 1)), bool(pick(0, 1))
    kernel, dilation, num_ic = (pick(1, 4), pick(1, 4)), (pick(1, 2), pick(1, 2)), pick(1, 5)
    span = [(kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)]
    num_oc = num_ic * pick(1, 2) if is_depthwise else pick(1, 12)
    shape = (1, *kernel, num_oc) if is_depthwise else (num_oc, *kernel, num_ic)
    weights = rng.integers(-128, 128, shape) * (rng.random(shape) < rng.random())
    num_kernels, taps = pick(1, 6), kernel[0] * kernel[1]
    least_kernels = (
        num_oc // num_ic if is_depthwise else min(num_kernels, (-(-num_oc // CONFIG.num_cores) - 1) % num_kernels + 1)
    )
    longest = taps * min(least_kernels, MAX_STEP_KERNELS) if taps > 1 else least_kernels
    return Layer(
        acts=rng.integers(-128, 128, (1, span[0] + pick(0, 8), span[1] + pick(0, 8), num_ic)).astype(np.int8),
        weights=weights.astype(np.int8),
        bias=rng.integers(-2000, 2000, num_oc),
        is_depthwise=is_depthwise,
        stride=(pick(1, 2), pick(1, 2)),
        dilation=dilation,
        pads=(pick(0, 3), pick(0, 3), pick(0, 3), pick(0, 3)),
        is_flat=is_flat,
        split_log2=0 if is_flat else pick(0, 2),
        rows_per_group=pick(1, 4),
        num_kernels=num_kernels,
        run_bits=pick(0, min(longest.bit_length() - 1, MAX_RUN_BITS)),
        zero_point_in=pick(-128, 127),
    )


def simple_layer() -> Layer:
    """A 1x1 convolution of two 3x4 channels."""
    acts = np.arange(24, dtype=np.int8).reshape(1, 3, 4, 2)
    return Layer(
        acts,
        np.array([[1, 2], [3, -4], [0, 5]], np.int8).reshape(3, 1, 1, 2),
        np.array([7, 0, -9]),
        zero_point_in=0,
        scale=1.0,
    )


def test_pointwise_by_hand():
    """Pixel p has inputs 2p and 2p + 1; the three kernels give 6p + 2 + 7, -2p - 4 and 10p + 5 - 9, less 4 for the
    output zero point.
    """
    image = Image()
    image.run(NN.encode(**simple_layer().lower(image)))
    p = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(image.output(3, 3, 4), [6 * p + 5, -2 * p - 8, 10 * p - 8])


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1))
def test_layers(seed):
    image, layer = Image(), random_layer(seed)
    image.run(NN.encode(**layer.lower(image)))
    expected = layer.expected()
    np.testing.assert_array_equal(image.output(*expected.shape), expected)
    assert not image.memory[OUT_ADDR + expected.size : OUT_ADDR + expected.size + 64].any()


@settings(max_examples=80)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 3]), st.integers(1, 6))
def test_pooled_layers(seed, size, rows):
    """Layers whose outputs are made even or odd, in groups of any number of rows."""
    image, layer = Image(), random_layer(seed)
    layer.rows_per_group = rows
    _, num_rows, num_cols = layer.expected().shape
    parity = size % 2
    spare = [(extent - parity) % 2 + (2 if extent == 1 and size == 3 else 0) for extent in (num_rows, num_cols)]
    layer.pads = (
        layer.pads[0] + spare[0] * layer.stride[0],
        layer.pads[1],
        layer.pads[2] + spare[1] * layer.stride[1],
        layer.pads[3],
    )
    num_rows = layer.expected().shape[1]
    expected = ops.max_pool(layer.expected().transpose(1, 2, 0)[None], (size, size), (2, 2))[0].transpose(2, 0, 1)
    num_oc, pooled_rows, pooled_cols = expected.shape
    pitch = pooled_cols + 3
    layer.plane_bytes = pooled_rows * pitch
    image.run(
        NN.encode(
            **layer.lower(image)
            | dict(
                pool_size=size,
                pool_rows=rows,
                pool_rows_last=(num_rows - 1) % rows + 1,
                out_pitch_row_bytes=pitch,
                out_group_step_bytes=rows // 2 * pitch,
            )
        )
    )
    found = image.output(num_oc, pooled_rows, pitch)
    np.testing.assert_array_equal(found[..., :pooled_cols], expected)
    assert not found[..., pooled_cols:].any()


def test_a_pool_over_two_descriptors():
    """Four rows, then the fifth with what was kept of them; a descriptor between them, or another width, is not
    possible.
    """
    acts = np.random.default_rng(3).integers(-128, 128, (1, 5, 3, 1)).astype(np.int8)
    image = Image()
    layer = Layer(
        acts,
        np.ones((2, 1, 1, 1), np.int8),
        np.array([0, 9]),
        num_kernels=1,
        rows_per_group=5,
        zero_point_in=0,
        scale=1.0,
        plane_bytes=2,
    )
    expected = ops.max_pool(layer.expected().transpose(1, 2, 0)[None], (3, 3), (2, 2))[0, :, 0].T
    fields = layer.lower(image) | dict(pool_size=3, out_pitch_row_bytes=1)
    first = fields | dict(pool_rows_last=4, num_pos_last=12, num_vec_last=2, pool_is_open=1)
    second = fields | dict(
        pool_rows_last=1,
        num_pos_last=3,
        num_vec_last=1,
        pool_continues=1,
        act_addr=fields["act_addr"] + 4 * 6,
        tile_ih=1,
        num_act_inner=1,
        tile_rows=1,
        out_addr=OUT_ADDR + 2,
        load_after_fill=1,
    )
    image.run(NN.encode(**first), NN.encode(**second))
    np.testing.assert_array_equal(image.output(2, 2), expected)
    image.memory[OUT_ADDR : OUT_ADDR + 8] = 0
    for descriptors in (
        [second],
        [
            first,
            first | dict(pool_is_open=0, pool_rows_last=5, num_pos_last=15, num_vec_last=2, load_after_fill=1),
            second,
        ],
    ):
        with pytest.raises(
            MachineError, match=r"NN\.pool_continues = 1: the descriptor before has left no rows of 3 outputs"
        ):
            image.run(*(NN.encode(**fields) for fields in descriptors))


def test_record_and_stripe_kept():
    """The completion record is written and two descriptors run in order."""
    image, layer = Image(), simple_layer()
    fields = layer.lower(image)
    image.put(b"\xff" * 3 * COMPLETION.num_bytes, RECORD_ADDR)
    second = fields | dict(out_addr=OUT_ADDR + 36, load_after_fill=1, wait_nn=1)
    image.run(NN.encode(**fields), NN.encode(**second))
    assert not image.memory[RECORD_ADDR : RECORD_ADDR + 2 * COMPLETION.num_bytes].any()
    assert image.memory[RECORD_ADDR + 2 * COMPLETION.num_bytes : RECORD_ADDR + 3 * COMPLETION.num_bytes].all()
    np.testing.assert_array_equal(image.output(2, 36)[0], image.output(2, 36)[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(opcode=9), r"descriptor 0 at 0x2f000: HEADER.opcode = 9 is unknown: use 1, 2"),
        (dict(reserved=1), "HEADER.reserved = 1"),
        (dict(num_groups=0), "NN.num_groups = 0: use at least 1"),
        (dict(tap_addr=0x104), "NN.tap_addr = 0x104: align it to 32 bytes"),
        (
            dict(act_run_bytes=5),
            "num_act_outer . num_act_inner . act_run_bytes = 30, but num_ic . tile_ih . tile_iw = 24",
        ),
        (dict(act_addr=0x40000), "NN.act_addr: bytes 0x40000..0x40028 are outside the memory of 0x30000 bytes"),
        (dict(phase_mask=2), "NN.phase_mask = 0b10: use a part of 0b1"),
        (dict(num_phases=2), "NN.num_phases = 2, but phase_mask stores 1"),
        (dict(tile_rows=2), "NN.tile_rows = 2: use at least 3"),
        (dict(pitch_row=3), "NN.pitch_row = 3: pixels of the image overlap in the stripe"),
        (dict(phase_words=1, channel_words=1), "NN.phase_words = 1: a phase plane has 12 pixels"),
        (dict(channel_words=1), "NN.channel_words = 1: use at least num_phases . phase_words = 2"),
        (dict(stripe_word=8191), "NN.stripe_word: the stripe ends at word 8195, the stripe memory at 8192"),
        (dict(num_slots=200), r"num_slots . num_phases . seg_words . .1 \+ is_wide. = 400 exceeds window_words = 256"),
        (
            dict(num_vec=40, num_vec_x=40),
            r"NN.num_vec . num_kernels . .1 \+ is_wide. = 80 exceeds num_acc_entries = 64",
        ),
        (dict(num_vec_last=2), "NN.num_vec_last = 2 exceeds num_vec = 1"),
        (dict(kernels_per_z=1), "NN.kernels_per_z = 1: a convolution has num_kernels = 2"),
        (dict(is_depthwise=1), "NN.num_kernels = 2: a depthwise layer has num_z . kernels_per_z = 4"),
        (dict(num_z=1), r"NN.num_z = 1: a convolution has num_ic / .1 \+ is_wide. = 2"),
        (dict(is_wide=1), r"NN.num_z = 2: a convolution has num_ic / .1 \+ is_wide. = 1"),
        (dict(is_wide=1, num_z=1, num_z_last=1, has_lut=1), "NN.has_lut = 1: use 0 with is_wide"),
        (dict(is_wide=1, zero_point_in=1), "NN.zero_point_in = 1: use 0 with is_wide"),
        (dict(is_wide=1, channel_words=3), "NN.channel_words = 3: use num_phases . phase_words with is_wide"),
        (
            dict(run_bits=2),
            (
                "NN.run_bits = 2: 2..run_bits must not exceed 2 .num_taps . min.kernels_per_z, 4., or kernels_per_z if "
                "there is one tap."
            ),
        ),
        (dict(num_taps=2, run_bits=3), "NN.run_bits = 3: 2..run_bits must not exceed 4"),
        (dict(split_log2=1), "NN.split_log2 = 1: use 0 with is_flat"),
        (dict(split_log2=1, is_flat=0, split_words=1), "NN.pitch_row = 4: split_log2 and split_words make it 12"),
        (dict(is_wide=1, num_z=1, num_z_last=1, rounding=3), "NN.rounding = 3: use 0..2 with is_wide"),
        (dict(act_min=-129), "NN.act_min, act_max = -129, 127"),
        (dict(tile_ow=5), "NN.tile_ow = 5 exceeds drain_pitch = 4"),
        (dict(num_vec_x=2), "NN.num_vec_x = 2: use num_vec = 1 with is_flat"),
        (dict(num_pos=12), "NN.num_pos = 12: position 11 is in vector 1, but the group has 1"),
        (
            dict(group_step=6),
            "NN: output 8 of a channel reads, with tap 0, pixel 12 of phase plane 0, which was not loaded",
        ),
        (dict(group_step=7, seg_words=1), "NN.seg_words = 1: window offset 10 is read, the window ends at 8"),
        (dict(num_taps=8), "STREAM of superblock 0, core 0: the weight stream ends at position 7 instead of 31"),
        (dict(out_addr=0x2FFF0), "NN.out_addr: bytes 0x2fff0..0x30014 are outside the memory"),
    ],
)
def test_malformed_nn(changes, message):
    image = Image()
    fields = simple_layer().lower(image)
    with pytest.raises(MachineError, match=message):
        image.run(NN.encode(**fields | changes))


def test_malformed_tables():
    image = Image()
    fields = simple_layer().lower(image)
    entry = image.memory[fields["stream_addr"] :][:8].copy()
    image.put(STREAM.encode(offset_bytes=0, num_beats=2), fields["stream_addr"])
    with pytest.raises(MachineError, match=r"STREAM.num_beats of superblock 0, core 0 = 2: 4 weights take at most 1"):
        image.run(NN.encode(**fields))
    tokens = image.memory[fields["wgt_addr"] :][:8].copy()
    image.put(b"\xff" * 8, fields["wgt_addr"])  # each token is 15 zeros and a weight
    with pytest.raises(
        MachineError, match=r"STREAM.num_beats of superblock 0, core 0 = 2: the last token is in beat 1"
    ):
        image.run(NN.encode(**fields | dict(num_taps=16, run_bits=4)))
    image.put(tokens.tobytes(), fields["wgt_addr"])
    image.put(STREAM.encode(offset_bytes=8, num_beats=1), fields["stream_addr"])
    with pytest.raises(MachineError, match="offset_bytes = 8: use at least 1 beat and a multiple of 32"):
        image.run(NN.encode(**fields))
    image.put(entry.tobytes(), fields["stream_addr"])
    image.put(
        PARAM.encode(bias=0, mult=0, is_valid=0, out_offset_bytes=0, shift_left=0, shift_right=0, bias_low=0),
        fields["param_addr"],
    )
    with pytest.raises(
        MachineError, match=r"PARAM.is_valid = 0 in superblock 0, kernel 0, core 0: its weights are not zero"
    ):
        image.run(NN.encode(**fields))


def test_stripes_that_overlap_need_load_after_fill():
    image = Image()
    fields = simple_layer().lower(image)
    with pytest.raises(MachineError, match=r"descriptor 1 .*NN.load_after_fill = 0, but stripe words 3..6 overlap"):
        image.run(NN.encode(**fields), NN.encode(**fields))
    image.run(NN.encode(**fields), NN.encode(**fields | dict(stripe_word=7)))


def test_tokens_by_hand():
    """Three tokens of 10 bits (run 0, value 5), (run 2, value -1), (run 1, value 0): weights 5 0 0 -1 0 0."""
    bits = 5 | (0xFF | 2 << 8) << 10 | (0 | 1 << 8) << 20
    weights, num_bits = decode_tokens(np.frombuffer(bits.to_bytes(8, "little"), np.uint8), 2, 6)
    assert (weights.tolist(), num_bits) == ([5, 0, 0, -1, 0, 0], 30)
    with pytest.raises(MachineError, match="jumps to position 5, over the last position 4"):
        decode_tokens(np.frombuffer(bits.to_bytes(8, "little"), np.uint8), 2, 5)
    with pytest.raises(MachineError, match="ends at position 0 instead of 5"):
        decode_tokens(np.array([5, 0], np.uint8), 2, 6)


def test_tokens_hold_weights_less_their_zero_point():
    """Zero points 0, 200 and 255 of uint8: weights 0..255, -200..55, -255..0."""
    raw = np.array([0, 1, 55, 56, 255], np.uint8)
    for zero_point, expected in (
        (-128, [0, 1, 55, 56, 255]),
        (72, [0, 1, 55, -200, -1]),
        (127, [0, -255, -201, -200, -1]),
        (0, [0, 1, 55, 56, -1]),
    ):
        assert decode_tokens(raw, 0, 5, zero_point)[0].tolist() == expected


# Hazards


def copy(source: int, target: int, half: int = 0, **waits: int) -> bytes:
    """Eight bytes from one address to another."""
    return tp(
        op=TpOp.COPY,
        a_addr=source,
        a_run_bytes=8,
        num_2=8,
        step_2=1,
        out_addr=target,
        out_run_bytes=8,
        buffer_half=half,
        **waits,
    )


def test_hazards_within_an_engine():
    first, second = copy(ACT_ADDR, OUT_ADDR), copy(OUT_ADDR, OUT_ADDR + 8, half=1)
    with pytest.raises(
        MachineError,
        match=(
            r"descriptor 1 .*TP.a_addr: reads bytes written by descriptor 0, which may not have completed: set "
            r"wait_tp"
        ),
    ):
        Image().run(first, second)
    Image().run(first, copy(OUT_ADDR, OUT_ADDR + 8, half=1, wait_tp=1))
    image = Image()
    fields = simple_layer().lower(image)
    second = fields | dict(act_addr=OUT_ADDR, out_addr=OUT_ADDR + 0x100, load_after_fill=1)
    with pytest.raises(
        MachineError, match=r"descriptor 1 .*NN.act_addr: reads bytes written by descriptor 0.*: set wait_nn"
    ):
        image.run(NN.encode(**fields), NN.encode(**second))
    image.run(NN.encode(**fields), NN.encode(**second | dict(wait_nn=1)))
    with pytest.raises(MachineError, match=r"NN.out_addr: the descriptor writes bytes that it reads itself"):
        image.run(NN.encode(**fields | dict(out_addr=ACT_ADDR)))
    with pytest.raises(MachineError, match=r"TP.out_addr: the descriptor writes bytes that it reads itself"):
        image.run(copy(ACT_ADDR, ACT_ADDR + 4))


def test_hazards_between_engines():
    image = Image()
    fields = simple_layer().lower(image)
    layer, again = (
        NN.encode(**fields),
        fields | dict(stripe_word=100, act_addr=ACT_ADDR + 0x100, out_addr=OUT_ADDR + 0x100),
    )
    with pytest.raises(MachineError, match=r"TP.a_addr: reads bytes written by descriptor 0.*: set wait_nn"):
        image.run(layer, copy(OUT_ADDR, OUT_ADDR + 0x100))
    with pytest.raises(MachineError, match=r"TP.out_addr: writes bytes read by descriptor 0.*: set wait_nn"):
        image.run(layer, copy(OUT_ADDR + 0x100, ACT_ADDR))
    with pytest.raises(
        MachineError, match=r"TP.out_addr: writes bytes read by descriptor 0"
    ):  # a wait of the NN loader does not hold TP
        image.run(layer, NN.encode(**again | dict(wait_nn=1)), copy(OUT_ADDR + 0x200, ACT_ADDR))
    image.run(layer, copy(OUT_ADDR + 0x100, ACT_ADDR, wait_nn=1))
    with pytest.raises(MachineError, match=r"NN.act_addr: reads bytes written by descriptor 0.*: set wait_tp"):
        image.run(copy(OUT_ADDR, ACT_ADDR), layer)
    image.run(copy(OUT_ADDR, ACT_ADDR), NN.encode(**fields | dict(wait_tp=1)))
    with pytest.raises(
        MachineError, match=r"TP.a_addr: reads bytes written by descriptor 0"
    ):  # nor does it when it waits for TP
        image.run(
            copy(OUT_ADDR, OUT_ADDR + 0x200),
            NN.encode(**fields | dict(wait_tp=1)),
            copy(OUT_ADDR + 0x200, OUT_ADDR + 0x300, half=1),
        )
    with pytest.raises(MachineError, match=r"NN.param_addr: reads ahead bytes written by descriptor 0"):
        image.run(copy(OUT_ADDR, fields["param_addr"]), NN.encode(**fields | dict(wait_tp=1)))


# Tensor processor


def tp(**changes: int) -> bytes:
    fields = dict.fromkeys(TP.fields, 0) | dict(
        opcode=Opcode.TP,
        a_addr=ACT_ADDR,
        num_a_runs=1,
        num_0=1,
        num_1=1,
        num_2=1,
        tile_ih=255,
        tile_iw=255,
        out_addr=OUT_ADDR,
        act_min=-128,
        act_max=127,
    )
    return TP.encode(**fields | changes)


def test_copy_transposes():
    """A 2x3x4 image in runs of 12 bytes is transposed plane by plane and written in runs of 6."""
    image, acts = Image(), np.arange(24, dtype=np.int8).reshape(2, 3, 4)
    image.put(acts[0].tobytes(), ACT_ADDR)
    image.put(acts[1].tobytes(), ACT_ADDR + 20)
    image.run(
        tp(
            op=TpOp.COPY,
            a_run_bytes=12,
            num_a_runs=2,
            a_pitch_bytes=20,
            num_0=2,
            num_1=4,
            num_2=3,
            step_0=12,
            step_1=1,
            step_2=4,
            out_run_bytes=6,
            out_pitch_bytes=10,
        )
    )
    np.testing.assert_array_equal(image.output(4, 10)[:, :6].ravel(), acts.transpose(0, 2, 1).ravel())


def test_copy_splits_phases():
    """Every third row and every second column of a 5x5 image, from row 1 and column 1, in a frame of one column on
    the left and one row below.
    """
    image, acts = Image(), np.arange(25, dtype=np.int8).reshape(5, 5)
    image.put(acts.tobytes(), ACT_ADDR)
    image.run(
        tp(
            op=TpOp.COPY,
            a_addr=ACT_ADDR + 6,
            a_run_bytes=19,
            num_1=3,
            num_2=4,
            step_1=15,
            step_2=2,
            start_x=-1,
            tile_ih=2,
            tile_iw=2,
            zero_point_out=-7,
            out_run_bytes=12,
        )
    )
    np.testing.assert_array_equal(image.output(3, 4), [[-7, 6, 8, -7], [-7, 21, 23, -7], [-7, -7, -7, -7]])


def test_copies_in_turn():
    image = Image()
    image.put(bytes(range(8)), ACT_ADDR)
    image.run(
        tp(op=TpOp.COPY, a_run_bytes=8, num_2=8, step_1=0, step_2=1, out_run_bytes=8),
        tp(
            op=TpOp.COPY,
            wait_tp=1,
            buffer_half=1,
            a_addr=OUT_ADDR,
            a_run_bytes=8,
            num_1=2,
            num_2=4,
            step_1=4,
            step_2=1,
            out_run_bytes=8,
            out_addr=OUT_ADDR + 8,
        ),
    )
    assert image.output(16).tolist() == [*range(8)] * 2


@given(st.integers(0, 2**32 - 1))
def test_add(seed):
    rng = np.random.default_rng(seed)
    image, (a, b) = Image(), rng.integers(-128, 128, (2, 6, 10)).astype(np.int8)
    quants = [
        (float(np.float32(rng.choice([0.25, 0.5, rng.uniform(0.01, 0.9)]))), int(rng.integers(-128, 128)))
        for _ in range(3)
    ]
    quants[2] = (quants[2][0] + 0.01, quants[2][1])
    image.put(a.tobytes(), ACT_ADDR)
    image.put(b.tobytes(), ACT_ADDR + 100)
    scale = 2 * max(quants[0][0], quants[1][0])
    out_scale = float(np.float32(quants[2][0]))
    factors = [
        quantize_multiplier(factor)
        for factor in (quants[0][0] / scale, quants[1][0] / scale, scale / ((1 << 20) * out_scale))
    ]
    fields = {
        f"{name}_{kind}": factor[i]
        for name, factor in zip(("a", "b", "out"), factors, strict=True)
        for i, kind in ((0, "mult"), (2, "shift"))
    }
    image.run(
        tp(
            op=TpOp.ADD,
            a_run_bytes=60,
            b_addr=ACT_ADDR + 100,
            b_run_bytes=30,
            num_b_runs=2,
            b_pitch_bytes=30,
            num_1=6,
            num_2=10,
            step_1=10,
            step_2=1,
            b_step_1=10,
            b_step_2=1,
            out_run_bytes=60,
            a_zero_point=quants[0][1],
            b_zero_point=quants[1][1],
            zero_point_out=quants[2][1],
            act_min=-100,
            **fields,
        )
    )
    np.testing.assert_array_equal(image.output(6, 10), np.maximum(ops.add(a, b, *quants), -100))


@pytest.mark.parametrize(("op", "layer"), [(TpOp.MAX_POOL, ops.max_pool), (TpOp.AVG_POOL, ops.average_pool)])
@given(seed=st.integers(0, 2**32 - 1))
def test_pool(op, layer, seed):
    rng = np.random.default_rng(seed)
    image, acts = Image(), rng.integers(-128, 128, (1, *rng.integers(3, 9, 2), 3)).astype(np.int8)
    kernel, stride, pads = (tuple(map(int, rng.integers(1, 4, n))) for n in (2, 2, 4))
    pads = tuple(min(pad, kernel[i // 2] - 1) for i, pad in enumerate(pads))
    expected = layer(acts, kernel, stride, padding=pads)[0].transpose(2, 0, 1)
    image.put(acts[0].transpose(2, 0, 1).tobytes(), ACT_ADDR)
    image.run(
        tp(
            op=op,
            a_run_bytes=acts.size,
            num_0=3,
            num_1=expected.shape[1],
            num_2=expected.shape[2],
            step_0=acts.size // 3,
            kernel_h=kernel[0],
            kernel_w=kernel[1],
            stride_h=stride[0],
            stride_w=stride[1],
            start_y=-pads[0],
            start_x=-pads[2],
            tile_ih=acts.shape[1],
            tile_iw=acts.shape[2],
            out_run_bytes=expected.size,
        )
    )
    np.testing.assert_array_equal(image.output(*expected.shape), expected)


WINDOW = dict(kernel_h=1, kernel_w=1, stride_w=1, tile_ih=1, tile_iw=8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(op=10), "TP.op = 10 is unknown: use 0..9"),
        (dict(num_1=0), "TP.num_1 = 0: use at least 1 for COPY"),
        (dict(a_run_bytes=9000), "= 9000 exceeds half of the TP buffer, 8192"),
        (dict(b_run_bytes=4, num_b_runs=1), "TP.b_run_bytes = 4: COPY has no operand B"),
        (dict(step_2=2), r"TP.step_0, step_1, step_2: buffer bytes 0..14 are read, but 0..7 were loaded"),
        (dict(start_x=1), r"TP.start_y, start_x = 0, 1: use at most 0 for COPY"),
        (dict(zero_point_out=200), r"TP.zero_point_out = 200: use -128..127"),
        (dict(out_run_bytes=3), "TP.out_run_bytes = 3 does not divide the 8 output bytes"),
        (dict(a_addr=0x2FFFF), "TP.a_addr: bytes 0x2ffff..0x30007 are outside the memory"),
        (dict(out_addr=0x2FFFF), "TP.out_addr: bytes 0x2ffff..0x30007 are outside the memory"),
        (
            dict(op=TpOp.MAX_POOL, kernel_h=1, kernel_w=1, stride_w=1, tile_ih=1, tile_iw=7),
            "a pooling window lies outside the image",
        ),
        (
            dict(op=TpOp.ADD, b_addr=ACT_ADDR, b_run_bytes=4, num_b_runs=1, b_step_2=1),
            "b_step_2: buffer bytes 0..7 are read, but 0..3 were loaded",
        ),
        (
            dict(op=TpOp.MUL, b_addr=ACT_ADDR, b_run_bytes=8, num_b_runs=1, b_shift=8),
            "TP.b_shift = 8: use at most 7 for MUL",
        ),
        (
            dict(op=TpOp.MUL, b_addr=ACT_ADDR, b_run_bytes=8, num_b_runs=1, b_shift=1, is_wide=1),
            "TP.b_shift = 1: use at most 0 for MUL with is_wide",
        ),
        (
            dict(op=TpOp.AVG_POOL, act_max=128) | WINDOW,
            "TP.act_min, act_max = -128, 128: use -128 <= act_min <= act_max <= 127",
        ),
        (dict(op=TpOp.AVG_POOL, is_high=1) | WINDOW, "TP.is_high = 1: use 0 without is_wide"),
        (dict(op=TpOp.AVG_POOL, is_wide=1, has_lut=1) | WINDOW, "TP.has_lut = 1: use 0 with is_wide"),
        (
            dict(op=TpOp.MAX_POOL, is_wide=1, act_min=9, act_max=-9) | WINDOW,
            "use -32768 <= act_min <= act_max <= 32767",
        ),
        (
            dict(op=TpOp.MAX_POOL, is_wide=1, a_high_bytes=1) | WINDOW,
            "TP.a_high_bytes: buffer bytes 1..8 are read, but 0..7 were loaded",
        ),
        (
            dict(
                op=TpOp.ADD,
                b_addr=ACT_ADDR,
                b_run_bytes=8,
                num_b_runs=1,
                b_step_2=1,
                num_2=4,
                out_run_bytes=4,
                is_wide=1,
                a_high_bytes=4,
                b_high_bytes=5,
            ),
            "TP.b_high_bytes: buffer bytes 5..8 are read",
        ),
        (
            dict(op=TpOp.ADD, b_addr=ACT_ADDR, b_run_bytes=8, num_b_runs=1, is_wide=1, zero_point_out=1),
            "TP.zero_point_out = 1: use 0 with is_wide",
        ),
        (dict(is_wide=1), "TP.is_wide = 1: use 0 for COPY"),
        (dict(op=TpOp.BILINEAR, kernel_h=2, kernel_w=3), "TP.kernel_h, kernel_w = 2, 3: use 2, 2 for BILINEAR"),
        (
            dict(op=TpOp.BILINEAR, kernel_h=2, kernel_w=2, stride_w=1, tile_ih=1, tile_iw=7),
            "a window lies outside the image",
        ),
    ],
)
def test_malformed_tp(changes, message):
    with pytest.raises(MachineError, match=message):
        Image().run(tp(**dict(op=TpOp.COPY, a_run_bytes=8, num_2=8, step_2=1, out_run_bytes=8) | changes))


def test_tp_halves_alternate():
    descriptor = tp(op=TpOp.COPY, a_run_bytes=1, out_run_bytes=1)
    with pytest.raises(
        MachineError, match=r"descriptor 1 .*TP.buffer_half = 0: the previous TP descriptor uses this half, alternate"
    ):
        Image().run(descriptor, descriptor)


def test_run_arguments():
    machine = Machine(CONFIG, bytearray(256))
    with pytest.raises(MachineError, match="program_addr = 0x40, count = 1"):
        machine.run(0x40, 1, 0)
    with pytest.raises(TypeError, match="memory is a 1-dimensional array of int8"):
        Machine(CONFIG, np.zeros(4, np.int8)).run(0, 1, 0)


def test_outputs_are_looked_up():
    image = Image()
    table = np.random.default_rng(5).permutation(256).astype(np.uint8)
    acts = np.arange(-128, 128).astype(np.int8)
    image.put(acts.tobytes(), ACT_ADDR)
    image.put(table.tobytes(), 0x1000)
    fields = dict.fromkeys(TP.fields, 0) | dict(
        opcode=Opcode.TP,
        op=TpOp.COPY,
        a_addr=ACT_ADDR,
        a_run_bytes=256,
        num_a_runs=1,
        num_0=1,
        num_1=1,
        num_2=256,
        step_2=1,
        tile_ih=1,
        tile_iw=256,
        out_addr=OUT_ADDR,
        out_run_bytes=256,
        has_lut=1,
        lut_addr=0x1000,
    )
    image.run(TP.encode(**fields))
    np.testing.assert_array_equal(image.output(256), table.view(np.int8)[acts.view(np.uint8)])
    with pytest.raises(MachineError, match=r"TP\.lut_addr = 0x1020: align it to 256 bytes"):
        image.run(TP.encode(**(fields | {"lut_addr": 0x1020})))
