"""Depthwise convolutions whose kernel is the whole image, such as means, in other forms.

*Turned*: where all channels have one kernel, the image with pixels as channels and channels as pixels is what an
ordinary convolution of one output channel adds up; the lanes then have a channel each.

*Pooled*: sums of pixels are those of the windows of a pool, which the tensor processor makes.

*Cut*: a plane of a channel is a run of bytes. Its pieces, which windows hold, are input channels of an ordinary
convolution, which adds them up in one sum; the loader reads piece after piece, of several channels in turn, so that
all cores have work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.work import Axis, ConvWork, Pieces
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import NUM_TP_LANES
from convoy.spec.isa import NN

from .cost import pool_cycles, tp_copy_bytes, tp_cycles
from .pools import Pools, summing_pool
from .tile import tile_work

__all__ = ["CutConv", "TurnedConv", "best_sum"]


@dataclass(frozen=True)
class CutConv:
    """A depthwise convolution as convolutions over pieces of planes, each of some channels."""

    parts: tuple[ConvWork, ...]


@dataclass(frozen=True)
class TurnedConv:
    """A depthwise convolution as one over the image turned: a channel for each pixel, a pixel for each channel."""

    work: ConvWork


def best_sum(work: ConvWork, config: NpuConfig) -> CutConv | TurnedConv | Pools | None:
    """The form in which a depthwise convolution is estimated to take least time; None if that is its own, or it is
    no sum and its kernel is not as large as the image.

    Raises
    ------
    GraphError
        When it fits the NPU in no form.
    """
    pool = summing_pool(work)
    if pool is None and not _covers_image(work):
        return None
    best: CutConv | TurnedConv | Pools | None = None
    limit = np.inf
    with suppress(GraphError):
        limit = tile_work(work, config).cost.cycles
    if pool is not None and (cycles := pool_cycles(pool, config)) < limit:
        best, limit = Pools((pool,)), cycles
    if not _covers_image(work):
        return best
    if limit == np.inf:
        best, limit = _cut(work, config)
    if work.num_ic > 1 and not (work.is_wide and work.residual) and _is_even(work):
        turned = _turned(work)
        with suppress(GraphError):
            if tile_work(turned, config).cost.cycles + _turning_cycles(work, config) < limit:
                return TurnedConv(turned)
    if limit == np.inf:
        num_pixels = work.rows.size_in * work.cols.size_in
        raise GraphError(
            f"a sum of {num_pixels} pixels exceeds the stripe memory of {config.stripe_bytes} bytes; "
            "a larger stripe_bytes is needed"
        )
    return best


def _turning_cycles(work: ConvWork, config: NpuConfig) -> float:
    """Estimate of the copy that turns planes, which the tensor processor reads a byte a cycle where neighbours of the
    result lie in one bank of its buffer.
    """
    group_bytes = tp_copy_bytes(work.rows.size_in * work.cols.size_in, config)
    return tp_cycles("copy", work.num_in_bytes * NUM_TP_LANES // group_bytes, work.num_in_bytes, config)


def _is_even(work: ConvWork) -> bool:
    """Does every channel have the same kernel and factor?"""
    return all(len(np.unique(values, axis=0)) == 1 for values in (work.weights, work.bias, work.mult, work.exponent))


def _turned(work: ConvWork) -> ConvWork:
    num_pixels = work.rows.size_in * work.cols.size_in
    return replace(
        work,
        num_ic=num_pixels,
        rows=Axis(1, 1),
        cols=Axis(work.num_oc, work.num_oc),
        in_shape=(1, 1, work.num_oc, num_pixels),
        is_depthwise=False,
        weights=np.ascontiguousarray(work.weights[:1].reshape(1, 1, 1, num_pixels)),
        bias=work.bias[:1],
        mult=work.mult[:1],
        exponent=work.exponent[:1],
    )


def _covers_image(work: ConvWork) -> bool:
    """Is the kernel as large as the image, so that there is one output pixel and each plane is one sum?"""
    axes = (work.rows, work.cols)
    is_whole = all((axis.kernel, axis.size_out, axis.dilation, axis.pad) == (axis.size_in, 1, 1, 0) for axis in axes)
    return is_whole and (work.is_depthwise or work.num_ic == 1) and work.rows.size_in * work.cols.size_in > 1


def _cut(work: ConvWork, config: NpuConfig) -> tuple[CutConv | None, float]:
    """The cut that is estimated to take least time, and the estimate; None when none fits."""
    best, limit = None, np.inf
    for num_channels, length in _choices(work, config):
        with suppress(GraphError):
            num_parts = -(-work.num_ic // num_channels)
            cycles = num_parts * tile_work(_part(work, 0, num_channels, length), config).cost.cycles
            if cycles < limit:
                best, limit = (num_channels, length), cycles
    if best is None:
        return None, limit
    return CutConv(tuple(_part(work, first, *best) for first in range(0, work.num_ic, best[0]))), limit


def _choices(work: ConvWork, config: NpuConfig) -> Iterator[tuple[int, int]]:
    """Numbers of channels that take turns, and pixels of a piece, to try: one to four for each core, or
    fewer where the stripe memory is too small.
    """
    num_pixels = work.rows.size_in * work.cols.size_in
    longest = min(num_pixels, NN.fields["num_taps"].max)
    counts = {min(work.num_ic, 1 << n) for n in range((4 * config.num_cores).bit_length())}
    for num_channels in sorted(counts):
        for length in sorted({min(config.num_lanes << n, longest) for n in range(longest.bit_length())}):
            yield num_channels, length


def _part(work: ConvWork, first: int, num_channels: int, length: int) -> ConvWork:
    """The convolution of `num_channels` channels from `first`, in pieces of at most `length` pixels.

    Pieces begin equally far apart and overlap a little where they do not divide the plane; a pixel has its weight in
    the first piece that has it.
    """
    num_pixels = work.rows.size_in * work.cols.size_in
    count = min(num_channels, work.num_ic - first)
    num_pieces = -(-num_pixels // length)
    pitch = num_pixels // num_pieces
    size = num_pixels - (num_pieces - 1) * pitch
    outputs = slice(first * work.multiplier, (first + count) * work.multiplier)
    kernels = work.weights[outputs].reshape(-1, num_pixels)
    weights = np.zeros((len(kernels), size, num_pieces, count), work.weights.dtype)
    sources = np.arange(len(kernels)) // work.multiplier
    for piece in range(num_pieces):
        shared = size - pitch if piece else 0
        taps = kernels[:, piece * pitch + shared : piece * pitch + size]
        weights[np.arange(len(kernels)), shared:, piece, sources] = taps
    num_ic = num_pieces * count
    return replace(
        work,
        num_ic=num_ic,
        rows=Axis(1, 1),
        cols=Axis(size, 1, size),
        in_shape=(1, 1, size, num_ic),
        is_depthwise=False,
        weights=weights.reshape(len(kernels), 1, size, num_ic),
        bias=work.bias[outputs],
        mult=work.mult[outputs],
        exponent=work.exponent[outputs],
        pieces=Pieces(count, pitch, num_pixels),
    )
