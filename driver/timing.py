"""When each descriptor of a program completes, without simulation. Times are cycles since the doorbell."""

from __future__ import annotations

from dataclasses import dataclass

from convoy.spec.config import NpuConfig
from convoy.spec.isa import DESCRIPTOR_BYTES, HEADER, NN, TP, Opcode

from .device import MemoryModel
from .program import Program
from .timing_nn import Following, NnTimer, Slice, Spent
from .timing_tp import TpTimer

__all__ = ["Timed", "time_program"]

START_CYCLES = 6
"""From the doorbell to the first beat of the first descriptor, beyond the memory's latency."""
CHECK_CYCLES = 11
"""From a descriptor's last beat, or from the one before being handed out, to its offer to an engine."""
END_CYCLES = 28
"""From the last completion to the interrupt, beyond the memory's latency: its record has to be written, and the engines are reset."""


@dataclass(frozen=True)
class Timed:
    """One descriptor: when its engine accepted it, when it completes, and what the cores did for it (NN)."""

    index: int
    opcode: Opcode
    accepted: float
    completed: float
    spent: Spent | None
    slices: tuple[Slice, ...]
    """What the units did for it."""


def _following(program: Program, index: int) -> Following:
    """What comes behind a descriptor."""
    rest = program.descriptors[index + 1:]
    streams = None
    if rest and HEADER.decode(rest[0][:HEADER.num_bytes])["opcode"] == Opcode.NN:
        streams = program.streams[NN.decode(rest[0])["stream_addr"]]
    return Following(len(rest), streams)


def time_program(program: Program, config: NpuConfig, memory: MemoryModel) -> list[Timed]:
    """Every descriptor, in program order."""
    nn, tp = NnTimer(config, memory), TpTimer(config, memory)
    fetch_cycles = DESCRIPTOR_BYTES / config.port_bytes + 1
    fetched = START_CYCLES + memory.latency_cycles
    taken = before = 0.0
    done = {Opcode.NN: 0.0, Opcode.TP: 0.0}
    times = []
    for index, raw in enumerate(program.descriptors):
        header = HEADER.decode(raw[:HEADER.num_bytes])
        fetched = max(fetched, before) + fetch_cycles
        offered = max(fetched, taken) + CHECK_CYCLES
        if header["wait_tp"]:
            offered = max(offered, done[Opcode.TP] + 1)
        if header["opcode"] == Opcode.NN:
            fields = NN.decode(raw)
            accepted, completed, spent = nn.time(fields, program.streams[fields["stream_addr"]], offered, _following(program, index))
            times.append(Timed(index, Opcode.NN, accepted, completed, spent, tuple(nn.slices)))
            nn.slices.clear()
        else:
            if header["wait_nn"]:
                offered = max(offered, done[Opcode.NN] + 1)
            accepted, completed = tp.time(TP.decode(raw), offered)
            times.append(Timed(index, Opcode.TP, accepted, completed, None, tuple(tp.slices)))
            tp.slices.clear()
        done[times[-1].opcode] = max(done[times[-1].opcode], completed)
        before, taken = taken, accepted
    return times
