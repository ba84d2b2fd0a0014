"""When each descriptor of a program completes, without simulation. Times are cycles since the doorbell."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from math import inf

from convoy.driver.emit.program import Program
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import CHECK_CYCLES, INTERRUPT_CYCLES, WRITE_REQUEST_CYCLES, WRITE_RETURN_CYCLES
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, HEADER, NN, TP, Opcode

from . import fitted
from .nn import Following, NnTimer, Slice, Spent
from .port import ANSWER_CYCLES, Delay, Transfer
from .tp import TpTimer

__all__ = ["Timed", "end_cycles", "time_program"]

FIRST_FETCH_CYCLES = fitted.DOORBELL_CYCLES + ANSWER_CYCLES
"""From the doorbell to the first beat of the first descriptor, beyond the memory's latency."""
NEXT_FETCH_CYCLES = fitted.REFETCH_CYCLES + ANSWER_CYCLES
"""From a descriptor's last beat to the first beat of the last burst of the next one, beyond the memory's latency."""
NUM_RIVALS = 2
"""Loads of an engine that may be under way while the other one begins one."""
NUM_AHEAD = 1
"""Jobs that the NN engine accepts while it loads for another."""
RECORD_CYCLES = fitted.RECORD_REQUEST_CYCLES + WRITE_REQUEST_CYCLES + WRITE_RETURN_CYCLES
"""From a completion to the acknowledgement of its record, beyond the memory's latency and the record's beats."""


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


class _Front:
    """Fetches descriptors, and gives each to its engine in turn."""

    def __init__(self, program: Program, config: NpuConfig, memory: MemoryModel):
        self.program, self.config, self.latency = program, config, memory.latency_cycles
        self.nn, self.tp = NnTimer(config, memory), TpTimer(config, memory)
        self.num_beats = DESCRIPTOR_BYTES // config.port_bytes
        self.arrived: float = FIRST_FETCH_CYCLES + self.latency + self.num_beats
        self.taken = 0.0
        self.done = {Opcode.NN: 0.0, Opcode.TP: 0.0}
        self.tp_done: list[float] = []

    def time(self, index: int) -> Timed:
        """The next descriptor."""
        raw, header = self.program.descriptors[index], self._header(index)
        offered, released = self._offer(), self._released(header)
        if header["opcode"] == Opcode.NN:
            fields = NN.decode(raw)
            if fields["is_swapped"]:
                accepted, completed, spent = self.nn.time_swapped(fields, offered, released)
            else:
                streams = self.program.streams[fields["stream_addr"]]
                accepted, completed, spent = self.nn.time(fields, streams, offered, released, self._following(index))
            timed = Timed(index, Opcode.NN, accepted, completed, spent, tuple(self.nn.slices))
            self.nn.slices.clear()
        else:
            self.tp.rivals = self.nn.loads[-NUM_RIVALS:]
            accepted, completed = self.tp.time(TP.decode(raw), offered, released)
            timed = Timed(index, Opcode.TP, accepted, completed, None, tuple(self.tp.slices))
            self.tp.slices.clear()
        self.taken = accepted
        self.done[timed.opcode] = max(self.done[timed.opcode], completed)
        if timed.opcode == Opcode.TP:
            self.tp_done.append(completed)
        return timed

    def _header(self, index: int) -> dict[str, int]:
        return HEADER.decode(self.program.descriptors[index][: HEADER.num_bytes])

    def _offer(self) -> float:
        """When the next descriptor has been fetched and checked."""
        fetched = max(self.taken + self.num_beats, self.arrived) + 1
        self.arrived = fetched + self.latency + NEXT_FETCH_CYCLES + min(self.num_beats, self.config.max_burst_beats)
        return fetched + CHECK_CYCLES * self.config.has_descriptor_check

    def _released(self, header: dict[str, int]) -> float:
        """When what the next descriptor waits for is done, beside what one for NN waits for of its own engine."""
        waits = [done + 1 for done in self.tp_done[: len(self.tp_done) - header["tp_ahead"]][-1:]] * header["wait_tp"]
        if header["opcode"] == Opcode.TP:
            waits += [self.done[Opcode.NN] + 1] * header["wait_nn"]
        return max(waits, default=0.0)

    def _following(self, index: int) -> Following:
        """What comes behind a descriptor."""
        rest = self.program.descriptors[index + 1 :]
        streams = fields = None
        if rest and self._header(index + 1)["opcode"] == Opcode.NN and not NN.decode(rest[0])["is_swapped"]:
            fields = NN.decode(rest[0])
            streams = self.program.streams[fields["stream_addr"]]
        return Following(
            len(rest), streams, fields, self._next_offer, lambda accepted, load: self._tp_loads(index, accepted, load)
        )

    def _next_offer(self, accepted: float) -> float:
        """When the next descriptor could be offered if the one in work were accepted at some time."""
        ahead = copy(self)
        ahead.taken = accepted
        return ahead._offer()

    def _tp_loads(self, index: int, accepted: float, load: Transfer) -> list[Transfer]:
        """What the tensor processor reads while the loader reads for the job of descriptor `index`, in descriptors
        before and behind it.
        """
        ahead = copy(self)
        ahead.tp, ahead.taken, ahead.done = copy(self.tp), accepted, dict(self.done)
        ahead.tp.slices, ahead.tp.loads = [], [each for each in self.tp.loads[-NUM_RIVALS:] if each.end > load.start]
        ahead.tp.rivals = [*self.nn.loads[1 - NUM_RIVALS :], replace(load, end=inf)]
        num_jobs, loads = 0, ahead.tp.loads
        for number, raw in enumerate(self.program.descriptors[index + 1 :], index + 1):
            header = self._header(number)
            is_nn = header["opcode"] == Opcode.NN
            if (header["wait_nn"] and not is_nn) or (is_nn and num_jobs == NUM_AHEAD):
                break
            if loads and Delay(self.tp.port, load, loads[:-1])(load.end) < loads[-1].start:
                break
            offered = ahead._offer()
            if is_nn:
                num_jobs, ahead.taken = num_jobs + 1, offered + 1
            else:
                ahead.taken, ahead.done[Opcode.TP] = ahead.tp.time(TP.decode(raw), offered, ahead._released(header))
        return [
            replace(each, rate=each.rate + self.num_beats / (each.end - each.start)) for each in loads
        ]  # a descriptor comes with each


def time_program(program: Program, config: NpuConfig, memory: MemoryModel) -> list[Timed]:
    """Every descriptor, in program order."""
    front = _Front(program, config, memory)
    return [front.time(index) for index in range(len(program.descriptors))]


def end_cycles(config: NpuConfig, memory: MemoryModel) -> int:
    """From the last completion to the interrupt: its record has to be written, and the engines are reset."""
    return COMPLETION.num_bytes // config.port_bytes + memory.latency_cycles + RECORD_CYCLES + INTERRUPT_CYCLES
