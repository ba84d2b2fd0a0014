"""Boxes of planar images copied into other images, with frames and repetitions: fields of TP descriptors."""

from __future__ import annotations

from collections.abc import Iterator

from convoy.spec.config import NpuConfig
from convoy.spec.isa import TpOp

from .blocks import BLANK
from .graph import GraphError
from .work import MoveWork, RepeatWork

__all__ = ["move_blocks", "repeat_blocks"]


def move_blocks(work: MoveWork, addr: int, out_addr: int, config: NpuConfig) -> Iterator[dict[str, int]]:
    """Fields of TP descriptors for a move between planar images.

    Raises
    ------
    GraphError
        When a row of the source exceeds half of the buffer.
    """
    limit = config.tp_buffer_bytes // 2
    rows, cols, channels = work.rows, work.cols, work.channels
    width = cols.source_size
    loaded = (cols.count - 1) * cols.step + 1
    if loaded > limit:
        raise GraphError(f"a row of {loaded} pixels exceeds half of the TP buffer of 2 x {limit} bytes")
    is_wide, is_high = cols.extent == cols.target_size, rows.extent == rows.target_size
    span = (rows.count - 1) * rows.step * width + loaded
    num_c = max(1, min(channels.count, limit // span)) if channels.step == 1 and (is_wide or is_high) else 1
    num_rows = rows.extent if span <= limit else limit // loaded
    for c in range(0, channels.count, num_c):
        count = min(num_c, channels.count - c)
        for y in range(0, rows.extent, num_rows):
            height = min(num_rows, rows.extent - y)
            first = max(0, y - rows.before)
            tile_ih = max(0, min(rows.count, y + height - rows.before) - first)
            source = ((channels.start + c * channels.step) * rows.source_size + rows.start + first * rows.step) * width + cols.start
            target = ((channels.target_start + c) * rows.target_size + rows.target_start + y) * cols.target_size + cols.target_start
            fields = BLANK | {
                "op": TpOp.COPY, "num_0": count, "num_1": height, "num_2": cols.extent, "start_y": min(0, y - rows.before), "start_x": -cols.before,
                "tile_ih": tile_ih, "tile_iw": cols.count, "step_2": cols.step, "zero_point_out": work.zero_point, "out_addr": out_addr + target,
                "out_run_bytes": height * cols.extent if is_wide else cols.extent,
                "out_pitch_bytes": rows.target_size * cols.target_size if is_wide else cols.target_size,
            }
            if tile_ih == 0:
                yield fields | {"a_addr": addr, "a_run_bytes": 1}
            elif count == 1:  # only rows that are needed
                yield fields | {"a_addr": addr + source, "a_run_bytes": loaded, "num_a_runs": tile_ih, "a_pitch_bytes": rows.step * width, "step_1": loaded}
            else:
                yield fields | {"a_addr": addr + source, "a_run_bytes": span, "num_a_runs": count, "a_pitch_bytes": rows.source_size * width,
                                "step_0": span, "step_1": rows.step * width}


def repeat_blocks(work: RepeatWork, addr: int, out_addr: int, config: NpuConfig) -> Iterator[dict[str, int]]:
    """Fields of TP descriptors that repeat every pixel of planar images, which are read as one column of rows.

    Raises
    ------
    GraphError
        When a row of the source exceeds half of the buffer.
    """
    limit = config.tp_buffer_bytes // 2
    if work.width > limit:
        raise GraphError(f"a row of {work.width} pixels exceeds half of the TP buffer of 2 x {limit} bytes")
    out_width, step = work.width * work.times_w, limit // work.width
    for first in range(0, work.num_rows, step):
        num_rows = min(step, work.num_rows - first)
        for copy in range(work.times_h):
            yield BLANK | {
                "op": TpOp.COPY, "a_addr": addr + first * work.width, "a_run_bytes": num_rows * work.width, "num_0": num_rows, "num_1": work.width,
                "num_2": work.times_w, "step_0": work.width, "step_1": 1, "tile_ih": work.width, "tile_iw": work.times_w,
                "out_addr": out_addr + (first * work.times_h + copy) * out_width, "out_run_bytes": out_width, "out_pitch_bytes": work.times_h * out_width,
            }
