"""Convolutions and FULLY_CONNECTED layers as descriptors with swapped operands, for tests of hardware and golden model
alike; `docs/architecture.md` says what they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from convoy.golden import ops
from convoy.golden.quant import double_rounding, quantize_multiplier
from convoy.spec.config import NpuConfig
from convoy.spec.isa import ADD_SHIFT, LUT_BYTES, MAX_SRC_PLANE_BYTES, NN, PARAM, Opcode, Rounding

__all__ = ["SwappedImage", "SwappedLayer", "random_swapped", "swapped_tokens"]

_MULT = 1 << 30
"""One half, in Q31."""


@dataclass
class SwappedLayer:
    """A layer of int8 whose operands are swapped. Its output is that of `expected`, planar, without gaps."""

    acts: np.ndarray
    """int8, shape (1, IH, IW, IC)."""
    weights: np.ndarray
    """int8, shape (OC, KH, KW, IC)."""
    bias: np.ndarray
    """Shape (OC,)."""
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, bottom, left, right."""
    zero_point_in: int = 0
    scales: np.ndarray = field(default_factory=lambda: np.array([0.004], np.float32))
    """Of the weights, one or one of each output channel."""
    tile_oc: int = 0
    """Output channels of a descriptor; 0: as many as the accumulators hold."""
    ring_channels: int = 0
    """At most so many rows of weights are in the stripe memory; 0: as many as fit."""
    table: np.ndarray | None = None
    """int8, shape (256,): what becomes of an output y at y & 255."""
    residual: np.ndarray | None = None
    """int8, shape (OC, OH, OW): is added to the outputs, half of each."""

    def expected(self) -> np.ndarray:
        """int8, shape (OC, OH, OW)."""
        quants = (1.0, self.zero_point_in), self.scales.astype(np.float32), (1.0, -4)
        outputs = ops.conv2d(self.acts, self.weights, self.bias, *quants, self.stride, self.dilation, self.pads)
        outputs = outputs[0].transpose(2, 0, 1)
        if self.table is not None:
            outputs = self.table[outputs.astype(np.int64) & 255]
        if self.residual is not None:
            halves = [
                double_rounding(values.astype(np.int64) << ADD_SHIFT, _MULT, 0, 0)
                for values in (outputs, self.residual)
            ]
            outputs = np.clip(double_rounding(halves[0] + halves[1], _MULT, 0, ADD_SHIFT - 1), -128, 127)
        return outputs.astype(np.int8)

    def lower(
        self, config: NpuConfig, put: Callable[[bytes], int], src_addr: int, out_addr: int, res_addr: int = 0
    ) -> list[dict[str, int]]:
        """Put the tables into memory by `put`, which gives their aligned address; the fields of the descriptors.

        The activations, (IC, IH, IW) bytes, are at `src_addr`, the residual at `res_addr`.
        """
        _, num_oh, num_ow = self.expected().shape
        num_pos = num_oh * num_ow
        num_kernels = -(-num_pos // config.num_cores)
        most_oc = config.num_lanes * min(config.num_acc_entries // num_kernels, config.window_words)
        tile_oc = min(self.tile_oc or most_oc, most_oc)
        common = self._source_fields(src_addr) | dict(
            tap_addr=put(bytes(32)),
            out_addr=out_addr,
            res_addr=res_addr,
            src_oh=num_oh,
            src_ow=num_ow,
            num_pos=num_pos,
            num_pos_last=num_pos,
            res_run_bytes=num_pos,
            res_run_bytes_last=num_pos,
        )
        common |= {
            f"{name}{suffix}": num_kernels for name in ("num_kernels", "kernels_per_z") for suffix in ("", "_last")
        }
        if self.table is not None:
            common |= {"has_lut": 1, "lut_addr": put(self.table.tobytes())}
        return [
            common | self._tile_fields(config, put, range(first, min(first + tile_oc, len(self.weights))), num_pos)
            for first in range(0, len(self.weights), tile_oc)
        ]

    def _source_fields(self, src_addr: int) -> dict[str, int]:
        _, num_ih, num_iw, num_ic = self.acts.shape
        _, num_kh, num_kw, _ = self.weights.shape
        one = ("num_sb", "num_groups", "num_taps", "num_phases", "phase_mask", "tile_ih", "tile_rows", "is_flat")
        one += ("num_act_inner", "num_act_outer", "drain_pitch", "tile_ow", "num_res_runs", "num_res_runs_last")
        return (
            dict.fromkeys(NN.fields, 0)
            | dict.fromkeys(one, 1)
            | dict(
                opcode=Opcode.NN,
                is_swapped=1,
                src_addr=src_addr,
                src_bytes=num_ic * num_ih * num_iw,
                num_src_planes=num_ic,
                src_plane_bytes=num_ih * num_iw,
                src_ih=num_ih,
                src_iw=num_iw,
                src_kernel_h=num_kh,
                src_kernel_w=num_kw,
                src_stride_h=self.stride[0],
                src_stride_w=self.stride[1],
                src_dilation_h=self.dilation[0],
                src_dilation_w=self.dilation[1],
                src_start_y=-self.pads[0],
                src_start_x=-self.pads[2],
                src_start_bytes=-self.pads[0] * num_iw - self.pads[2],
                src_step_row_bytes=self.stride[0] * num_iw,
                src_step_tap_bytes=self.dilation[0] * num_iw,
                wgt_zero_point=self.zero_point_in,
                zero_point_out=-4,
                act_min=-128,
                act_max=127,
                rounding=Rounding.DOUBLE,
                has_residual=int(self.residual is not None),
                res_a_mult=_MULT,
                res_b_mult=_MULT,
                res_out_mult=_MULT,
                res_out_shift=ADD_SHIFT - 1,
                res_act_min=-128,
                res_act_max=127,
            )
        )

    def _tile_fields(
        self, config: NpuConfig, put: Callable[[bytes], int], channels: range, num_pos: int
    ) -> dict[str, int]:
        """Those of the descriptor that computes these output channels."""
        image = self.weights[channels.start : channels.stop].transpose(3, 1, 2, 0).reshape(-1, len(channels))
        num_z, num_vec = len(image), -(-len(channels) // config.num_lanes)
        most_channels = min(self.ring_channels or num_z, config.stripe_words // num_vec)
        ring = {"ring_channels": most_channels} if most_channels < num_z else {}
        params = b"".join(self._param(oc, num_pos) for oc in channels)
        return (
            dict(
                act_addr=put(np.ascontiguousarray(image).tobytes()),
                act_run_bytes=image.size,
                num_ic=num_z,
                num_z=num_z,
                num_z_last=num_z,
                tile_iw=len(channels),
                tile_cols=len(channels),
                pitch_row=num_vec * config.num_lanes,
                phase_words=num_vec,
                channel_words=num_vec,
                seg_words=num_vec,
                load_after_fill=1,
                num_slots=config.window_words // num_vec,
                num_vec=num_vec,
                num_vec_last=num_vec,
                num_vec_x=num_vec,
                step_vec_x=config.num_lanes,
                param_addr=put(params),
            )
            | ring
        )

    def _param(self, oc: int, num_pos: int) -> bytes:
        mult, left, right = quantize_multiplier(float(self.scales[oc % len(self.scales)]))
        return PARAM.encode(
            bias=int(self.bias[oc]),
            mult=mult,
            is_valid=1,
            out_offset_bytes=oc * num_pos,
            shift_left=left,
            shift_right=right,
            bias_low=0,
        )


def random_swapped(config: NpuConfig, rng: np.random.Generator, max_macs: int = 1 << 15) -> SwappedLayer:
    """A layer of at most about so many products, of any shape that a swapped descriptor of `config` may have."""

    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    is_connected = pick(0, 3) == 0
    kernel = (1, 1) if is_connected else (pick(1, 4), pick(1, 4))
    stride, dilation = (pick(1, 3), pick(1, 3)), (pick(1, 2), pick(1, 2))
    span = [(extent - 1) * gap + 1 for extent, gap in zip(kernel, dilation, strict=True)]
    pads = (0,) * 4 if is_connected else tuple(pick(0, extent - 1) for extent in (span[0], span[0], span[1], span[1]))
    size_in = (1, 1) if is_connected else (pick(1, 7), pick(1, 7))
    size_in = tuple(
        max(size, extent - sum(pads[2 * axis : 2 * axis + 2]))
        for axis, (size, extent) in enumerate(zip(size_in, span, strict=True))
    )
    num_oh, num_ow = (
        (size + pads[2 * axis] + pads[2 * axis + 1] - span[axis]) // stride[axis] + 1
        for axis, size in enumerate(size_in)
    )
    while num_oh * num_ow > config.num_cores * config.num_acc_entries or size_in[0] * size_in[1] > MAX_SRC_PLANE_BYTES:
        return random_swapped(config, rng, max_macs)
    budget = max(1, max_macs // (kernel[0] * kernel[1] * num_oh * num_ow))
    num_oc = pick(1, max(1, min(3 * config.num_lanes, budget)))
    num_ic = pick(1, max(1, min(64, budget // num_oc)))
    shape = (num_oc, *kernel, num_ic)
    layer = SwappedLayer(
        acts=(rng.integers(-128, 128, (1, *size_in, num_ic))).astype(np.int8),
        weights=rng.integers(-128, 128, shape).astype(np.int8),
        bias=rng.integers(-2000, 2000, num_oc),
        stride=stride,
        dilation=dilation,
        pads=pads,
        zero_point_in=pick(-128, 127),
        scales=rng.uniform(1e-4, 1e-2, num_oc if pick(0, 1) else 1).astype(np.float32),
        tile_oc=pick(1, num_oc) if pick(0, 1) else 0,
        ring_channels=pick(1, 6) if pick(0, 1) else 0,
        table=rng.integers(-128, 128, 256).astype(np.int8) if pick(0, 2) == 0 else None,
    )
    layer.acts[rng.random(layer.acts.shape) < rng.random()] = layer.zero_point_in
    if pick(0, 2) == 0:
        layer.residual = rng.integers(-128, 128, (num_oc, num_oh, num_ow)).astype(np.int8)
    return layer


def swapped_tokens(layer: SwappedLayer, num_cores: int) -> list[list[int]]:
    """Each core's stream of tokens, by loops over padded planes."""
    (_, num_ih, num_iw, num_ic), (_, num_kh, num_kw, _) = layer.acts.shape, layer.weights.shape
    _, num_oh, num_ow = layer.expected().shape
    streams: list[list[int]] = [[] for _ in range(num_cores)]
    for plane, ky, kx in np.ndindex(num_ic, num_kh, num_kw):
        tokens = []
        for oy, ox in np.ndindex(num_oh, num_ow):
            y = oy * layer.stride[0] + ky * layer.dilation[0] - layer.pads[0]
            x = ox * layer.stride[1] + kx * layer.dilation[1] - layer.pads[2]
            is_inside = 0 <= y < num_ih and 0 <= x < num_iw
            tokens.append((int(layer.acts[0, y, x, plane]) - layer.zero_point_in) % 256 if is_inside else 0)
        tokens += [0] * (-len(tokens) % num_cores)
        for core, stream in enumerate(streams):
            stream += tokens[core::num_cores]
    return streams


class SwappedImage:
    """Memory with the activations and tables of a layer.

    `fields` are those of its descriptors; `program_addr` and `record_addr` are places for a program of up to 16.
    """

    record_addr, program_addr = 0x800, 0x1000
    src_addr, res_addr, out_addr = 0x10003, 0x20001, 0x30005
    tables_addr, num_bytes = 0x40000, 1 << 20

    def __init__(self, config: NpuConfig, layer: SwappedLayer):
        self.layer = layer
        self.bytes, self.end = np.zeros(self.num_bytes, np.uint8), self.tables_addr
        self._set(self.src_addr, layer.acts[0].transpose(2, 0, 1))
        if layer.residual is not None:
            self._set(self.res_addr, layer.residual)
        self.fields = layer.lower(config, self.put, self.src_addr, self.out_addr, self.res_addr)

    def _set(self, addr: int, values: np.ndarray) -> None:
        self.bytes[addr : addr + values.size] = values.ravel().view(np.uint8)

    def put(self, raw: bytes) -> int:
        """Add a table; its address."""
        addr, self.end = self.end, self.end + -(-len(raw) // LUT_BYTES) * LUT_BYTES
        self.bytes[addr : addr + len(raw)] = np.frombuffer(raw, np.uint8)
        return addr

    def put_program(self, descriptors: list[bytes]) -> None:
        """Put descriptors to `program_addr`."""
        raw = np.frombuffer(b"".join(descriptors), np.uint8)
        self.bytes[self.program_addr : self.program_addr + len(raw)] = raw

    def output(self, memory: np.ndarray | bytes) -> np.ndarray:
        """What the layer has written, and 64 bytes more: int8."""
        return np.frombuffer(memory, np.uint8)[self.out_addr :][: self.layer.expected().size + 64].view(np.int8)
