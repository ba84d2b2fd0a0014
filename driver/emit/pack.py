"""Constant tables of a layer: weight streams and their directory, output-channel parameters, tap offsets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from convoy.driver.lower.work import ConvWork
from convoy.driver.plan.tile import Tiling
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import TOKEN_BUFFER_BITS, TOKEN_PART_BITS
from convoy.spec.isa import MAX_RUN_BITS, MAX_STEP_KERNELS, PARAM, STREAM, TABLE_ALIGN_BYTES, TAP_BYTES

__all__ = [
    "LayerStreams",
    "StreamCounts",
    "Streams",
    "count_stream",
    "encode_stream",
    "pack_params",
    "pack_streams",
    "pack_taps",
    "stream_bits",
]


@dataclass(frozen=True)
class StreamCounts:
    """What a weight stream holds, window by window: what the cycles that it takes depend on."""

    num_beats: int
    nnz: tuple[int, ...]
    """Weights that are not zero."""
    zeros: tuple[int, ...]
    """Tokens whose value is zero."""
    idle: tuple[int, ...]
    """Those of them that the decoder does not drop: the first token of a window, the last one of the stream."""
    token_cycles: float
    """Cycles of the decoder for a token."""

    def waits(self, num_vec: int) -> list[float]:
        """Cycles for each window in which lanes wait for the decoder, with `num_vec` vectors in the group."""
        return [
            max(0.0, (n + zero) * self.token_cycles - cycles)
            for n, zero, cycles in zip(self.nnz, self.zeros, self._issue_cycles(num_vec), strict=True)
        ]

    def cycles(self, num_vec: int) -> list[float]:
        """Cycles of the core for each window."""
        return [issue + wait for issue, wait in zip(self._issue_cycles(num_vec), self.waits(num_vec), strict=True)]

    def _issue_cycles(self, num_vec: int) -> list[int]:
        return [n * num_vec + idle for n, idle in zip(self.nnz, self.idle, strict=True)]


@dataclass(frozen=True)
class LayerStreams:
    """The streams of a layer, superblock first, and its output channels."""

    counts: tuple[StreamCounts, ...]
    num_oc: int
    num_runs: tuple[int, ...]
    """Of each superblock: runs of channels that are neighbours in memory, in the order of the drain."""

    def part(self, superblocks: slice, num_oc: int) -> LayerStreams:
        """Those of some superblocks, which make `num_oc` output channels."""
        num_cores = len(self.counts) // len(self.num_runs)
        return LayerStreams(
            self.counts[superblocks.start * num_cores : superblocks.stop * num_cores],
            num_oc,
            self.num_runs[superblocks],
        )


@dataclass(frozen=True)
class Streams:
    """Weight streams of a layer and the directory that points into them."""

    data: bytes
    directory: bytes
    run_bits: int
    num_bytes: int
    """Bytes of all streams, without alignment."""
    layer: LayerStreams


def _gaps(weights: np.ndarray) -> np.ndarray:
    """Zeros before each non-zero weight; the last position counts as non-zero, since a stream must end on it."""
    stops = np.flatnonzero(weights)
    if not stops.size or stops[-1] != weights.size - 1:
        stops = np.append(stops, weights.size - 1)
    return np.diff(stops, prepend=-1) - 1


def stream_bits(weights: np.ndarray, run_bits: int) -> int:
    """Bits that `encode_stream` makes of `weights` (n,), before padding to beats."""
    return _num_bits(_gaps(weights), run_bits)


def _num_bits(gaps: np.ndarray, run_bits: int) -> int:
    return (8 + run_bits) * int(((gaps >> run_bits) + 1).sum())


def encode_stream(weights: np.ndarray, run_bits: int) -> bytes:
    """Tokens of a weight stream: integers (n,) in the order of consumption, kept modulo 256, n at least 1, as bytes,
    the last one padded with zero bits.

    Raises
    ------
    ValueError
        When `run_bits` is outside 0..`MAX_RUN_BITS` or there is no weight.
    """
    if not 0 <= run_bits <= MAX_RUN_BITS or weights.size == 0:
        raise ValueError(
            f"run_bits = {run_bits} with {weights.size} weights: use 0..{MAX_RUN_BITS} and at least one weight"
        )
    gaps = _gaps(weights)
    last = np.cumsum((gaps >> run_bits) + 1) - 1
    tokens = np.full(int(last[-1]) + 1, ((1 << run_bits) - 1) << 8, np.uint16)
    stops = np.cumsum(gaps + 1) - 1
    tokens[last] = (gaps & ((1 << run_bits) - 1)) << 8 | weights[stops].astype(np.uint8)
    bits = np.unpackbits(tokens.astype("<u2").view(np.uint8).reshape(-1, 2), axis=1, bitorder="little")[
        :, : 8 + run_bits
    ]
    return np.packbits(bits.ravel(), bitorder="little").tobytes()


def count_stream(weights: np.ndarray, run_bits: int, num_beats: int) -> StreamCounts:
    """Count the stream of int8 `weights` (windows, weights per window), each kernel `num_taps` of them; depthwise
    windows have kernels of their own.
    """
    num_windows, per_window = weights.shape
    gaps = _gaps(weights.ravel())
    counts = (gaps >> run_bits) + 1  # tokens of a gap: zeros, a full run apart, then what ends it
    last = np.cumsum(counts) - 1
    stops = np.cumsum(gaps + 1) - 1
    place = np.repeat(stops - gaps - 1, counts) + (
        np.arange(last[-1] + 1) - np.repeat(last - counts, counts) << run_bits
    )
    place[last] = stops
    is_zero = np.ones(place.size, bool)
    is_zero[last] = weights.ravel()[stops] == 0
    is_kept = np.diff(place // per_window, prepend=-1) != 0
    is_kept[-1] = True

    zeros = [np.bincount(place[chosen] // per_window, minlength=num_windows) for chosen in (is_zero, is_zero & is_kept)]
    window = place[~is_zero] // per_window
    nnz, all_zeros, kept_zeros = (
        tuple(counts.astype(int).tolist()) for counts in (np.bincount(window, minlength=num_windows), *zeros)
    )
    return StreamCounts(num_beats, nnz, all_zeros, kept_zeros, _token_cycles(8 + run_bits))


@lru_cache
def _token_cycles(token_bits: int) -> float:
    """The decoder takes a token from its buffer if that holds one, and a part of a beat into it if that has room
    before.
    """
    level, num_tokens, num_cycles = 0, 0, 1000
    for _ in range(num_cycles):
        does_take, does_append = level >= token_bits, level <= TOKEN_BUFFER_BITS - TOKEN_PART_BITS
        level += TOKEN_PART_BITS * does_append - token_bits * does_take
        num_tokens += does_take
    return num_cycles / num_tokens


def pack_streams(work: ConvWork, tiling: Tiling, kernels: np.ndarray, config: NpuConfig) -> Streams:
    """Encode the weights of every superblock and core; `kernels` as from `deal_channels`.

    One run length for the layer, the shortest.
    """
    num_oc, kernel_h, kernel_w, num_z = work.weights.shape
    num_taps = kernel_h * kernel_w
    weights = np.concatenate(
        [work.weights.reshape(num_oc, num_taps, num_z), np.zeros((1, num_taps, num_z), work.weights.dtype)]
    )
    streams = []
    for first in range(0, len(kernels), tiling.num_kernels):
        dealt = weights[kernels[first : first + tiling.num_kernels]]
        # conv: (kernel, core, tap, z) -> core, z, kernel, tap; depthwise has one z per kernel: (z, m) is the kernel
        # already
        num_windows = len(dealt) // tiling.kernels_per_z[0] if tiling.geometry.is_depthwise else num_z
        streams += list(dealt.transpose(1, 3, 0, 2).reshape(config.num_cores, num_windows, -1))
    kernels_per_z = min(tiling.kernels_per_z)
    limit = num_taps * min(kernels_per_z, MAX_STEP_KERNELS) if num_taps > 1 else kernels_per_z
    choices = range(min(MAX_RUN_BITS, limit.bit_length() - 1) + 1)
    gaps = [_gaps(stream.ravel()) for stream in streams]
    run_bits = min(choices, key=lambda bits: sum(-(-_num_bits(each, bits) // config.port_bits) for each in gaps))
    data, directory, num_bytes, counts = bytearray(), bytearray(), 0, []
    drained = [
        kernels[first : first + tiling.num_kernels].ravel() for first in range(0, len(kernels), tiling.num_kernels)
    ]
    num_runs = tuple(int(np.count_nonzero(np.diff(ocs[ocs >= 0]) != 1)) + 1 for ocs in drained)
    for stream in streams:
        encoded = encode_stream(stream.ravel(), run_bits)
        num_beats = -(-len(encoded) // config.port_bytes)
        directory += STREAM.encode(offset_bytes=len(data), num_beats=num_beats)
        data += encoded
        num_bytes += num_beats * config.port_bytes
        counts.append(count_stream(stream, run_bits, num_beats))
        data += bytes(-len(data) % max(TABLE_ALIGN_BYTES, config.port_bytes))
    return Streams(bytes(data), bytes(directory), run_bits, num_bytes, LayerStreams(tuple(counts), num_oc, num_runs))


def pack_params(work: ConvWork, kernels: np.ndarray, plane_bytes: int) -> bytes:
    """`PARAM` entries in the order of the drain; output channel planes are `plane_bytes` apart."""
    entries = []
    for oc in kernels.ravel():
        if oc < 0:
            entries.append(
                PARAM.encode(bias=0, mult=0, is_valid=0, out_offset_bytes=0, shift_left=0, shift_right=0, bias_low=0)
            )
            continue
        exponent = int(work.exponent[oc])
        bias, bias_low = divmod(int(work.bias[oc]), 256) if work.is_wide else (work.bias[oc], 0)
        entries.append(
            PARAM.encode(
                bias=bias,
                bias_low=bias_low,
                mult=work.mult[oc],
                is_valid=1,
                out_offset_bytes=oc * plane_bytes,
                shift_left=max(exponent, 0),
                shift_right=max(-exponent, 0),
            )
        )
    return b"".join(entries)


def pack_taps(tiling: Tiling, config: NpuConfig) -> bytes:
    """The tap table: unsigned pixel offsets into the window."""
    geometry, group = tiling.geometry, tiling.group
    offsets = [
        phase * group.seg_words * config.num_lanes + dy * group.pitch_row + dx for phase, dy, dx in geometry.taps
    ]
    return np.array(offsets, f"<u{TAP_BYTES}").tobytes()
