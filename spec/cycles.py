"""Counts that decide when the hardware does something, where the driver's timing model or a reader has to know them
too: the RTL takes them from here, or a test in `tests/hw` measures that it has them.
"""

from __future__ import annotations

__all__ = [
    "ACC_READ_CYCLES",
    "ACT_DEPTH_BEATS",
    "ARITHMETIC_CYCLES",
    "AVERAGE_CYCLES",
    "AVERAGE_CYCLES_WIDE",
    "BLEND_CYCLES",
    "BURST_CYCLES",
    "CHECK_CYCLES",
    "COMPRESS_CYCLES",
    "DRAIN_FAN_OUT_CYCLES",
    "EXTREME_CYCLES",
    "FILL_CYCLES",
    "FINISH_CYCLES",
    "GATHER_CYCLES",
    "INTERRUPT_CYCLES",
    "LOW_BEATS",
    "LOW_PARAM_RECORDS",
    "LUT_BEAT_CYCLES",
    "LUT_CYCLES",
    "MAX_WRITES",
    "MEAN_CYCLES",
    "MIN_FILL_CYCLES",
    "NUM_RESETS",
    "NUM_TP_LANES",
    "OPERAND_DEPTH_BYTES",
    "PARAM_DEPTH_RECORDS",
    "POOL_CYCLES",
    "READ_REQUEST_CYCLES",
    "READ_RETURN_CYCLES",
    "RELEASE_CYCLES",
    "REQUANTISE_CYCLES",
    "RESET_CYCLES",
    "RUN_REQUEST_CYCLES",
    "RUN_RETURN_CYCLES",
    "SCALE_CYCLES",
    "SKIP_CYCLES",
    "TABLE_DEPTH_BEATS",
    "TAKE_CYCLES",
    "TOKEN_BUFFER_BITS",
    "TOKEN_PART_BITS",
    "UNIT_RESET_GROUPS",
    "WAITING_BURSTS",
    "WRITE_REQUEST_CYCLES",
    "WRITE_RETURN_CYCLES",
]

CHECK_CYCLES = 12
"""From a descriptor's arrival at the check to its offer to an engine."""
UNIT_RESET_GROUPS = 4
"""Groups of cores and other units of the NN engine, each with a reset from a register of its own: one net does not
reach them all in a cycle.
"""
NUM_RESETS = 2 + UNIT_RESET_GROUPS
"""Resets that a stopped program leads to, in registers in a row: of the tensor processor, of the NN engine, of each
group of its units.
"""
RESET_CYCLES = 2 * NUM_RESETS + 1
"""From the first of them to the end of the last."""
INTERRUPT_CYCLES = RESET_CYCLES + 4
"""From a stopped program's last answer of the bus to the interrupt."""
LOW_BEATS = 32
"""A weight queue that holds less is filled even while pixels or parameters are to be read."""
LOW_PARAM_RECORDS = 16
"""Of the queue of parameters, that are fetched even while pixels are to be read: those are needed first."""
ACT_DEPTH_BEATS, TABLE_DEPTH_BEATS, PARAM_DEPTH_RECORDS, OPERAND_DEPTH_BYTES = 64, 32, 32, 512
"""Queues of the loader, of the tables, of the parameters, and of operands of TP and of residuals, each; two bursts
if that is more.
"""

MAX_WRITES = 16
"""Write bursts in flight."""
WAITING_BURSTS = 2
"""Bursts that a port has taken from its clients and not yet sent: a guard compares one and holds one."""
READ_REQUEST_CYCLES, READ_RETURN_CYCLES = 3, 1
"""From a client's read request to the bus, and from a beat on the bus to the client."""
WRITE_REQUEST_CYCLES, WRITE_RETURN_CYCLES = 3, 1
"""From a client's write request to its address on the bus, and from the answer on the bus to the client."""
RUN_REQUEST_CYCLES, RUN_RETURN_CYCLES = 3, 3
"""From a run to the first request of its reader, and from a beat that the client gets to the unit behind its queue."""

BURST_CYCLES, SKIP_CYCLES = 3, 2
"""From one burst of weights to the next at the earliest; more for each core in between that needs none."""
TOKEN_BUFFER_BITS, TOKEN_PART_BITS = 32, 16
"""Buffer of a core's decoder, from which it takes a token per cycle, and what it takes into that per cycle."""
FILL_CYCLES = 2
"""From the address of a word in the stripe memory to its write into the windows."""
MIN_FILL_CYCLES = 2
"""Of the filler per window, at least; one of more words takes a cycle per word."""
TAKE_CYCLES = 2
"""From a channel in the stripe memory, or a free slot, to the window that the filler takes and may begin with."""
RELEASE_CYCLES = 1
"""From the end of a window's last issue to its release: its last read comes before the filler's first write."""
FINISH_CYCLES = 10
"""From the end of a group's last issue until its sums are in the accumulators."""
DRAIN_FAN_OUT_CYCLES = 1
"""Registers between the drain and the cores, in each direction."""
ACC_READ_CYCLES = 2
"""From the address of accumulators at a core to the sums."""

REQUANTISE_CYCLES, LUT_CYCLES, COMPRESS_CYCLES = 13, 2, 2
"""From sums to bytes, through a lookup table, and to a chunk without the gaps between rows."""
LUT_BEAT_CYCLES = 2
"""To write a beat of a lookup table; one if a beat is 32 bits, which are written per cycle and memory."""
SCALE_CYCLES = 6
"""Of a product with a multiplier, rounded twice."""
ARITHMETIC_CYCLES = 2 * SCALE_CYCLES + 2
"""Of a sum, a difference or a product: operands are scaled, then the result."""

NUM_TP_LANES = 4
"""Bytes that each gather of the tensor processor reads per cycle."""
GATHER_CYCLES = 4
"""From addresses at the buffer of the tensor processor to their bytes."""
EXTREME_CYCLES = 1
"""Of a maximum or minimum of two operands."""
POOL_CYCLES = 7
"""From the last group of a window to its maximum, or, with those of the average, to that."""
MEAN_CYCLES = POOL_CYCLES - 2 + SCALE_CYCLES + 2
"""From the last group of a window to its sum, which is scaled as that of two operands is."""
AVERAGE_CYCLES, AVERAGE_CYCLES_WIDE = 10, 18
"""Of a division; of int16, where it takes one at a time."""
BLEND_CYCLES = 3
"""From the last row of a window of `BILINEAR`, which is scaled as a sum is, to its result."""
