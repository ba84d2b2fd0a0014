"""The instruction set: opcodes, descriptors and the tables that descriptors point to.

A program is an array of descriptors of `DESCRIPTOR_BYTES` bytes, aligned to `DESCRIPTOR_BYTES`. Every descriptor
starts with the fields of `HEADER`; `opcode` says which record the whole of it is. All is little-endian. Addresses are
byte addresses. *Word* means `num_lanes` pixels of one byte; *beat* means `port_bytes` bytes. `docs/architecture.md`
gives the meaning of an `NN` and a `TP` descriptor as loops.
"""

from __future__ import annotations

from .enums import IntEnum
from .record import Field, Record

__all__ = [
    "ADD_SHIFT",
    "ADD_SHIFT_WIDE",
    "CAUSE_FIELDS",
    "COMPLETION",
    "DESCRIPTOR_BYTES",
    "FLOAT_PRODUCT_BITS",
    "FRACTION_BITS",
    "HEADER",
    "LUT_BYTES",
    "MAX_PRODUCT_SHIFT",
    "MAX_PRODUCT_SHIFT_WIDE",
    "MAX_RUN_BITS",
    "MAX_SRC_PLANE_BYTES",
    "MAX_STEP_KERNELS",
    "NN",
    "NN_AT_LEAST_ONE",
    "NN_FEATURES",
    "NN_INT8",
    "NN_RESIDUAL_AT_LEAST_ONE",
    "NN_RESIDUAL_INT8",
    "NN_SWAPPED",
    "NN_SWAPPED_AT_LEAST_ONE",
    "NN_TABLES",
    "PARAM",
    "RECORDS",
    "SRC_PLACE_BITS",
    "STREAM",
    "TABLE_ALIGN_BYTES",
    "TAP_BYTES",
    "TP",
    "TP_AT_LEAST_ONE",
    "TP_B_AT_LEAST_ONE",
    "TP_FEATURES",
    "TP_INT8",
    "TP_POOL_AT_LEAST_ONE",
    "TP_TWO_OPERANDS",
    "TP_WIDE",
    "TP_WINDOWS",
    "Cause",
    "Opcode",
    "Rounding",
    "TpOp",
]

DESCRIPTOR_BYTES = 256
"""Size and alignment of a descriptor."""
TAP_BYTES = 2
"""Bytes of an entry of the tap table: an unsigned pixel offset into the window."""
LUT_BYTES = 256
"""Size and alignment of a lookup table; entry `y & 255` is what an output of y becomes."""
ADD_SHIFT, ADD_SHIFT_WIDE = 20, 15
"""ADD and SUB: left shift of the operands before they are scaled, of int8 and of int16; TFLite's, and what `a_mult`,
`b_mult` and `out_mult` allow for.
"""
FLOAT_PRODUCT_BITS = 49
"""Bits of a product, its sign included, that `Rounding.FLOAT` scales; what has more counts as infinite."""
MAX_RUN_BITS = 5
"""Largest `NN.run_bits`."""
MAX_STEP_KERNELS = 4
"""Most whole kernels that a weight token may advance by, where a kernel has more than one tap."""
MAX_SRC_PLANE_BYTES = 1024
"""Largest plane of the activations that a swapped descriptor reads."""
SRC_PLACE_BITS = 18
"""Bits, sign included, in which the rows and columns of these are counted, modulo; a convolution needs fewer."""


class Opcode(IntEnum, shape=8):
    """What a descriptor asks for."""

    NN = 1
    """A stripe of a convolution, depthwise convolution or fully connected layer."""
    TP = 2
    """A block of tensor-processor work."""


class Rounding(IntEnum, shape=2):
    """How the accumulator is requantised; names and formulas as in docs/quantisation.md."""

    DOUBLE = 0
    """D: rounding doubling high product, then a rounding shift, both half away from zero as in gemmlowp."""
    SINGLE = 1
    """SA: the exact product rounded once, half away from zero."""
    HALF_UP = 2
    """S16: the exact product rounded once, half up."""
    FLOAT = 3
    """F: the product rounded to the 24 significant bits of float32, then to an integer, halves to even both times."""


class TpOp(IntEnum, shape=4):
    """What the tensor processor does with the bytes it reads."""

    COPY = 0
    """Output = operand A, gathered by the steps; outside the image `zero_point_out`: copy, transpose, slice, phase
    split, pad.
    """
    ADD = 1
    """Elementwise sum of A and B, requantised as TFLite's int8 ADD."""
    MAX_POOL = 2
    """Maximum of the pixels of a pooling window that lie inside the image."""
    AVG_POOL = 3
    """Their average, rounded to the nearest."""
    SUB = 4
    """Elementwise difference of A and B, requantised as TFLite's int8 SUB."""
    MUL = 5
    """Elementwise product of A and B, requantised as TFLite's int8 MUL."""
    MAXIMUM = 6
    """Elementwise maximum of A and B."""
    MINIMUM = 7
    """Elementwise minimum of A and B."""
    BILINEAR = 8
    """The 2 x 2 pixels around a place in the image, weighted as in TFLite's int8 RESIZE_BILINEAR."""
    MEAN = 9
    """Sum of the pixels of a pooling window that lie inside the image, each less the zero point, requantised as
    TFLite's MEAN: a multiplier for the scales and the number of pixels.
    """


class Cause(IntEnum, shape=3):
    """What a cycle of a core went to: work, or the first reason in the way of it. Every cycle of every core has
    exactly one.
    """

    BUSY = 0
    """A weight meets a lane vector."""
    WEIGHTS = 1
    """The decoder has no weight to give, though its queue has beats: between groups, or zero runs longer than a
    token can say.
    """
    WINDOW = 2
    """The filler has not delivered the next window yet."""
    IMBALANCE = 3
    """This core is ahead: what it needs next is held up by a core with more weights."""
    DRAIN = 4
    """The drain still has the accumulators, or, between layers, the results that the next layer reads are not in
    memory yet.
    """
    BUS = 5
    """Bytes are on their way from memory: weights, or pixels that the loader has not delivered."""
    DISPATCH = 6
    """There is no job: descriptors are being fetched, or completion records written."""
    TP = 7
    """There is no job, and the tensor processor is at work; or a job waits for what that makes."""


CAUSE_FIELDS = {cause: f"{cause.name.lower()}_cycles" for cause in Cause}
"""The field of `COMPLETION` that counts the core cycles of a cause."""


_HEADER = (
    Field("opcode", 8, "`Opcode`."),
    Field("wait_nn", 1, "Read no activation before every earlier NN descriptor has completed."),
    Field("wait_tp", 1, "Read no activation before every earlier TP descriptor has completed."),
    Field("tp_ahead", 3, "With `wait_tp`: so many of the latest of those TP descriptors need not have completed."),
    Field("reserved", 3, "Zero."),
    Field("tag", 16, "Free for software: the layer's number."),
)

HEADER = Record("HEADER", 4, _HEADER)
"""The first four bytes of every descriptor."""

_SWAPPED = (
    Field(
        "is_swapped",
        1,
        (
            "1: the stripe has a row of weights for each (plane, ky, kx), one of each output channel; weight "
            "streams are gathered from the source. Needs one superblock, one group, one tap, is_flat; run_bits and "
            "pool_size are 0; not with is_depthwise or is_wide."
        ),
    ),
    Field("src_addr", 32, "First byte of the source: planes one after another, in rows without gaps."),
    Field("src_bytes", 32, "num_src_planes * src_plane_bytes."),
    Field("num_src_planes", 16, "Planes."),
    Field("src_plane_bytes", 11, f"src_ih * src_iw, at most {MAX_SRC_PLANE_BYTES}."),
    Field("src_ih", 11, "Rows of a plane."),
    Field("src_iw", 11, "Columns of a plane."),
    Field("src_kernel_h", 8, "Rows of taps."),
    Field("src_kernel_w", 8, "Columns of taps."),
    Field("src_stride_h", 8, "Source rows from one row of positions to the next."),
    Field("src_stride_w", 8, "Source columns from one position to the next."),
    Field("src_dilation_h", 8, "Source rows from one row of taps to the next."),
    Field("src_dilation_w", 8, "Source columns from one tap to the next."),
    Field("src_oh", 13, "Rows of positions."),
    Field("src_ow", 13, "Positions of a row."),
    Field(
        "src_start_y", 17, "Source row of the first tap of the first position: -pad_top of a whole image.", signed=True
    ),
    Field("src_start_x", 17, "Its source column.", signed=True),
    Field("src_start_bytes", 28, "Its place in a plane: src_start_y * src_iw + src_start_x.", signed=True),
    Field("src_step_row_bytes", 18, "From one row of positions to the next: src_stride_h * src_iw."),
    Field("src_step_tap_bytes", 18, "From one row of taps to the next: src_dilation_h * src_iw."),
)

NN = Record(
    "NN",
    DESCRIPTOR_BYTES,
    (
        *_HEADER,
        # Tables
        Field("tap_addr", 32, "Tap table: `num_taps` entries of `TAP_BYTES`. Aligned to 32 bytes."),
        Field(
            "stream_addr",
            32,
            "Stream directory: `num_sb` x `num_cores` entries of `STREAM`, superblock first. Aligned to 32 bytes.",
        ),
        Field("wgt_addr", 32, "Base that the offsets of `STREAM` entries are added to. Aligned to 32 bytes."),
        Field(
            "param_addr",
            32,
            (
                "Output-channel parameters: for each superblock `num_kernels` (last one: `num_kernels_last`) x "
                "`num_cores` entries of `PARAM`, kernel first. With is_swapped `tile_iw` entries. Aligned to 32 bytes."
            ),
        ),
        # Loader: memory side
        Field("act_addr", 32, "First byte of the input stripe."),
        Field("act_run_bytes", 32, "Bytes of a contiguous run."),
        Field("act_pitch_inner_bytes", 32, "From one run to the next."),
        Field("act_pitch_outer_bytes", 32, "From one sequence of runs to the next."),
        Field("num_act_inner", 16, "Runs of a sequence."),
        Field("num_act_outer", 16, "Sequences."),
        # Loader: image side
        Field("num_ic", 16, "Input channels of bytes in the stripe."),
        Field("tile_ih", 16, "Input rows per channel."),
        Field("tile_iw", 16, "Input columns per channel."),
        Field("pad_top", 8, "Rows of zero point above."),
        Field("pad_left", 8, "Columns of zero point on the left."),
        Field("stride_h_log2", 1, "0: one plane vertically; 1: even and odd rows go to different phase planes."),
        Field("stride_w_log2", 1, "The same for columns."),
        Field("phase_mask", 4, "Which phase planes are stored; bit number = phase_y * 2 + phase_x."),
        Field("zero_point_in", 9, "Value of a pad pixel.", signed=True),
        Field(
            "tile_rows",
            16,
            (
                "Rows of a phase plane. At least ceil((pad_top + tile_ih) / stride_h); rows beyond the image are zero "
                "point."
            ),
        ),
        Field(
            "tile_cols",
            16,
            (
                "Columns written of every row of a phase plane. At least ceil((pad_left + tile_iw) / stride_w); "
                "columns beyond the image are zero point."
            ),
        ),
        Field(
            "pitch_row",
            16,
            (
                "Pixels from one row of a phase plane to the next. May be less than `tile_cols` when only zero points "
                "overlap."
            ),
        ),
        Field("phase_words", 16, "Words from one stored phase plane to the next."),
        Field(
            "channel_words",
            16,
            "Words from one channel to the next. At least num_phases * phase_words; exactly that with is_wide.",
        ),
        Field("stripe_word", 16, "First word in the stripe memory."),
        Field(
            "load_after_fill",
            1,
            (
                "Do not load before every earlier NN descriptor has read its last window; needed when the stripe "
                "overlaps the previous one."
            ),
        ),
        Field(
            "ring_channels",
            16,
            (
                "0: the whole stripe is in the stripe memory at once. Else channel c is loaded when the window of "
                "channel c - ring_channels has been read, and addresses wrap at the end of the memory. Needs one "
                "superblock, one group; not with is_depthwise or is_wide."
            ),
        ),
        # Windows and compute
        Field(
            "is_wide",
            1,
            (
                "1: activations are int16. Channels 2c and 2c + 1 of bytes hold the low (unsigned) and high bytes of "
                "channel c."
            ),
        ),
        Field("is_depthwise", 1, "0: a window goes to all cores; 1: each core gets the window of its own channel."),
        Field("num_sb", 16, "Superblocks."),
        Field("num_groups", 16, "Groups per superblock."),
        Field(
            "num_z",
            16,
            "Windows per group: all input channels (of two bytes if is_wide); depthwise: channels per core.",
        ),
        Field("group_step", 16, "Pixels from one group's window to the next within a phase plane."),
        Field("num_phases", 3, "Stored phase planes: the ones in `phase_mask`. 1, 2 or 4."),
        Field("seg_words", 9, "Words of each phase plane in a window."),
        Field(
            "num_slots",
            9,
            (
                "Windows in the window memory: floor(window_words / (num_phases * seg_words)) or fewer, half as many "
                "if is_wide. At least 1."
            ),
        ),
        Field("num_vec", 9, "T: lane vectors per group. T * kernels <= num_acc_entries, or half of these if is_wide."),
        Field("num_vec_last", 9, "T of the last group."),
        Field("num_vec_x", 9, "Vectors side by side; vector v is at column v mod num_vec_x, row v div num_vec_x."),
        Field("step_vec_x", 13, "Pixels between vectors side by side."),
        Field("step_vec_y", 13, "Pixels between rows of vectors."),
        Field("split_log2", 2, "A vector is 2**split_log2 rows (1, 2 or 4) by num_lanes >> split_log2 columns."),
        Field(
            "split_words",
            8,
            "Extra words per row within a vector: (pitch_row - (num_lanes >> split_log2)) / num_lanes.",
        ),
        Field("num_kernels", 9, "K: kernels per core and superblock."),
        Field("num_kernels_last", 9, "K of the last superblock."),
        Field("num_z_last", 16, "`num_z` of the last superblock (differs only for depthwise)."),
        Field("kernels_per_z", 9, "Kernels that use a window: K; depthwise: the channel multiplier."),
        Field("kernels_per_z_last", 9, "The same in the last superblock."),
        Field("num_taps", 9, "Taps of a kernel: KH * KW."),
        Field(
            "wgt_zero_point",
            8,
            (
                "Zero point of the stored weights, less their middle: tokens hold weights from -128 - wgt_zero_point "
                "to 127 - wgt_zero_point, modulo 256. 0 for int8. With is_swapped: zero point of the source."
            ),
            signed=True,
        ),
        Field(
            "run_bits",
            3,
            (
                f"Bits of a zero run in a weight token, 0..{MAX_RUN_BITS}. 2**run_bits <= num_taps * min(kernels, "
                f"{MAX_STEP_KERNELS}), or, if num_taps is 1, <= kernels; kernels = kernels_per_z and "
                "kernels_per_z_last."
            ),
        ),
        # Drain and write
        Field(
            "out_addr",
            32,
            (
                "First output byte of the first group; `PARAM.out_offset_bytes` is added. Every output has a byte "
                "(is_wide: two) of its own."
            ),
        ),
        Field("out_high_bytes", 32, "From the low byte of an output to its high byte. Not used if `is_wide` is 0."),
        Field(
            "out_group_step_bytes",
            24,
            (
                "From one group to the next. With a pool `pool_rows` div 2 rows of results; where `pool_rows` is odd, "
                "every second step is a row longer."
            ),
        ),
        Field(
            "out_pitch_row_bytes",
            24,
            "From one output row to the next (pooled, with a pool); used when `is_flat` is 0 or there is a pool.",
        ),
        Field("drain_pitch", 14, "Lane positions per output row."),
        Field("tile_ow", 14, "Output columns: positions below this are valid."),
        Field("num_pos", 14, "Lane positions to drain of a group: (rows - 1) * drain_pitch + tile_ow."),
        Field("num_pos_last", 14, "The same for the last group."),
        Field(
            "is_flat",
            1,
            (
                "1: vectors run on across row ends (one row of num_vec_x = num_vec vectors) and rows are contiguous "
                "in memory."
            ),
        ),
        Field("zero_point_out", 9, "Added after requantisation.", signed=True),
        Field("act_min", 16, "Lower clamp. At least -128, or -32768 with is_wide.", signed=True),
        Field("act_max", 16, "Upper clamp. At least act_min, at most 127, or 32767 with is_wide.", signed=True),
        Field("rounding", 2, "`Rounding`."),
        Field("has_lut", 1, "1: outputs, after the clamp, are looked up in a table."),
        Field("lut_addr", 32, "The table, `LUT_BYTES` bytes; aligned to that. Not used if `has_lut` is 0."),
        # Residual: a second operand, added to the outputs last. Not used if `has_residual` is 0
        Field("has_residual", 1, "1: outputs, after the table, are operand A of an ADD."),
        Field("res_addr", 32, "Operand B of the output byte at `out_addr`; the other bytes lie in the same order."),
        Field(
            "res_run_bytes",
            24,
            "Consecutive output bytes of a channel in a group: all of them, or those of an output row.",
        ),
        Field("res_run_bytes_last", 24, "The same in the last group."),
        Field("num_res_runs", 14, "Runs of a channel in a group, `out_pitch_row_bytes` apart."),
        Field("num_res_runs_last", 14, "The same in the last group."),
        Field("res_a_zero_point", 9, "Subtracted from A.", signed=True),
        Field("res_b_zero_point", 9, "Subtracted from B.", signed=True),
        Field("res_a_mult", 31, "Multiplier of A, Q31."),
        Field("res_b_mult", 31, "Multiplier of B, Q31."),
        Field("res_out_mult", 31, "Multiplier of the sum, Q31."),
        Field("res_a_shift", 5, "Right shift of A."),
        Field("res_b_shift", 5, "Right shift of B."),
        Field("res_out_shift", 5, "Right shift of the sum."),
        Field("res_zero_point_out", 9, "Added last.", signed=True),
        Field("res_act_min", 9, "Lower clamp of the sum.", signed=True),
        Field("res_act_max", 9, "Upper clamp of the sum.", signed=True),
        # Maximum pool of stride 2 without pads, last of all; not together with a residual. With is_wide a row has twice
        # as many bytes, and so half the widest width
        Field("pool_size", 2, "Rows and columns of the pooling window: 2 or 3; 0: no pool."),
        Field("pool_rows", 14, "Rows of outputs, before the pool, of a group. Not used if `pool_size` is 0."),
        Field("pool_rows_last", 14, "The same in the last group."),
        Field(
            "pool_continues",
            1,
            "3x3: the rows follow those of the descriptor before, whose last row is in the line memory. Else 0.",
        ),
        Field("pool_is_open", 1, "3x3: rows of the same image follow in the next descriptor. Else 0."),
        *_SWAPPED,
    ),
)
"""One stripe on the NN engine."""

NN_AT_LEAST_ONE = (
    "act_run_bytes",
    "num_act_inner",
    "num_act_outer",
    "num_ic",
    "tile_ih",
    "tile_iw",
    "tile_rows",
    "tile_cols",
    "pitch_row",
    "phase_words",
    "channel_words",
    "num_sb",
    "num_groups",
    "num_z",
    "num_z_last",
    "num_phases",
    "seg_words",
    "num_slots",
    "num_vec",
    "num_vec_last",
    "num_vec_x",
    "num_kernels",
    "num_kernels_last",
    "kernels_per_z",
    "kernels_per_z_last",
    "num_taps",
    "drain_pitch",
    "tile_ow",
    "num_pos",
    "num_pos_last",
)
"""Fields of `NN` that must not be 0."""
NN_RESIDUAL_AT_LEAST_ONE = ("res_run_bytes", "res_run_bytes_last", "num_res_runs", "num_res_runs_last")
"""With `has_residual` these too."""
NN_SWAPPED_AT_LEAST_ONE = (
    "src_bytes",
    "num_src_planes",
    "src_plane_bytes",
    "src_kernel_h",
    "src_kernel_w",
    "src_oh",
    "src_ow",
)
"""With `is_swapped` these too."""
NN_SWAPPED = tuple(field.name for field in _SWAPPED)
"""Fields of `NN` for swapped operands: the stripe holds weights, the weight streams are made of activations, the
source. Where `is_swapped` is 0 the others are not used.
"""
NN_INT8 = ("zero_point_in", "zero_point_out")
"""Fields of `NN` that hold a value of int8, -128..127: zero points (tensors of uint8 are stored less 128, their zero
points too).
"""
NN_RESIDUAL_INT8 = ("res_a_zero_point", "res_b_zero_point", "res_zero_point_out", "res_act_min", "res_act_max")
"""With `has_residual` these too."""
NN_FEATURES = {
    "is_wide": "has_int16",
    "has_residual": "has_residual",
    "has_lut": "has_lut",
    "pool_size": "has_fused_pool",
}
"""Fields of `NN` that must be 0 where the NPU lacks a feature, and that."""
NN_TABLES = ("tap_addr", "stream_addr", "wgt_addr", "param_addr")
"""Fields of `NN` that must be aligned to `TABLE_ALIGN_BYTES`."""
TABLE_ALIGN_BYTES = 32
"""Alignment of the tables of an `NN` descriptor."""

TP = Record(
    "TP",
    DESCRIPTOR_BYTES,
    (
        *_HEADER,
        Field("op", 4, "`TpOp`."),
        Field("buffer_half", 1, "Half of the TP buffer to load into; successive TP descriptors alternate."),
        # Load: operand A, then operand B (`TP_TWO_OPERANDS` only), each as runs; packed one after another without gaps
        Field("a_addr", 32, "First byte of operand A."),
        Field("a_run_bytes", 24, "Bytes of a contiguous run of A."),
        Field("num_a_runs", 16, "Runs of A."),
        Field("a_pitch_bytes", 32, "From one run of A to the next."),
        Field("b_addr", 32, "First byte of operand B."),
        Field("b_run_bytes", 24, "Bytes of a contiguous run of B; 0: no operand B."),
        Field("num_b_runs", 16, "Runs of B."),
        Field("b_pitch_bytes", 32, "From one run of B to the next."),
        # Elements: three output loops, the last one innermost
        Field("num_0", 16, "Outer output loop (channels)."),
        Field("num_1", 16, "Middle output loop (rows)."),
        Field("num_2", 16, "Inner output loop (columns)."),
        Field("step_0", 18, "Buffer bytes per step of the outer loop.", signed=True),
        Field("step_1", 18, "Buffer bytes per step of the middle loop.", signed=True),
        Field("step_2", 18, "Buffer bytes per step of the inner loop.", signed=True),
        Field(
            "b_step_0",
            18,
            "Operand B: buffer bytes per step of the outer loop; 0 repeats what the step leads over.",
            signed=True,
        ),
        Field("b_step_1", 18, "Operand B: buffer bytes per step of the middle loop.", signed=True),
        Field("b_step_2", 18, "Operand B: buffer bytes per step of the inner loop.", signed=True),
        # Image and window; pools and BILINEAR leave out rows and columns outside 0..tile_ih-1, 0..tile_iw-1, COPY fills
        # them
        Field("kernel_h", 16, "Window rows (pools; BILINEAR: 2)."),
        Field("kernel_w", 16, "Window columns (pools; BILINEAR: 2)."),
        Field("stride_h", 8, "Image rows per step of the middle loop (pools, BILINEAR)."),
        Field("stride_w", 8, "Image columns per step of the inner loop (pools, BILINEAR)."),
        Field(
            "stride_h_frac",
            10,
            "Added to `stride_h`, in units of 2**-10; windows lie at whole rows, rounded down (pools, BILINEAR).",
        ),
        Field("stride_w_frac", 10, "The same for columns."),
        Field("start_y_frac", 10, "Added to `start_y`, in units of 2**-10 (pools, BILINEAR)."),
        Field("start_x_frac", 10, "The same for columns."),
        Field(
            "start_y",
            17,
            (
                "Image row of the first window's first row, or of COPY's first output row: -pad_top for the first "
                "tile. COPY: at most 0."
            ),
            signed=True,
        ),
        Field(
            "start_x",
            17,
            "Image column of the first window's first column, or of COPY's first output column. COPY: at most 0.",
            signed=True,
        ),
        Field("tile_ih", 16, "Image rows in the buffer (pools, BILINEAR, COPY)."),
        Field(
            "tile_iw", 16, "Image columns in the buffer (pools, BILINEAR, COPY); except for COPY also the row pitch."
        ),
        # Write
        Field("out_addr", 32, "First output byte. Every output has a byte of its own."),
        Field("out_run_bytes", 24, "Bytes of a contiguous run."),
        Field("out_pitch_bytes", 32, "From one run to the next."),
        # Arithmetic
        Field("a_zero_point", 9, "ADD, SUB, MUL, MEAN: subtracted from A.", signed=True),
        Field("b_zero_point", 9, "ADD, SUB, MUL: subtracted from B.", signed=True),
        Field("a_mult", 31, "ADD, SUB: multiplier of A, Q31."),
        Field("b_mult", 31, "ADD, SUB: multiplier of B, Q31."),
        Field("out_mult", 31, "ADD, SUB, MUL, MEAN: multiplier of the sum, difference or product, Q31."),
        Field("a_shift", 5, "ADD, SUB: right shift of A."),
        Field("b_shift", 5, "ADD, SUB: right shift of B. MUL: left shift of the product, 0..7; 0 with is_wide."),
        Field("out_shift", 5, "ADD, SUB, MUL, MEAN: right shift of the result."),
        Field("zero_point_out", 9, "ADD, SUB, MUL, MEAN: added last. COPY: the value outside the image.", signed=True),
        Field(
            "act_min",
            16,
            "Lower clamp (ADD, SUB, MUL and pools). Of every operation but COPY: at least -128, with is_wide -32768.",
            signed=True,
        ),
        Field(
            "act_max",
            16,
            (
                "Upper clamp (ADD, SUB, MUL and pools). Of every operation but COPY: at least act_min, at most 127, "
                "with is_wide 32767."
            ),
            signed=True,
        ),
        Field("is_half_up", 1, "AVG_POOL: halves are rounded 0: away from zero, 1: up."),
        Field(
            "is_wide",
            1,
            (
                "1: elements are int16, in two bytes (MAX_POOL, AVG_POOL, MEAN and operations with an operand B only). "
                "Zero points are 0."
            ),
        ),
        Field(
            "is_high", 1, "With is_wide: which byte of each output is written, 0: the low one, 1: the high one. Else 0."
        ),
        Field("a_high_bytes", 17, "With is_wide: buffer bytes from the low byte of an element of A to its high byte."),
        Field("b_high_bytes", 17, "The same for B."),
        Field(
            "has_lut", 1, "1: outputs of any operation, after the clamp, are looked up in a table. Not with is_wide."
        ),
        Field("lut_addr", 32, "The table, `LUT_BYTES` bytes; aligned to that. Not used if `has_lut` is 0."),
    ),
)
"""One block on the TP engine: load into the buffer, process one element per cycle, write."""

TP_FEATURES = {"is_wide": "has_int16"}
"""The same of `TP`."""
TP_AT_LEAST_ONE = ("a_run_bytes", "num_a_runs", "num_0", "num_1", "num_2", "out_run_bytes")
"""Fields of `TP` that must not be 0."""
TP_TWO_OPERANDS = (TpOp.ADD, TpOp.SUB, TpOp.MUL, TpOp.MAXIMUM, TpOp.MINIMUM)
"""Operations with an operand B."""
TP_WIDE = (*TP_TWO_OPERANDS, TpOp.MAX_POOL, TpOp.AVG_POOL, TpOp.MEAN)
"""Operations on int16 too."""
TP_B_AT_LEAST_ONE = ("b_run_bytes", "num_b_runs")
"""They need these too."""
TP_WINDOWS = (TpOp.MAX_POOL, TpOp.AVG_POOL, TpOp.MEAN, TpOp.BILINEAR)
"""Operations on windows: pools and BILINEAR."""
TP_POOL_AT_LEAST_ONE = ("kernel_h", "kernel_w", "tile_ih", "tile_iw")
"""`TP_WINDOWS` need these."""
TP_INT8 = ("a_zero_point", "b_zero_point", "zero_point_out")
"""Fields of `TP` that hold a value of int8, -128..127, whatever the operation; 0 with `is_wide`."""
FRACTION_BITS = TP.fields["stride_h_frac"].bits
"""Fraction bits of a place in an image."""
MAX_PRODUCT_SHIFT, MAX_PRODUCT_SHIFT_WIDE = 7, 0
"""Largest left shift of MUL, of int8 and of int16."""

STREAM = Record(
    "STREAM",
    8,
    (
        Field(
            "offset_bytes",
            32,
            "From `wgt_addr` to the first beat of the stream; a multiple of 32 (the hardware ignores the low bits).",
        ),
        Field("num_beats", 32, "Port beats of the stream. At least 1 (the hardware takes 0 for 1)."),
    ),
)
"""Where the weight stream of one core in one superblock is."""

PARAM = Record(
    "PARAM",
    16,
    (
        Field(
            "bias",
            32,
            (
                "Added to the accumulator (if is_wide: of high bytes); holds the bias minus zero_point_in times the "
                "sum of the weights."
            ),
            signed=True,
        ),
        Field("mult", 31, "Multiplier q, Q31."),
        Field("is_valid", 1, "0: no such output channel; nothing is drained or written."),
        Field("out_offset_bytes", 32, "From `NN.out_addr` to this channel's plane."),
        Field("shift_left", 3, "L: the accumulator is shifted left first, 0..7."),
        Field("shift_right", 5, "R: the rounding right shift after the product, 0..31."),
        Field("bias_low", 8, "Added to the accumulator of low bytes if is_wide; the bias is bias * 256 + bias_low."),
    ),
)
"""Parameters of one output channel."""

COMPLETION = Record(
    "COMPLETION",
    64,
    (
        Field(
            "cycle",
            32,
            (
                "Cycles from the doorbell to this record, which is made when the descriptor completes and the record "
                "before has been written."
            ),
        ),
        Field("read_bytes", 32, "Bytes read over the port since the doorbell."),
        Field("write_bytes", 32, "Bytes written (strobes set) since the doorbell, completion records not counted."),
        Field("weight_bytes", 32, "Bytes of weight streams read since the doorbell."),
        *(
            Field(name, 32, f"Cycles since the doorbell, summed over the cores, that went to `Cause.{cause.name}`.")
            for cause, name in CAUSE_FIELDS.items()
        ),
    ),
)
"""Written to `RECORD_BASE` + 64 * index of the descriptor when the descriptor completes. The causes add up to
`num_cores` * `cycle`.
"""

RECORDS = (HEADER, NN, TP, STREAM, PARAM, COMPLETION)
