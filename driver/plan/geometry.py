"""A convolution as stored, and the pieces that a tiling cuts it into."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from convoy.driver.lower.work import Axis, ConvWork

__all__ = ["ChannelPart", "Geometry", "GroupShape", "Stripe"]


@dataclass(frozen=True)
class Geometry:
    """A convolution as stored: rows and columns in memory order."""

    num_ic: int
    num_oc: int
    rows: Axis
    cols: Axis
    is_depthwise: bool
    has_residual: bool = False
    pool_size: int = 0
    """As in `ConvWork`."""
    value_bytes: int = 1
    """Bytes of an activation: planes of bytes per channel."""

    @classmethod
    def of(cls, work: ConvWork) -> Geometry:
        """That of a convolution in the orientation in which it is stored."""
        return cls(
            work.num_ic,
            work.num_oc,
            work.rows,
            work.cols,
            work.is_depthwise,
            work.residual is not None,
            work.pool_size,
            work.value_bytes,
        )

    @cached_property
    def phase_list(self) -> list[tuple[int, int]]:
        """Phase planes that a tap reads, in the order stored."""
        return [(py, px) for py in self.rows.phases for px in self.cols.phases]

    @cached_property
    def taps(self) -> list[tuple[int, int, int]]:
        """(stored phase, row shift, column shift) of every tap, kernel row first."""
        index = {phase: n for n, phase in enumerate(self.phase_list)}
        return [(index[py, px], dy, dx) for py, dy in self.rows.taps for px, dx in self.cols.taps]

    def clip_cols(self, first_col: int, num_cols: int) -> tuple[int, int, int]:
        """`Axis.clip` of the columns; whole rows are loaded for a stripe of full width."""
        return (
            (0, self.cols.size_in, self.cols.pad)
            if num_cols == self.cols.size_out
            else self.cols.clip(first_col, num_cols)
        )

    @property
    def collapsed(self) -> Geometry:
        """A 1x1 convolution at stride 1 without pads, and without pool, sees each plane as one row of pixels."""
        if self.pool_size or not (self.rows.is_plain and self.cols.is_plain):
            return self
        num_pixels = self.rows.size_in * self.cols.size_in
        return replace(self, rows=Axis(1, 1), cols=Axis(num_pixels, num_pixels))


@dataclass(frozen=True)
class GroupShape:
    """How output pixels are dealt to the lane vectors of a group; the fields are those of the NN descriptor."""

    mode: str
    """"flat": vectors run on across row ends; "rows": vectors are tiles of rows; "segment": a part of a single
    output row.
    """
    rows: int
    """Output rows of a group."""
    cols: int
    """Output columns of a group."""
    num_vec: int
    num_vec_x: int
    split_log2: int
    pitch_row: int
    drain_pitch: int
    num_lanes: int
    seg_words: int = 0
    num_slots: int = 0

    def extent(self, num_rows: int, num_cols: int) -> tuple[int, int]:
        """(lane positions to drain, lane vectors) of a group of `num_rows` by `num_cols` outputs."""
        num_pos = (num_rows - 1) * self.drain_pitch + num_cols
        if self.mode == "rows":
            return num_pos, self.num_vec_x * -(-num_rows // (1 << self.split_log2))
        return num_pos, -(-num_pos // self.num_lanes)

    @property
    def group_step(self) -> int:
        """Pixels from one group's window to the next."""
        return self.cols if self.mode == "segment" else self.rows * self.pitch_row


@dataclass(frozen=True)
class ChannelPart:
    """Consecutive superblocks, and the input channels that they read: of a convolution all of both."""

    first_sb: int
    num_sb: int
    first_ic: int
    num_ic: int

    @property
    def superblocks(self) -> slice:
        """To index arrays of a value per superblock."""
        return slice(self.first_sb, self.first_sb + self.num_sb)


@dataclass(frozen=True)
class Stripe:
    """A rectangle of output pixels of some channels: one NN descriptor."""

    part: ChannelPart
    first_row: int
    num_rows: int
    first_col: int
    num_cols: int
    tile_rows: int
    tile_cols: int
    phase_words: int
    num_groups: int
    num_words: int
    """Stripe memory that it fills or reads."""

    def groups(self, group: GroupShape) -> tuple[tuple[int, int], tuple[int, int]]:
        """`GroupShape.extent` of all groups but the last, and of the last."""
        full, last = self.group_outputs(group)
        return group.extent(*full), group.extent(*last)

    def group_outputs(self, group: GroupShape) -> tuple[tuple[int, int], tuple[int, int]]:
        """(rows, columns) of outputs of all groups but the last, and of the last."""
        before = self.num_groups - 1
        if group.mode == "segment":
            return (1, group.cols), (1, self.num_cols - before * group.cols)
        return (group.rows, self.num_cols), (self.num_rows - before * group.rows, self.num_cols)
