"""Counts that decide when the hardware does something, where the driver's timing model or a reader has to know them
too.
"""

from __future__ import annotations

__all__ = [
    "ACT_DEPTH_BEATS",
    "CHECK_CYCLES",
    "INTERRUPT_CYCLES",
    "LOW_BEATS",
    "NUM_RESETS",
    "OPERAND_DEPTH_BYTES",
    "PARAM_DEPTH_RECORDS",
    "RESET_CYCLES",
    "TABLE_DEPTH_BEATS",
    "UNIT_RESET_GROUPS",
]

CHECK_CYCLES = 11
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
ACT_DEPTH_BEATS, TABLE_DEPTH_BEATS, PARAM_DEPTH_RECORDS, OPERAND_DEPTH_BYTES = 64, 32, 32, 512
"""Queues of the loader, of the tables, of the parameters, and of operands of TP and of residuals, each; two bursts
if that is more.
"""
