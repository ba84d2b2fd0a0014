"""What a `TP` descriptor computes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import NamedTuple

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.isa import ADD_SHIFT, ADD_SHIFT_WIDE, FRACTION_BITS, TP_TWO_OPERANDS, TpOp

from .budget import BLOCK_ELEMENTS, MAX_WINDOW_PIXELS, require_at_most
from .memory import MachineError, MemoryView
from .quant import double_rounding, round_half_away, round_half_up

__all__ = ["execute_tp"]

_POOLS = (TpOp.MAX_POOL, TpOp.AVG_POOL, TpOp.MEAN)
_CLAMPED = (TpOp.ADD, TpOp.SUB, TpOp.MUL, *_POOLS)


class _Block(NamedTuple):
    """Outputs that are computed at once: some indices of the outer loop, with all or some of the middle one, and all
    of the inner one.
    """

    planes: np.ndarray
    rows: np.ndarray


def execute_tp(config: NpuConfig, memory: MemoryView, d: dict[str, int]) -> None:
    """Execute one decoded `TP` descriptor that the checks of `tp_check` have passed.

    Raises
    ------
    MachineError
        When it reads bytes of the buffer that it did not load, its windows lie outside the image, or its outputs
        overlap.
    """
    op = TpOp(d["op"])
    buffer = memory.read_runs("TP.a_addr", d["a_addr"], d["a_run_bytes"], (d["num_a_runs"], d["a_pitch_bytes"])).astype(
        np.int64
    )
    operand = buffer[:0]
    if op in TP_TWO_OPERANDS:
        operand = memory.read_runs(
            "TP.b_addr", d["b_addr"], d["b_run_bytes"], (d["num_b_runs"], d["b_pitch_bytes"])
        ).astype(np.int64)
    position = 0
    for block in _blocks(d, op):
        values = _outputs(d, op, buffer, operand, block)
        if op in _CLAMPED:
            values = np.clip(values, d["act_min"], d["act_max"])
        if d["is_wide"]:
            values = values >> 8 if d["is_high"] else values & 0xFF
        values = memory.look_up("TP.lut_addr", d, values).ravel()
        run, byte = np.divmod(np.arange(position, position + values.size), d["out_run_bytes"])
        memory.scatter("TP.out_addr", d["out_addr"] + run * d["out_pitch_bytes"] + byte, values)
        position += values.size


def _blocks(d: dict[str, int], op: TpOp) -> Iterator[_Block]:
    """The outputs in their order, in blocks of about `BLOCK_ELEMENTS`."""
    row, plane = d["num_2"], d["num_1"] * d["num_2"]
    if op in _POOLS:
        rows, cols = _window_rows(d), _window_cols(d)
        width = int(cols[1].max())
        num_pixels = int((rows[1] - rows[0]).sum()) * width + d["num_1"] * int((cols[1] - cols[0]).sum())
        require_at_most(
            MAX_WINDOW_PIXELS,
            "TP: num_0 * (num_1 * kernel_h * tile_iw + num_1 * num_2 * kernel_w), inside the image",
            d["num_0"] * num_pixels,
        )
        row = max(row, width)
        plane = max(d["num_1"] * row, int(rows[1].max()) * d["tile_iw"])
    num_planes = max(1, min(d["num_0"], BLOCK_ELEMENTS // plane))
    num_rows = d["num_1"] if plane <= BLOCK_ELEMENTS else max(1, BLOCK_ELEMENTS // row)
    for plane in range(0, d["num_0"], num_planes):
        for row in range(0, d["num_1"], num_rows):
            yield _Block(
                np.arange(plane, min(plane + num_planes, d["num_0"])), np.arange(row, min(row + num_rows, d["num_1"]))
            )


def _outputs(d: dict[str, int], op: TpOp, buffer: np.ndarray, operand: np.ndarray, block: _Block) -> np.ndarray:
    """The results of a block before the clamp; int64, shape (planes, rows, num_2)."""
    if op is TpOp.COPY:
        return _copy(d, buffer, block)
    if op in TP_TWO_OPERANDS:
        return _elementwise(d, op, buffer, operand, block)
    return _bilinear(d, buffer, block) if op is TpOp.BILINEAR else _pool(d, op, buffer, block)


def _check_index(what: str, index: np.ndarray, limit: int) -> None:
    if index.size and (index.min() < 0 or index.max() >= limit):
        raise MachineError(
            f"{what}: buffer bytes {index.min()}..{index.max()} are read, but 0..{limit - 1} were loaded"
        )


def _copy(d: dict[str, int], buffer: np.ndarray, block: _Block) -> np.ndarray:
    """The bytes that lie inside the image, and what is outside."""
    i0, y, x = np.ix_(block.planes, block.rows + d["start_y"], np.arange(d["num_2"]) + d["start_x"])
    is_inside = np.broadcast_to(
        (y >= 0) & (y < d["tile_ih"]) & (x >= 0) & (x < d["tile_iw"]), np.broadcast_shapes(i0.shape, y.shape, x.shape)
    )
    index = i0 * d["step_0"] + y * d["step_1"] + x * d["step_2"]
    _check_index("TP.step_0, step_1, step_2", index[is_inside], len(buffer))
    return np.where(is_inside, buffer.take(index, mode="clip"), d["zero_point_out"])


def _elements(d: dict[str, int], values: np.ndarray, index: np.ndarray, high_bytes: str) -> np.ndarray:
    """The elements whose (low) bytes are at `index`; their high bytes are `d[high_bytes]` behind."""
    if not d["is_wide"]:
        return values.take(index, mode="clip")
    _check_index(f"TP.{high_bytes}", index + d[high_bytes], len(values))
    return (values.take(index, mode="clip") & 0xFF) + (values.take(index + d[high_bytes], mode="clip") << 8)


def _elementwise(d: dict[str, int], op: TpOp, a: np.ndarray, b: np.ndarray, block: _Block) -> np.ndarray:
    """An operation of `TP_TWO_OPERANDS` on the bytes of A and B."""
    loops = np.ix_(*block, np.arange(d["num_2"]))
    operands = []
    for prefix, values in (("", a), ("b_", b)):
        index = reduce(add, (loop * d[f"{prefix}step_{n}"] for n, loop in enumerate(loops)))
        _check_index(f"TP.{prefix}step_0, {prefix}step_1, {prefix}step_2", index, len(values))
        operands.append(_elements(d, values, index, f"{prefix or 'a_'}high_bytes"))
    a, b = operands
    if op is TpOp.MAXIMUM:
        return np.maximum(a, b)
    if op is TpOp.MINIMUM:
        return np.minimum(a, b)
    a, b = a - d["a_zero_point"], b - d["b_zero_point"]
    if op is TpOp.MUL:
        return double_rounding(a * b, d["out_mult"], d["b_shift"], d["out_shift"]) + d["zero_point_out"]
    shift = ADD_SHIFT_WIDE if d["is_wide"] else ADD_SHIFT
    a = double_rounding(a << shift, d["a_mult"], 0, d["a_shift"])
    b = double_rounding(b << shift, d["b_mult"], 0, d["b_shift"])
    return double_rounding(a + b if op is TpOp.ADD else a - b, d["out_mult"], 0, d["out_shift"]) + d["zero_point_out"]


def _places(d: dict[str, int], start: str, num: str, stride: str) -> np.ndarray:
    """Where the windows of a loop begin, in units of 2**-FRACTION_BITS; int64, shape (d[num],)."""
    first, step = ((d[name] << FRACTION_BITS) + d[f"{name}_frac"] for name in (start, stride))
    return first + np.arange(d[num]) * step


def _neighbours(place: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each place: the pixel before it, the one behind it, and how far it is from the first one to the second, in
    2**-FRACTION_BITS.
    """
    pixel = place >> FRACTION_BITS
    if (pixel < -1).any() or (pixel >= size).any():
        raise MachineError("TP.start_y, start_x, stride_h, stride_w: a window lies outside the image")
    low, high = np.maximum(pixel, 0), np.minimum(pixel + 1, size - 1)
    return low, high, np.where(high > low, place & ((1 << FRACTION_BITS) - 1), 0)


def _bilinear(d: dict[str, int], buffer: np.ndarray, block: _Block) -> np.ndarray:
    """BILINEAR."""
    rows, cols = (
        _neighbours(_places(d, "start_y", "num_1", "stride_h"), d["tile_ih"]),
        _neighbours(_places(d, "start_x", "num_2", "stride_w"), d["tile_iw"]),
    )
    y0, y1, dy = (axis[block.rows][:, None] for axis in rows)
    x0, x1, dx = cols
    base = (block.planes * d["step_0"])[:, None, None]
    _check_index(
        "TP.step_0, tile_iw",
        base + np.array([y0.min() * d["tile_iw"] + x0.min(), y1.max() * d["tile_iw"] + x1.max()]),
        len(buffer),
    )

    def pixel(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return buffer[base + y * d["tile_iw"] + x]

    one = 1 << FRACTION_BITS
    total = (one - dy) * ((one - dx) * pixel(y0, x0) + dx * pixel(y0, x1)) + dy * (
        (one - dx) * pixel(y1, x0) + dx * pixel(y1, x1)
    )
    return round_half_away(total, one * one)


def _window_rows(d: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """For each index of the middle loop: the first row of its pooling windows inside the image, and the one after
    the last.
    """
    return _inside(d, "start_y", "num_1", "stride_h", "kernel_h", "tile_ih")


def _window_cols(d: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """The same for the inner loop and columns."""
    return _inside(d, "start_x", "num_2", "stride_w", "kernel_w", "tile_iw")


def _inside(
    d: dict[str, int], start: str, num: str, stride: str, kernel: str, size: str
) -> tuple[np.ndarray, np.ndarray]:
    first = _places(d, start, num, stride) >> FRACTION_BITS
    low, high = np.maximum(first, 0), np.minimum(first + d[kernel], d[size])
    if (low >= high).any():
        raise MachineError("TP.start_y, start_x, stride_h, stride_w: a pooling window lies outside the image")
    return low, high


def _pool(d: dict[str, int], op: TpOp, buffer: np.ndarray, block: _Block) -> np.ndarray:
    """Maximum, average or mean over the pixels of each window that lie inside the image."""
    rows, cols = _window_rows(d), _window_cols(d)
    rows = tuple(bound[block.rows] for bound in rows)
    (top, bottom), (left, right) = ((int(low.min()), int(high.max())) for low, high in (rows, cols))
    base = block.planes * d["step_0"]
    _check_index(
        "TP.step_0, tile_iw",
        base + np.array([[top * d["tile_iw"] + left], [(bottom - 1) * d["tile_iw"] + right - 1]]),
        len(buffer),
    )
    pixels = np.arange(top, bottom)[:, None] * d["tile_iw"] + np.arange(left, right)
    image = _elements(d, buffer, base[:, None, None] + pixels, "a_high_bytes")
    reduce = np.maximum if op is TpOp.MAX_POOL else np.add
    values = _over_windows(reduce, _over_windows(reduce, image, rows, top, axis=1), cols, left, axis=2)
    if op is TpOp.MAX_POOL:
        return values
    count = (rows[1] - rows[0])[:, None] * (cols[1] - cols[0])
    if op is TpOp.MEAN:
        total = values - d["a_zero_point"] * count
        return double_rounding(total, d["out_mult"], 0, d["out_shift"]) + d["zero_point_out"]
    average = round_half_up if d["is_half_up"] else round_half_away
    return average(values, count)


def _over_windows(
    reduce: np.ufunc, image: np.ndarray, windows: tuple[np.ndarray, np.ndarray], origin: int, axis: int
) -> np.ndarray:
    """Reduce an axis to one element for each window; index 0 of the axis is pixel `origin`."""
    padded = np.concatenate(
        [image, image.take([0], axis=axis)], axis=axis
    )  # so that there is a pixel behind the last window
    return reduce.reduceat(padded, np.stack(windows, axis=1).ravel() - origin, axis=axis).take(
        np.arange(0, 2 * len(windows[0]), 2), axis=axis
    )
