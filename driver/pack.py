"""Constant tables of a layer: weight streams and their directory, output-channel parameters, tap offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import PARAM, STREAM, TAP_BYTES

from .tile import Tiling
from .work import ConvWork

__all__ = ["ALIGN_BYTES", "Streams", "encode_stream", "pack_params", "pack_streams", "pack_taps", "stream_bits"]

ALIGN_BYTES = 32
"""Alignment of tables and weight streams."""
MAX_RUN_BITS = 5


@dataclass(frozen=True)
class Streams:
    """Weight streams of a layer and the directory that points into them."""

    data: bytes
    directory: bytes
    run_bits: int
    num_bytes: int
    """Bytes of all streams, without alignment."""


def _gaps(weights: np.ndarray) -> np.ndarray:
    """Zeros before each non-zero weight; the last position counts as non-zero, since a stream must end on it."""
    stops = np.flatnonzero(weights)
    if not stops.size or stops[-1] != weights.size - 1:
        stops = np.append(stops, weights.size - 1)
    return np.diff(stops, prepend=-1) - 1


def stream_bits(weights: np.ndarray, run_bits: int) -> int:
    """Bits that `encode_stream` makes of `weights` (n,), before padding to beats."""
    return (8 + run_bits) * int(np.sum((_gaps(weights) >> run_bits) + 1))


def encode_stream(weights: np.ndarray, run_bits: int) -> bytes:
    """Tokens of a weight stream: integers (n,) in the order of consumption, kept modulo 256, n at least 1, as bytes, the last one padded with zero bits.

    Raises
    ------
    ValueError
        When `run_bits` is outside 0..5 or there is no weight.
    """
    if not 0 <= run_bits <= MAX_RUN_BITS or weights.size == 0:
        raise ValueError(f"run_bits = {run_bits} with {weights.size} weights: use 0..{MAX_RUN_BITS} and at least one weight")
    gaps = _gaps(weights)
    last = np.cumsum((gaps >> run_bits) + 1) - 1
    tokens = np.full(int(last[-1]) + 1, ((1 << run_bits) - 1) << 8, np.uint16)
    stops = np.cumsum(gaps + 1) - 1
    tokens[last] = (gaps & ((1 << run_bits) - 1)) << 8 | weights[stops].astype(np.uint8)
    bits = np.unpackbits(tokens.astype("<u2").view(np.uint8).reshape(-1, 2), axis=1, bitorder="little")[:, : 8 + run_bits]
    return np.packbits(bits.ravel(), bitorder="little").tobytes()


def pack_streams(work: ConvWork, tiling: Tiling, kernels: np.ndarray, config: NpuConfig) -> Streams:
    """Encode the weights of every superblock and core; `kernels` as from `deal_channels`. One run length for the layer, the shortest."""
    num_oc, kernel_h, kernel_w, num_z = work.weights.shape
    num_taps = kernel_h * kernel_w
    weights = np.concatenate([work.weights.reshape(num_oc, num_taps, num_z), np.zeros((1, num_taps, num_z), work.weights.dtype)])
    streams = []
    for first in range(0, len(kernels), tiling.num_kernels):
        dealt = weights[kernels[first : first + tiling.num_kernels]]
        # conv: (kernel, core, tap, z) -> core, z, kernel, tap; depthwise has one z per kernel: (z, m) is the kernel already
        streams += list(dealt.transpose(1, 3, 0, 2).reshape(config.num_cores, -1))
    limit = num_taps if num_taps > 1 else min(tiling.kernels_per_z)
    choices = range(min(MAX_RUN_BITS, limit.bit_length() - 1) + 1)
    run_bits = min(choices, key=lambda bits: sum(-(-stream_bits(stream, bits) // config.port_bits) for stream in streams))
    data, directory, num_bytes = bytearray(), bytearray(), 0
    for stream in streams:
        encoded = encode_stream(stream, run_bits)
        num_beats = -(-len(encoded) // config.port_bytes)
        directory += STREAM.encode(offset_bytes=len(data), num_beats=num_beats)
        data += encoded
        num_bytes += num_beats * config.port_bytes
        data += bytes(-len(data) % max(ALIGN_BYTES, config.port_bytes))
    return Streams(bytes(data), bytes(directory), run_bits, num_bytes)


def pack_params(work: ConvWork, kernels: np.ndarray, plane_bytes: int) -> bytes:
    """`PARAM` entries in the order of the drain; output channel planes are `plane_bytes` apart."""
    entries = []
    for oc in kernels.ravel():
        if oc < 0:
            entries.append(PARAM.encode(bias=0, mult=0, is_valid=0, out_offset_bytes=0, shift_left=0, shift_right=0, bias_low=0))
            continue
        exponent = int(work.exponent[oc])
        bias, bias_low = divmod(int(work.bias[oc]), 256) if work.is_wide else (work.bias[oc], 0)
        entries.append(PARAM.encode(bias=bias, bias_low=bias_low, mult=work.mult[oc], is_valid=1, out_offset_bytes=oc * plane_bytes,
                                    shift_left=max(exponent, 0), shift_right=max(-exponent, 0)))
    return b"".join(entries)


def pack_taps(tiling: Tiling, config: NpuConfig) -> bytes:
    """The tap table: unsigned pixel offsets into the window."""
    geometry, group = tiling.geometry, tiling.group
    offsets = [phase * group.seg_words * config.num_lanes + dy * group.pitch_row + dx for phase, dy, dx in geometry.taps]
    return np.array(offsets, f"<u{TAP_BYTES}").tobytes()
