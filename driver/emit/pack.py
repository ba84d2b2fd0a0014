"""Constant tables of a layer: weight streams and their directory, output-channel parameters, tap offsets."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    _known: dict[int, tuple[list[float], list[float]]] = field(default_factory=dict, repr=False, compare=False)
    """By number of vectors: `waits` and `cycles`."""

    def waits(self, num_vec: int) -> list[float]:
        """Cycles for each window in which lanes wait for the decoder, with `num_vec` vectors in the group."""
        return self._times(num_vec)[0]

    def cycles(self, num_vec: int) -> list[float]:
        """Cycles of the core for each window."""
        return self._times(num_vec)[1]

    def _times(self, num_vec: int) -> tuple[list[float], list[float]]:
        if num_vec not in self._known:
            issue = np.array(self._issue_cycles(num_vec), np.float64)
            waits = np.maximum(np.add(self.nnz, self.zeros) * self.token_cycles - issue, 0.0)
            self._known[num_vec] = waits.tolist(), (issue + waits).tolist()
        return self._known[num_vec]

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


@dataclass(frozen=True)
class _Gaps:
    """Streams of as many weights each, one behind another, as tokens will say them."""

    weights: np.ndarray
    """int8 (streams, weights)."""
    stops: np.ndarray
    """Places, over all streams, of weights that are not zero; the last place of a stream counts as such, since it must
    end on it.
    """
    num_stops: np.ndarray
    """Of each stream."""
    gaps: np.ndarray
    """Zeros before each stop."""
    zeros: np.ndarray
    """Numbers of those stops that have zeros before them."""

    @classmethod
    def of(cls, streams: np.ndarray) -> _Gaps:
        """Those of int8 streams (streams, weights)."""
        is_stop = streams != 0
        is_stop[:, -1] = True
        stops = np.flatnonzero(is_stop)
        gaps = np.diff(stops, prepend=-1) - 1
        return cls(streams, stops, np.count_nonzero(is_stop, axis=1), gaps, np.flatnonzero(gaps))

    def num_tokens(self, run_bits: int) -> np.ndarray:
        """Of each stream."""
        num_streams, size = self.weights.shape
        more = np.bincount(self.stops[self.zeros] // size, self.gaps[self.zeros] >> run_bits, num_streams)
        return self.num_stops + more.astype(np.int64)

    def num_beats(self, run_bits: int, config: NpuConfig) -> np.ndarray:
        """Of each stream."""
        return -(-(8 + run_bits) * self.num_tokens(run_bits) // config.port_bits)

    def encode(self, run_bits: int) -> list[bytes]:
        """Of each stream its tokens, the last byte padded with zero bits."""
        if not run_bits:
            return [stream.tobytes() for stream in self.weights.astype(np.uint8)]
        last = np.cumsum((self.gaps >> run_bits) + 1) - 1
        tokens = np.full(int(last[-1]) + 1, ((1 << run_bits) - 1) << 8, np.uint16)
        values = self.weights.ravel()[self.stops].astype(np.uint8)
        tokens[last] = (self.gaps & ((1 << run_bits) - 1)) << 8 | values
        raw = tokens.astype("<u2").view(np.uint8).reshape(-1, 2)
        bits = np.unpackbits(raw, axis=1, count=8 + run_bits, bitorder="little")
        parts = np.split(bits, np.cumsum(self.num_tokens(run_bits))[:-1])
        return [np.packbits(part.ravel(), bitorder="little").tobytes() for part in parts]

    def zero_places(self, run_bits: int) -> np.ndarray:
        """Places, over all streams, of tokens whose value is zero and that are not the last of a stream: each says
        `1 << run_bits` zeros.
        """
        counts = self.gaps[self.zeros] >> run_bits
        before = (self.stops - self.gaps)[self.zeros] - 1
        numbers = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        return np.repeat(before, counts) + (numbers << run_bits)


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
    return _Gaps.of(weights.astype(np.int8)[None]).encode(run_bits)[0]


def count_stream(weights: np.ndarray, run_bits: int, num_beats: int) -> StreamCounts:
    """Count the stream of int8 `weights` (windows, weights per window)."""
    return _count(_Gaps.of(weights.reshape(1, -1)), weights.shape[1], run_bits, [num_beats])[0]


def _count(streams: _Gaps, per_window: int, run_bits: int, num_beats: list[int]) -> list[StreamCounts]:
    """Count streams whose windows have `per_window` weights each."""
    num_streams, size = streams.weights.shape
    num_windows = streams.weights.size // per_window
    nnz = np.count_nonzero(streams.weights.reshape(num_windows, per_window), axis=1)
    places = streams.zero_places(run_bits)
    ends = np.flatnonzero(streams.weights[:, -1] == 0) * size + size - 1
    is_first = places // per_window != (places - (1 << run_bits)) // per_window
    all_zeros, kept_zeros = (
        np.bincount(np.append(chosen, ends) // per_window, minlength=num_windows)
        for chosen in (places, places[is_first])
    )
    of_streams = np.array([nnz, all_zeros, kept_zeros]).reshape(3, num_streams, -1).swapaxes(0, 1).tolist()
    token_cycles = _token_cycles(8 + run_bits)
    return [
        StreamCounts(beats, tuple(weights), tuple(zeros), tuple(kept), token_cycles)
        for beats, (weights, zeros, kept) in zip(num_beats, of_streams, strict=True)
    ]


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
    num_full = len(kernels) // tiling.num_kernels * tiling.num_kernels
    parts, windows = list[_Gaps](), list[int]()
    for part in (kernels[:num_full].reshape(-1, tiling.num_kernels, config.num_cores), kernels[None, num_full:]):
        if part.size:
            # conv: (superblock, kernel, core, tap, z) -> superblock, core, z, kernel, tap; depthwise has one z per
            # kernel: (z, m) is the kernel already
            num_windows = part.shape[1] // tiling.kernels_per_z[0] if tiling.geometry.is_depthwise else num_z
            dealt = weights[part].transpose(0, 2, 4, 1, 3)
            parts.append(_Gaps.of(dealt.reshape(part.shape[0] * config.num_cores, -1)))
            windows.append(num_windows)
    kernels_per_z = min(tiling.kernels_per_z)
    limit = num_taps * min(kernels_per_z, MAX_STEP_KERNELS) if num_taps > 1 else kernels_per_z
    choices = range(min(MAX_RUN_BITS, limit.bit_length() - 1) + 1)
    run_bits = min(choices, key=lambda bits: sum(int(part.num_beats(bits, config).sum()) for part in parts))
    data, directory, num_bytes = bytearray(), bytearray(), 0
    counts = list[StreamCounts]()
    drained = [
        kernels[first : first + tiling.num_kernels].ravel() for first in range(0, len(kernels), tiling.num_kernels)
    ]
    num_runs = tuple(int(np.count_nonzero(np.diff(ocs[ocs >= 0]) != 1)) + 1 for ocs in drained)
    for streams, num_windows in zip(parts, windows, strict=True):
        beats = streams.num_beats(run_bits, config).tolist()
        for num_beats, encoded in zip(beats, streams.encode(run_bits), strict=True):
            directory += STREAM.encode(offset_bytes=len(data), num_beats=num_beats)
            data += encoded
            num_bytes += num_beats * config.port_bytes
            data += bytes(-len(data) % max(TABLE_ALIGN_BYTES, config.port_bytes))
        counts += _count(streams, streams.weights.shape[1] // num_windows, run_bits, beats)
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
