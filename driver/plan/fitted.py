"""Numbers of the compiler's estimate, chosen so that the plans which it prefers take few cycles.

`python -m convoy.verif.fit` prints what plans cost with others. Used as `fitted.NAME`, as those of the timing model.
"""

TP_START_CYCLES = 200
"""From the last write that a TP task waits for to its first output."""
TP_BLOCK_CYCLES = 60
"""What a TP descriptor costs beyond its bytes."""
TP_BYTE_CYCLES = {"copy": 0.25, "add": 0.3, "zoom": 2.0, "nearest": 1.0}
"""Cycles per output byte."""
TP_RUN_CYCLES = 4
"""What a run costs beyond a cycle per byte, to choose between shapes of blocks."""
TP_RUN_BEATS = 2
"""And beyond its beats: the one that it shares, and its turn at the port, which others use too."""
TP_TRIP_CYCLES = 40
"""From a request to its answer, of which there are several at a time."""

ROUND_TRIP_CYCLES = 100
"""From the last work of an operator to the first of one that waits for it, to choose an order."""
INTERLEAVE_GAIN = 0.97
"""Of the time of the given order, that another one must stay below: both are known roughly only."""

LAYER_CYCLES = 450
"""A descriptor's fetch, tables, first window and last write."""
NEXT_STRIPE_CYCLES = 55
"""What remains of that between stripes of a layer, where it is mostly hidden."""
IMBALANCE = 0.62
"""Cores that differ in the non-zero weights of a window wait for each other: with one slot for the largest of them,
which is this times sqrt(2 log(cores)) deviations above their mean.
"""
LEAD_DEVIATIONS = 2.3
"""Windows that a core may be ahead hide e of that for each so many deviations that their weights are."""
GROUP_CYCLES = 2
"""What a group costs the cores beyond its vectors."""
GROUP_DRAIN_CYCLES = 20
"""What a group costs the drain beyond its chunks."""
PORT_SHARE = 0.7
"""Part of the port's beats that weight streams can count on."""
CONTENTION = 0.3
"""Cycles that a beat of weights or parameters costs, because activations wait for it."""
SLOT_PENALTY = {1: 1.0, 2: 0.3, 3: 0.08}
"""With few window slots filling and computing wait for each other: this part of the shorter one is not hidden."""
MANY_SLOTS_PENALTY = 0.02
"""The same with more slots."""

SWAPPED_CYCLES = 350
"""What a layer with swapped operands costs beyond its jobs and the drain of the last one."""
NEXT_SWAPPED_CYCLES = 30
"""What remains of that between its jobs."""
SWAP_GAIN = 0.95
"""Of the estimate of the plain form, which is a little high, that the swapped one must stay below."""
SWAP_LOSS = 1.15
"""The same if no activation is zero, which is not foreseen of a tensor without negative values."""
ZERO_SHARE = 0.5
"""Of the activations of a tensor without negative values, as a ReLU makes it: nobody knows them before a run."""
