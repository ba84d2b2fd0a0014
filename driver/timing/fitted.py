"""Numbers of the timing model that are fitted to runs of the RTL, where `spec/cycles.py` has none to add up.

`python -m convoy.verif.fit` measures how far off the model is with each of them, and with its neighbours. Used as
`fitted.NAME`, so that a reader sees what is fitted, and that command can change it.
"""

JOB_CYCLES = 2
"""From a job at the NN engine to the first run of its tables, parameters and pixels."""
FLIGHT_CYCLES = 3
"""What a burst is in flight beyond the memory's latency and its beats."""
LEAST_SHARE = 0.1
"""Of the port, that a transfer gets in any case."""
WRITE_BURST_CYCLES = 8
"""From the last beat of a burst to its request, and its beats on the bus."""

DOORBELL_CYCLES = 2
"""From the doorbell to the request of the first descriptor."""
REFETCH_CYCLES = 1
"""From a descriptor's last beat to the request of the last burst of the next one."""
RECORD_REQUEST_CYCLES = 1
"""From a completion to the request of its record."""
DESCRIPTOR_CYCLES = 27
"""From a job to the request of the descriptor behind the next one."""

CORE_JOB_CYCLES, FILLER_JOB_CYCLES, DRAIN_JOB_CYCLES = 4, 4, 20
"""From a job to the first weight, window and group that a unit may begin with."""
FIRST_PLACE_CYCLES, PLACE_CYCLES = 9, 10
"""From the first beat of a stripe, and from a channel's last beat, behind their queue, to the windows that need it."""
LOAD_GAP_CYCLES = 13
"""Between the last write of a stripe and the first of the next."""
TABLE_CYCLES = 20
"""From a job to the request of its tables, and from their last entry to the request of the first stream."""
STREAM_START_CYCLES = 3
"""From the last entry of the directory, or of the tap table, to the choice of the first burst of weights."""
DECODE_CYCLES = 10
"""From the end of a group's stream, or from a beat, to the next weight at the sequencer."""
USE_CYCLES = 12
"""From a channel in the stripe memory, or from a beat of weights, to the first product."""
LOOKAHEAD_WEIGHTS = 8
"""Weights that a core has taken from its queue and not yet used."""
GROUP_SEEN_CYCLES = 6
"""From a group's sums in the accumulators to the first visit of its drain."""
GROUP_GAP_CYCLES = 5
"""Idle cycles of the drain between groups."""
GROUP_FREE_CYCLES = 4
"""From the last visit of a group to the next use of its accumulators."""
CHUNK_WRITE_CYCLES = 10
"""From a chunk without gaps to the port."""
RESIDUAL_UNIT_CYCLES = 4
"""Between the second operands of two channels."""
RESIDUAL_CYCLES = 8
"""From a unit to the request of its second operand, and from the operand to its sum."""
DRAIN_QUEUE_CHUNKS = 68
"""Chunks that the drain may be ahead of the port."""

TP_JOB_CYCLES = 3
"""From a job at the tensor processor to its walk, if its operands are there."""
TP_LOAD_CYCLES = 4
"""From a job to the first run of its operands, and from their first beat to the buffer."""
TP_LOADED_CYCLES = 2
"""From the last beat of the operands to the walk."""
TP_FOLLOW_CYCLES = 3
"""From the first beat of the operands to the first group, where groups follow the load."""
TP_WALK_CYCLES = 7
"""From the start of the walk to its first group."""
TP_WRITE_CYCLES, TP_END_CYCLES = 3, 7
"""From the last result to the writer that takes the next job; and from there to the end of its last burst."""
