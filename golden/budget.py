"""How much a descriptor may ask of the golden model.

A field of 16 bits is easily spoilt to 65535, and loops within loops of it would take hours and all memory. What a
compiled descriptor asks for is far below.
"""

from __future__ import annotations

from .memory import MachineError

__all__ = [
    "BLOCK_ELEMENTS",
    "MAX_CHANNELS",
    "MAX_MACS",
    "MAX_OUTPUTS",
    "MAX_STREAMS",
    "MAX_STREAM_WEIGHTS",
    "MAX_WEIGHTS",
    "MAX_WINDOW_PIXELS",
    "require_at_most",
]

MAX_OUTPUTS = 1 << 27
"""Most outputs of a descriptor."""
MAX_MACS = 1 << 36
"""Most products of an NN descriptor, those with zeros too."""
MAX_WEIGHTS, MAX_STREAM_WEIGHTS = 1 << 26, 1 << 23
"""Most weights of a superblock, and of one of its streams, zeros too."""
MAX_STREAMS = 1 << 16
"""Most weight streams of a descriptor."""
MAX_CHANNELS = 1 << 19
"""Most entries in a table of output-channel parameters."""
MAX_WINDOW_PIXELS = 1 << 31
"""Most pixels that the pools of a TP descriptor look at, rows first, then columns."""
BLOCK_ELEMENTS = 1 << 22
"""Elements of the arrays that are worked on at once."""


def require_at_most(limit: int, what: str, value: int) -> None:
    """Raise `MachineError` when `value`, which is that of `what`, is more than the limit."""
    if value > limit:
        raise MachineError(f"{what} = {value}: the golden model executes at most {limit} in a descriptor")
