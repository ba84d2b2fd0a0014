"""Planar images copied into other images, with frames, repetitions, interleaved, and resized: fields of TP
descriptors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from convoy.driver.graph.graph import GraphError
from convoy.driver.lower.work import InterleaveWork, MoveAxis, MoveWork, RepeatWork, ZoomPiece, ZoomWork
from convoy.spec.config import NpuConfig
from convoy.spec.isa import FRACTION_BITS, TpOp

from .tp_blocks import BLANK

__all__ = ["interleave_blocks", "move_blocks", "repeat_blocks", "zoom_blocks"]


def move_blocks(work: MoveWork, addr: int, out_addr: int, config: NpuConfig) -> Iterator[dict[str, int]]:
    """Fields of TP descriptors for a move between planar images."""
    limit = config.tp_buffer_bytes // 2
    rows, cols, channels = work.rows, work.cols, work.channels
    width = cols.source_size
    loaded = max(cols.count - 1, 0) * cols.step + 1
    if loaded > limit:
        for part in _columns(cols, (limit - 1) // cols.step + 1):
            yield from move_blocks(replace(work, cols=part), addr, out_addr, config)
        return
    is_wide, is_high = cols.extent == cols.target_size, rows.extent == rows.target_size
    span = max(rows.count - 1, 0) * rows.step * width + loaded
    num_c = max(1, min(channels.count, limit // span)) if channels.step == 1 and (is_wide or is_high) else 1
    num_rows = rows.extent if span <= limit else limit // loaded
    for c in range(0, channels.count, num_c):
        count = min(num_c, channels.count - c)
        for y in range(0, rows.extent, num_rows):
            height = min(num_rows, rows.extent - y)
            first = max(0, y - rows.before)
            tile_ih = max(0, min(rows.count, y + height - rows.before) - first)
            source = (
                (channels.start + c * channels.step) * rows.source_size + rows.start + first * rows.step
            ) * width + cols.start
            target = (
                (channels.target_start + c) * rows.target_size + rows.target_start + y
            ) * cols.target_size + cols.target_start
            fields = BLANK | {
                "op": TpOp.COPY,
                "num_0": count,
                "num_1": height,
                "num_2": cols.extent,
                "start_y": min(0, y - rows.before),
                "start_x": -cols.before,
                "tile_ih": tile_ih,
                "tile_iw": cols.count,
                "step_2": cols.step,
                "zero_point_out": work.zero_point,
                "out_addr": out_addr + target,
                "out_run_bytes": height * cols.extent if is_wide else cols.extent,
                "out_pitch_bytes": rows.target_size * cols.target_size if is_wide else cols.target_size,
            }
            if tile_ih == 0:
                yield fields | {"a_addr": addr, "a_run_bytes": 1}
            elif count == 1:  # only rows that are needed
                yield fields | {
                    "a_addr": addr + source,
                    "a_run_bytes": loaded,
                    "num_a_runs": tile_ih,
                    "a_pitch_bytes": rows.step * width,
                    "step_1": loaded,
                }
            else:
                yield fields | {
                    "a_addr": addr + source,
                    "a_run_bytes": span,
                    "num_a_runs": count,
                    "a_pitch_bytes": rows.source_size * width,
                    "step_0": span,
                    "step_1": rows.step * width,
                }


def _columns(cols: MoveAxis, count: int) -> Iterator[MoveAxis]:
    """The columns of a move in parts of at most `count` pixels; the first and the last one have the frame."""
    for first in range(0, cols.count, count):
        is_first, is_last = first == 0, first + count >= cols.count
        yield replace(
            cols,
            count=min(count, cols.count - first),
            start=cols.start + first * cols.step,
            target_start=cols.target_start + (0 if is_first else cols.before + first),
            before=cols.before if is_first else 0,
            behind=cols.behind if is_last else 0,
        )


def repeat_blocks(work: RepeatWork, addr: int, out_addr: int, config: NpuConfig) -> Iterator[dict[str, int]]:
    """Fields of TP descriptors that repeat every pixel of planar images, which are read as one column of rows.

    Raises
    ------
    GraphError
        When a row of the source exceeds half of the buffer.
    """
    limit = config.tp_buffer_bytes // 2
    width, times_h, times_w = work.width, work.times_h, work.times_w
    if width > limit:
        raise GraphError(f"a row of {width} pixels exceeds half of the TP buffer of 2 x {limit} bytes")
    if width == 1:
        times_h, times_w = 1, times_h * times_w
    out_width, step = width * times_w, limit // width
    for first in range(0, work.num_rows, step):
        num_rows = min(step, work.num_rows - first)
        fields = BLANK | {
            "op": TpOp.COPY,
            "a_addr": addr + first * width,
            "a_run_bytes": num_rows * width,
            "num_0": num_rows,
            "step_0": width,
            "out_addr": out_addr + first * times_h * out_width,
        }
        if times_w == 1:
            yield fields | {
                "num_1": times_h,
                "num_2": width,
                "step_2": 1,
                "tile_ih": times_h,
                "tile_iw": width,
                "out_run_bytes": num_rows * times_h * width,
            }
            continue
        for copy in range(times_h):
            yield fields | {
                "num_1": width,
                "num_2": times_w,
                "step_1": 1,
                "tile_ih": width,
                "tile_iw": times_w,
                "out_addr": fields["out_addr"] + copy * out_width,
                "out_run_bytes": out_width,
                "out_pitch_bytes": times_h * out_width,
            }


def interleave_blocks(work: InterleaveWork, addr: int, out_addr: int, config: NpuConfig) -> Iterator[dict[str, int]]:
    """Fields of TP descriptors that put blocks of planes next to one another; each makes rows of one phase, of as many
    channels as are evenly spaced in source and result.

    Raises
    ------
    GraphError
        When the rows that an output row is made of exceed half of the buffer.
    """
    limit = config.tp_buffer_bytes // 2
    (height, width), (out_h, out_w), (dy_step, dx_step, c_step) = work.size_in, work.size_out, work.channel_steps
    num_rows = limit // (work.block_w * width)
    if num_rows == 0:
        raise GraphError(f"{work.block_w} rows of {width} pixels exceed half of the TP buffer of 2 x {limit} bytes")
    plane = height * width
    num_planes = limit // (work.block_w * plane)  # of each phase
    is_even = out_h == work.whole_size[0]
    for number, dy in enumerate(work.rows_made):
        rows = -(-(out_h - dy) // work.block_h)
        if is_even and c_step > 1 and num_planes > 1 and out_w == work.whole_size[1]:
            for channel in range(0, work.num_c, num_planes):
                source = addr + (number * dy_step + channel * c_step) * plane
                yield _interleaved_planes(
                    work, min(num_planes, work.num_c - channel), source, out_addr + (channel * out_h + dy) * out_w
                )
            continue
        count, channels = (work.num_c * rows, 1) if is_even and c_step == 1 else (rows, work.num_c)
        for channel, first in product(range(channels), range(0, count, num_rows)):
            source = addr + (number * dy_step + channel * c_step) * plane + first * width
            target = out_addr + (channel * out_h + first * work.block_h + dy) * out_w
            yield from _interleaved_rows(work, min(num_rows, count - first), source, dx_step * plane, target)


def _interleaved_planes(work: InterleaveWork, num_c: int, addr: int, out_addr: int) -> dict[str, int]:
    """Rows of one phase of whole channels, the column phases of which are evenly spaced in the source."""
    (height, width), (_, dx_step, c_step), phases = work.size_in, work.channel_steps, work.block_w
    plane = height * width
    is_run = dx_step == 1
    return BLANK | {
        "op": TpOp.COPY,
        "a_addr": addr,
        "a_run_bytes": phases * plane if is_run else plane,
        "num_a_runs": num_c if is_run else num_c * phases,
        "a_pitch_bytes": (c_step if is_run else dx_step) * plane,
        "num_0": num_c,
        "num_1": plane,
        "num_2": phases,
        "step_0": phases * plane,
        "step_1": 1,
        "step_2": plane,
        "tile_ih": plane,
        "tile_iw": phases,
        "out_addr": out_addr,
        "out_run_bytes": width * phases,
        "out_pitch_bytes": work.block_h * width * phases,
    }


def _interleaved_rows(
    work: InterleaveWork, count: int, addr: int, pitch: int, out_addr: int
) -> Iterator[dict[str, int]]:
    """`count` rows of one phase that follow one another in the source, where column phases are `pitch` bytes apart."""
    width, out_w, block_w = work.size_in[1], work.size_out[1], work.block_w
    whole, rest = divmod(out_w, block_w)
    for column, columns, phases in [(0, whole, block_w)] * (whole > 0) + [(whole, 1, rest)] * (rest > 0):
        loaded = count * width - column
        loops = {"num_0": count, "num_1": columns, "num_2": phases, "step_0": width, "step_1": 1, "step_2": loaded}
        if phases == 1:
            loops = {"num_1": count, "num_2": columns, "step_1": width, "step_2": 1}
        yield (
            BLANK
            | loops
            | {
                "op": TpOp.COPY,
                "a_addr": addr + column,
                "a_run_bytes": loaded,
                "num_a_runs": phases,
                "a_pitch_bytes": pitch,
                "tile_ih": loops["num_1"],
                "tile_iw": loops["num_2"],
                "out_addr": out_addr + column * block_w,
                "out_run_bytes": columns * phases,
                "out_pitch_bytes": work.block_h * out_w,
            }
        )


def zoom_blocks(work: ZoomWork, addr: int, out_addr: int, config: NpuConfig) -> Iterator[dict[str, int]]:
    """Fields of TP descriptors that resize planar images.

    Raises
    ------
    GraphError
        When the rows of one output row exceed half of the buffer.
    """
    for row_piece, col_piece in product(work.rows.pieces, work.cols.pieces):
        yield from _zoom_piece(work, row_piece, col_piece, addr, out_addr, config)


def _zoom_piece(
    work: ZoomWork, row_piece: ZoomPiece, col_piece: ZoomPiece, addr: int, out_addr: int, config: NpuConfig
) -> Iterator[dict[str, int]]:
    """`zoom_blocks` of a rectangle of outputs; whole input rows are loaded."""
    limit = config.tp_buffer_bytes // 2
    rows, cols, kernel = work.rows, work.cols, 2 if work.op == TpOp.BILINEAR else 1
    plane, out_plane = rows.size_in * cols.size_in, rows.size_out * cols.size_out
    is_row = col_piece.count == cols.size_out
    num_c, num_oh = min(work.num_ic, limit // plane), row_piece.count
    if num_c == 0:
        fitting = [
            n
            for n in range(1, num_oh + 1)
            if max(rows.tile(row_piece, y, min(n, num_oh - y))[1] for y in range(0, num_oh, n)) * cols.size_in <= limit
        ]
        if not fitting:
            raise GraphError(f"two rows of {cols.size_in} pixels exceed half of the TP buffer of 2 x {limit} bytes")
        num_c, num_oh = 1, max(fitting)
    is_plane = num_oh == rows.size_out
    if not is_row and not is_plane:
        num_c = 1
    mask = (1 << FRACTION_BITS) - 1
    for c, y in product(range(0, work.num_ic, num_c), range(0, row_piece.count, num_oh)):
        count_c, count_oh = min(num_c, work.num_ic - c), min(num_oh, row_piece.count - y)
        first_y, tile_ih, start_y = (
            rows.tile(row_piece, y, count_oh) if num_c == 1 else (0, rows.size_in, row_piece.start)
        )
        yield BLANK | {
            "op": work.op,
            "a_addr": addr + c * plane + first_y * cols.size_in,
            "a_run_bytes": count_c * tile_ih * cols.size_in,
            "num_0": count_c,
            "num_1": count_oh,
            "num_2": col_piece.count,
            "step_0": tile_ih * cols.size_in,
            "kernel_h": kernel,
            "kernel_w": kernel,
            "stride_h": row_piece.step >> FRACTION_BITS,
            "stride_h_frac": row_piece.step & mask,
            "stride_w": col_piece.step >> FRACTION_BITS,
            "stride_w_frac": col_piece.step & mask,
            "start_y": start_y >> FRACTION_BITS,
            "start_y_frac": start_y & mask,
            "start_x": col_piece.start >> FRACTION_BITS,
            "start_x_frac": col_piece.start & mask,
            "tile_ih": tile_ih,
            "tile_iw": cols.size_in,
            "act_min": -128,
            "act_max": 127,
            "out_addr": out_addr + c * out_plane + (row_piece.first + y) * cols.size_out + col_piece.first,
            "out_run_bytes": col_piece.count * (count_oh * (count_c if is_plane else 1) if is_row else 1),
            "out_pitch_bytes": out_plane if is_row else cols.size_out,
        }
