"""The read port while two engines load at once: bursts of both take turns."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import ceil

from convoy.spec.config import NpuConfig
from convoy.spec.cycles import (
    READ_REQUEST_CYCLES,
    READ_RETURN_CYCLES,
    RUN_REQUEST_CYCLES,
    RUN_RETURN_CYCLES,
    WRITE_REQUEST_CYCLES,
    WRITE_RETURN_CYCLES,
)

from . import fitted

__all__ = [
    "ANSWER_CYCLES",
    "READ_TRIP_CYCLES",
    "REQUEST_CYCLES",
    "RUN_CYCLES",
    "WRITE_TRIP_CYCLES",
    "Delay",
    "SharedPort",
    "Transfer",
]

ANSWER_CYCLES = READ_REQUEST_CYCLES + READ_RETURN_CYCLES
"""From the request of a burst to its first beat, beyond the memory's latency and with nothing in between."""
TAKEN_CYCLES = ANSWER_CYCLES + RUN_RETURN_CYCLES + 1
"""The same to its first beat behind the queue of the unit, whose room is counted in a register."""
RUN_CYCLES = RUN_REQUEST_CYCLES + ANSWER_CYCLES + RUN_RETURN_CYCLES
"""From a run to its first beat behind the queue of the unit, beyond the memory's latency."""
REQUEST_CYCLES = fitted.JOB_CYCLES + RUN_REQUEST_CYCLES
"""From a job of the NN engine to the first requests of its tables, parameters and pixels."""
READ_TRIP_CYCLES = fitted.JOB_CYCLES + RUN_CYCLES
"""What a round trip to memory takes beyond the memory's latency."""
WRITE_TRIP_CYCLES = fitted.WRITE_BURST_CYCLES + WRITE_REQUEST_CYCLES + WRITE_RETURN_CYCLES
"""The same from the last beat of a burst to its acknowledgement."""


@dataclass(frozen=True)
class Transfer:
    """What a unit reads from `start` to `end`: so many beats per cycle, in bursts of so many on average."""

    start: float
    end: float
    rate: float
    burst_beats: float

    def until(self, end: float) -> Transfer:
        """The same beats in another time."""
        return replace(self, end=end, rate=self.rate * (self.end - self.start) / (end - self.start))


@dataclass(frozen=True)
class SharedPort:
    """A configuration's read port on a memory."""

    config: NpuConfig
    latency_cycles: int

    def cycles(self, beats: float, num_bursts: int, depth_beats: int) -> float:
        """From the first beat to the last of what a unit reads alone, with `depth_beats` requested and not yet taken
        at most.
        """
        burst, cycles = beats / num_bursts, beats
        for window, answer in (
            (self.config.max_reads, fitted.FLIGHT_CYCLES),
            ((depth_beats - self.config.max_burst_beats) / burst + 1, TAKEN_CYCLES),
        ):
            waits = (
                ceil(num_bursts / window) - 1
            )  # the first burst of a window is requested when the first of the window before has come
            cycles = max(cycles, waits * (self.latency_cycles + answer + burst) + (num_bursts - waits * window) * burst)
        return cycles

    def share(self, own: Transfer, rival: Transfer) -> float:
        """Beats per cycle of the one while both always have a request."""
        both = own.burst_beats + rival.burst_beats
        return own.burst_beats / max(
            both, (2 * (self.latency_cycles + fitted.FLIGHT_CYCLES) + both) / self.config.max_reads
        )

    def end(self, own: Transfer, rivals: Iterable[Transfer]) -> float:
        """When a transfer ends that would end at `own.end` if it had the port to itself.

        `rivals` are in order of time.
        """
        now, left = own.start, own.end - own.start
        for rival in rivals:
            alone = min(left, max(rival.start - now, 0.0))
            now, left = now + alone, left - alone
            if left > 0 and rival.end > now:
                speed = min(
                    1.0, (self.share(own, rival) if rival.rate >= self.share(rival, own) else 1 - rival.rate) / own.rate
                )
                shared = min(left / speed, rival.end - now)
                now, left = now + shared, left - shared * speed
        return now + left


class Delay:
    """Times of a transfer that others hold up, from those that it would have alone.

    Parameters
    ----------
    port : what is shared
    own : the transfer alone
    rivals : the others as they are, in order of time
    """

    def __init__(self, port: SharedPort, own: Transfer, rivals: Iterable[Transfer]):
        self._alone, self._shared = [own.start], [own.start]
        for rival in rivals:
            alone, now = self._alone[-1], self._shared[-1]
            start = max(rival.start, now)
            if rival.end <= start or alone + start - now >= own.end:
                continue
            share = (
                min(1 - rival.rate, port.share(own, rival)) if rival.rate >= port.share(rival, own) else 1 - rival.rate
            )
            speed = min(1.0, max(fitted.LEAST_SHARE, share) / own.rate)
            self._alone += [alone + start - now, alone + start - now + (rival.end - start) * speed]
            self._shared += [start, rival.end]

    def __call__(self, alone: float) -> float:
        """When that happens which would happen at `alone`."""
        if alone <= self._alone[0]:
            return alone
        place = bisect_right(self._alone, alone) - 1
        late = alone - self._alone[place]
        if place == len(self._alone) - 1:
            return self._shared[-1] + late
        slope = (self._shared[place + 1] - self._shared[place]) / (self._alone[place + 1] - self._alone[place])
        return self._shared[place] + late * slope
