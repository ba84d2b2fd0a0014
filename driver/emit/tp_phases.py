"""Phase planes of a strided convolution: the blocks of TP copies that make them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from convoy.driver.plan import fitted
from convoy.driver.plan.cost import block_cycles
from convoy.driver.plan.phases import PhaseSplit
from convoy.spec.config import NpuConfig
from convoy.spec.isa import TpOp

from .tp_blocks import BLANK

__all__ = ["split_blocks"]


def split_blocks(
    split: PhaseSplit, channels: range, rows: range, addr: int, out_addr: int, config: NpuConfig
) -> list[dict[str, int]]:
    """Fields of TP descriptors that write `rows` of the planes of `channels`; `addr` and `out_addr` are those of the
    whole image and all planes.

    A descriptor loops over channels, over row phases, over column phases, or over channels and column phases of one
    row, whichever is cheapest; of int16 it moves either low or high bytes.
    """

    def cycles(blocks: list[dict[str, int]]) -> float:
        return sum(block_cycles(block, config) for block in blocks)

    blocks = _Blocks(split, channels, rows, addr, out_addr, config)
    found = min((list(blocks.generate(loop)) for loop in ("channel", "row", "col")), key=cycles)
    if split.cols.size_in <= blocks.limit and blocks.num_lines * fitted.TP_BLOCK_CYCLES < cycles(found):
        return min(found, list(blocks.lines()), key=cycles)
    return found


class _Blocks:
    """One call of `split_blocks`."""

    def __init__(self, split: PhaseSplit, channels: range, rows: range, addr: int, out_addr: int, config: NpuConfig):
        self.split, self.channels, self.rows, self.addr, self.out_addr = split, channels, rows, addr, out_addr
        self.limit = config.tp_buffer_bytes // 2

    def generate(self, loop: str) -> Iterator[dict[str, int]]:
        """Blocks whose outer loop is `loop`: "channel", "row" (phase) or "col" (phase)."""
        rows, cols, width = self.split.rows, self.split.cols, self.split.cols.size_in
        row_runs = rows.even_runs() if loop == "row" else [[n] for n in range(len(rows.phases))]
        col_runs = cols.even_runs() if loop == "col" else [[n] for n in range(len(cols.phases))]
        num_rows, num_cols, num_c = min(len(self.rows), self.limit // width), cols.size, 1
        if width > self.limit:
            num_rows, num_cols = 1, self.limit // cols.stride
        elif loop == "channel":
            all_rows = (len(self.rows) - 1) * rows.stride + 1
            num_c = max(1, min(len(self.channels), self.limit // (all_rows * width)))
        elif loop == "row":
            num_rows = min(len(self.rows), (self.limit // width - max(map(len, row_runs))) // rows.stride + 1)
        if num_rows < 1 or (width > self.limit and loop != "channel"):
            loop, num_rows, row_runs, col_runs = (
                "channel",
                max(num_rows, 1),
                [[n] for n in range(len(rows.phases))],
                [[n] for n in range(len(cols.phases))],
            )
        for c in range(self.channels.start, self.channels.stop, num_c):
            for row_run in row_runs:
                for col_run in col_runs:
                    for i in range(self.rows.start, self.rows.stop, num_rows):
                        for j, byte in product(range(0, cols.size, num_cols), range(self.split.value_bytes)):
                            yield self._block(
                                range(c, min(c + num_c, self.channels.stop)),
                                row_run,
                                col_run,
                                range(i, min(i + num_rows, self.rows.stop)),
                                range(j, min(j + num_cols, cols.size)),
                                byte,
                            )

    @property
    def line_runs(self) -> list[list[int]]:
        """Positions in the column phases that a block of `lines` moves."""
        runs = self.split.cols.even_runs()
        return runs if len(runs) == 1 else [[n] for n in range(len(self.split.cols.phases))]

    @property
    def num_lines(self) -> int:
        """Blocks of `lines`."""
        num_parts = -(-len(self.channels) // (self.limit // self.split.cols.size_in))
        return len(self.rows) * len(self.split.rows.phases) * num_parts * len(self.line_runs) * self.split.value_bytes

    def lines(self) -> Iterator[dict[str, int]]:
        """Blocks of a row of several channels each, row after row of the planes."""
        split, runs, num_c = self.split, self.line_runs, self.limit // self.split.cols.size_in
        for i, (number, phase) in product(self.rows, enumerate(split.rows.phases)):
            for c in range(self.channels.start, self.channels.stop, num_c):
                channels = range(c, min(c + num_c, self.channels.stop))
                for run, byte in product(runs, range(split.value_bytes)):
                    yield self._line(channels, i, number, phase, run, byte)

    def _line(self, channels: range, i: int, number: int, phase: int, run: list[int], byte: int) -> dict[str, int]:
        """Row `i` of the planes of row phase number `number` and of a run of column phases."""
        split, rows, cols = self.split, self.split.rows, self.split.cols
        first_x, plane = cols.phases[run[0]], split.value_bytes * rows.size_in * cols.size_in
        is_inside = i < rows.num_inside(phase) and cols.num_inside(first_x) > 0
        loaded = (cols.num_inside(first_x) - 1) * cols.stride + len(run) if is_inside else 1
        row = byte * rows.size_in + (i * rows.stride + phase if is_inside else 0)
        out_row = (byte * rows.size + i) * cols.size
        return BLANK | {
            "op": TpOp.COPY,
            "a_addr": self.addr + channels.start * plane + row * cols.size_in + first_x * is_inside,
            "a_run_bytes": loaded,
            "num_a_runs": len(channels),
            "a_pitch_bytes": plane,
            "num_0": len(channels),
            "num_1": len(run),
            "num_2": cols.size,
            "step_0": loaded,
            "step_1": 1,
            "step_2": cols.stride,
            "tile_ih": len(run) * is_inside,
            "tile_iw": cols.num_inside(first_x),
            "zero_point_out": split.zero_point,
            "out_addr": self.out_addr
            + ((channels.start * len(cols.phases) + run[0]) * len(rows.phases) + number) * split.plane_bytes
            + out_row,
            "out_run_bytes": cols.size,
            "out_pitch_bytes": split.plane_bytes * (len(rows.phases) if len(run) > 1 else split.num_planes),
        }

    def _block(
        self, channels: range, row_run: list[int], col_run: list[int], rows: range, cols: range, byte: int
    ) -> dict[str, int]:
        """One descriptor, for a byte of each pixel; at most one of `channels`, `row_run` and `col_run` has more than
        one entry.
        """
        split, row_axis, col_axis = self.split, self.split.rows, self.split.cols
        phase_y, phase_x = row_axis.phases[row_run[0]], col_axis.phases[col_run[0]]
        tile_ih = min(max(row_axis.num_inside(phase_y) - rows.start, 0), len(rows))
        tile_iw = min(max(col_axis.num_inside(phase_x) - cols.start, 0), len(cols))
        width, num_planes, image_bytes = (
            col_axis.size_in,
            split.num_planes,
            split.value_bytes * row_axis.size_in * col_axis.size_in,
        )
        fields = {
            "op": TpOp.COPY,
            "num_0": len(channels) * len(row_run) * len(col_run),
            "num_1": len(rows),
            "num_2": len(cols),
            "tile_ih": tile_ih,
            "tile_iw": tile_iw,
            "zero_point_out": split.zero_point,
            "out_addr": self.out_addr
            + ((channels.start * len(col_axis.phases) + col_run[0]) * len(row_axis.phases) + row_run[0])
            * split.plane_bytes
            + (byte * row_axis.size + rows.start) * col_axis.size
            + cols.start,
            "out_run_bytes": len(rows) * len(cols) if len(cols) == col_axis.size else len(cols),
            "out_pitch_bytes": col_axis.size
            if len(cols) < col_axis.size
            else split.plane_bytes
            * (num_planes if len(channels) > 1 else len(row_axis.phases) if len(col_run) > 1 else 1),
        }
        if tile_ih == 0 or tile_iw == 0:
            return BLANK | fields | {"a_addr": self.addr, "a_run_bytes": 1, "tile_ih": 0}
        first_x = cols.start * col_axis.stride + phase_x
        loaded = (tile_iw - 1) * col_axis.stride + len(col_run)
        first = (
            channels.start * image_bytes
            + (byte * row_axis.size_in + rows.start * row_axis.stride + phase_y) * width
            + first_x
        )
        fields |= {"a_addr": self.addr + first, "step_2": col_axis.stride}
        if len(channels) == len(row_run) == 1:  # only rows that are needed
            return (
                BLANK
                | fields
                | {
                    "a_run_bytes": loaded,
                    "num_a_runs": tile_ih,
                    "a_pitch_bytes": row_axis.stride * width,
                    "step_0": 1,
                    "step_1": loaded,
                }
            )
        run = ((tile_ih - 1) * row_axis.stride + len(row_run) - 1) * width + loaded
        return (
            BLANK
            | fields
            | {
                "a_run_bytes": run,
                "num_a_runs": len(channels),
                "a_pitch_bytes": image_bytes,
                "step_0": run if len(channels) > 1 else width,
                "step_1": row_axis.stride * width,
            }
        )
