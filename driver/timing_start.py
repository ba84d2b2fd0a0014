"""What the read port does while a job begins on an idle engine: tables, parameters, pixels and the first weights, burst by burst."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from convoy.spec.config import NpuConfig
from convoy.spec.cycles import ACT_DEPTH_BEATS, LOW_BEATS, PARAM_DEPTH_RECORDS, TABLE_DEPTH_BEATS
from convoy.spec.isa import DESCRIPTOR_BYTES, PARAM, STREAM, TAP_BYTES

from .pack import StreamCounts

__all__ = ["Start", "simulate_start"]

REQUEST_CYCLES = 5
"""From a job to the first requests of its tables, parameters and pixels."""
ANSWER_CYCLES = 4
"""From a request to its first beat, beyond the memory's latency and with nothing in between."""
WAITING_BURSTS = 2
"""Requests that the port has accepted and not yet sent, for too many are in flight."""
TAKE_CYCLES = 3
"""From a beat to the unit behind the queue of beats."""
TURN_CYCLES = 6
"""From the last entry of the directory, or of the tap table, to the request of the first weights."""
CHOOSE_CYCLES = 3
"""Between two bursts of weights."""
PLACE_CYCLES = 8
"""From a channel's last beat behind its queue to its place in the stripe memory."""
USE_CYCLES = 10
"""From a channel in the stripe memory, or from a beat of weights, to the first product."""
FETCH_CYCLES, FETCHED_DESCRIPTORS = 27, 1
"""From a job to the request of the descriptor behind the next one; descriptors that have been fetched before."""


@dataclass(frozen=True)
class Start:
    """Times in cycles."""

    loaded: tuple[float, ...]
    """When each input channel is in the stripe memory."""
    first_weights: tuple[float, ...]
    """First beat of each core's weights."""
    last_weights: float
    """Last beat of the first group's weights."""


class _Client:
    """Bursts in order; `at` is the earliest time of the next request, infinite if there is none or nobody knows yet."""

    def __init__(self, at: float, lengths: Sequence[int]):
        self.at, self.lengths = at if lengths else inf, deque(lengths)

    def issue(self, now: float) -> int:
        """Request a burst; its beats."""
        self.at = now + 1 if len(self.lengths) > 1 else inf
        return self.lengths.popleft()

    def answered(self, first: float, beats: int) -> None:
        """The burst that was requested last comes from `first` on, a beat per cycle."""


class _Tables(_Client):
    """The tap table, then the directory of the streams."""

    def __init__(self, at: float, d: dict[str, int], config: NpuConfig):
        taps, entries = -(-d["num_taps"] * TAP_BYTES // config.port_bytes), -(-d["num_sb"] * config.num_cores * STREAM.num_bytes // config.port_bytes)
        super().__init__(at, [*_bursts(taps, config), *_bursts(min(entries, TABLE_DEPTH_BEATS), config)])
        self.num_tap_bursts = len(_bursts(taps, config))
        self.needed = -(-config.num_cores * STREAM.num_bytes // config.port_bytes)
        self.num_taps, self.num_cores = d["num_taps"], config.num_cores
        self.taps_end, self.num_answered, self.weights_at = 0.0, 0, inf

    def answered(self, first: float, beats: int) -> None:
        self.num_answered += 1
        if self.num_answered == 1:
            self.taps_end = first + TAKE_CYCLES + self.num_taps
        elif self.num_answered > self.num_tap_bursts and self.needed > 0:
            self.taps_end = max(self.taps_end, first + TAKE_CYCLES)
            self.needed -= beats
            if self.needed <= 0:
                self.weights_at = max(self.taps_end + self.num_cores, first + beats + self.needed + TAKE_CYCLES) + TURN_CYCLES


class _Pixels(_Client):
    """Runs of activations; `depth` beats may be requested and not yet taken, a beat is taken every `spacing` cycles at most."""

    def __init__(self, at: float, lengths: Sequence[int], num_channels: int, spacing: float, depth: int):
        super().__init__(at, lengths)
        self.spacing, self.depth, self.requested = spacing, depth, 0
        ends = np.ceil(np.arange(1, num_channels + 1) * (sum(lengths) / num_channels)).astype(int)
        self.ends = ends.tolist()
        """Beats until each channel is complete."""
        self.taken: list[float] = []
        self.loaded: list[float] = []

    def issue(self, now: float) -> int:
        self.requested += self.lengths[0]
        beats = super().issue(now)
        self._set_next(now + 1)
        return beats

    def answered(self, first: float, beats: int) -> None:
        last = self.taken[-1] if self.taken else 0.0
        for beat in range(beats):
            last = max(first + beat + TAKE_CYCLES, last + self.spacing)
            self.taken.append(last)
        while len(self.loaded) < len(self.ends) and self.ends[len(self.loaded)] <= len(self.taken):
            self.loaded.append(self.taken[self.ends[len(self.loaded)] - 1] + PLACE_CYCLES)
        self._set_next(self.at if self.at < inf else 0.0)

    def _set_next(self, now: float) -> None:
        """A request needs room for the longest burst."""
        needed = self.requested + max(self.lengths, default=0) - self.depth
        self.at = inf if not self.lengths or needed > len(self.taken) else max(now, self.taken[needed - 1] + 1 if needed > 0 else 0.0)


class _Weights(_Client):
    """Streams of the first superblock, dealt to the cores in turn."""

    def __init__(self, streams: Sequence[StreamCounts], num_vec: int, num_groups: int, pixels: _Pixels, channels: Sequence[Sequence[int]], config: NpuConfig):
        super().__init__(inf, [])
        self.pixels, self.channels, self.depth = pixels, channels, config.weight_fifo_beats
        group = [_bursts(stream.num_beats, config) for stream in streams]
        self.left = [deque(bursts * min(num_groups, 1 + LOW_BEATS)) for bursts in group]
        self.num_first = [stream.num_beats for stream in streams]
        self.windows = [np.searchsorted(np.cumsum([n + zero for n, zero in zip(stream.nnz, stream.zeros, strict=True)]) * (stream.num_beats / max(1, sum(stream.nnz) + sum(stream.zeros))),
                                        np.arange(stream.num_beats), side="right").tolist() for stream in streams]
        self.beat_cycles = [sum(stream.cycles(num_vec)) / stream.num_beats for stream in streams]
        self.requested, self.arrived, self.used = ([0] * len(streams), [[] for _ in streams], [[] for _ in streams])
        self.turn, self.ready, self.issued = 0, inf, deque()

    def begin(self, at: float) -> None:
        """The directory has been read."""
        if self.ready == inf and at < inf:
            self.ready = at
            self.update()

    def _use(self, core: int) -> list[float]:
        """When the core takes each beat that it certainly takes, as far as this is known."""
        used, arrived, loaded = self.used[core], self.arrived[core], self.pixels.loaded
        while len(used) < min(len(arrived), self.num_first[core]):
            channel = self.channels[core][min(self.windows[core][len(used)], len(self.channels[core]) - 1)]
            if channel >= len(loaded):
                break
            used.append(max(arrived[len(used)] + USE_CYCLES, loaded[channel] + USE_CYCLES, used[-1] + self.beat_cycles[core] if used else 0.0))
        return used

    def _open_at(self, core: int) -> float:
        """When the core's next burst may be requested."""
        if not self.left[core]:
            return inf
        least = self.requested[core] + (1 - LOW_BEATS if self.pixels.lengths else self.left[core][0] - self.depth)
        used = self._use(core)
        return self.ready if least <= 0 else inf if least > len(used) else max(self.ready, used[least - 1])

    def update(self) -> None:
        """Set the time of the next request."""
        self.at = min((max(self.ready, self._open_at(core)) for core in range(len(self.left))), default=inf) if self.ready < inf else inf

    def issue(self, now: float) -> int:
        core = next(core for step in range(len(self.left)) if self._open_at(core := (self.turn + step) % len(self.left)) <= now)
        beats = self.left[core].popleft()
        self.requested[core] += beats
        self.turn, self.ready = (core + 1) % len(self.left), now + CHOOSE_CYCLES
        self.issued.append(core)
        return beats

    def answered(self, first: float, beats: int) -> None:
        self.arrived[self.issued.popleft()] += [first + beat for beat in range(beats)]

    @property
    def is_complete(self) -> bool:
        """The first group's have come."""
        return all(len(arrived) >= needed for arrived, needed in zip(self.arrived, self.num_first, strict=True))


def _bursts(beats: int, config: NpuConfig) -> list[int]:
    """Lengths of the bursts of a run."""
    full, rest = divmod(beats, config.max_burst_beats)
    return [config.max_burst_beats] * full + [rest] * (rest > 0)


def _run_beats(d: dict[str, int], config: NpuConfig) -> list[int]:
    """Beats of each run of activations."""
    outer, inner = np.arange(d["num_act_outer"]) * d["act_pitch_outer_bytes"], np.arange(d["num_act_inner"]) * d["act_pitch_inner_bytes"]
    first = (d["act_addr"] + outer[:, None] + inner).reshape(-1) % config.port_bytes
    return (-(-(first + d["act_run_bytes"]) // config.port_bytes)).tolist()


def simulate_start(d: dict[str, int], streams: Sequence[StreamCounts], accepted: float, writes: float, num_vec: int, num_following: int,
                   latency_cycles: int, config: NpuConfig) -> Start:
    """The beginning of a descriptor that an idle engine accepts at `accepted`.

    Parameters
    ----------
    d : the descriptor
    streams : those of the first superblock
    writes : least cycles of the loader for a channel, as far as it does not wait for bytes
    num_vec : lane vectors of a weight in a group, twice as many for int16
    num_following : descriptors behind this one; the next of them are fetched, and the parameters of the next job
    """
    request, value_bytes = accepted + REQUEST_CYCLES, 1 + d["is_wide"]
    runs = [length for beats in _run_beats(d, config) for length in _bursts(beats, config)]
    pixels = _Pixels(request, runs, d["num_ic"], max(1.0, writes * d["num_ic"] / sum(runs)), max(ACT_DEPTH_BEATS, 2 * config.max_burst_beats))
    tables = _Tables(request, d, config)
    kernels = (d["num_kernels"] if d["num_sb"] > 1 else d["num_kernels_last"]) * config.num_cores
    run_beats = -(-kernels * PARAM.num_bytes // config.port_bytes)
    depth = max(PARAM_DEPTH_RECORDS * PARAM.num_bytes // config.port_bytes, 2 * config.max_burst_beats)
    num_runs = min(d["num_sb"] * d["num_groups"] if num_following == 0 else depth, -(-depth // run_beats))
    params = _Client(request, (_bursts(run_beats, config) * num_runs)[:depth // min(run_beats, config.max_burst_beats)])
    last = d["num_ic"] - 1
    channels = [[min(((z * config.num_cores + core if d["is_depthwise"] else z) + 1) * value_bytes - 1, last) for z in range(d["num_z"])]
                for core in range(config.num_cores)]
    weights = _Weights(streams, num_vec, d["num_groups"], pixels, channels, config)

    fetched = max(0, min(num_following - FETCHED_DESCRIPTORS, FETCHED_DESCRIPTORS)) * DESCRIPTOR_BYTES // config.port_bytes
    descriptors = _Client(accepted + FETCH_CYCLES, _bursts(fetched, config))
    clients: tuple[_Client, ...] = descriptors, tables, params, pixels, weights
    ends: deque[float] = deque([0.0] * (config.max_reads + WAITING_BURSTS), maxlen=config.max_reads + WAITING_BURSTS)
    turn, now, port_free = 0, 0.0, 0.0
    while pixels.lengths or not weights.is_complete:
        now = max(now + 1, min(client.at for client in clients), ends[0] - 1)
        turn = next(place for step in range(len(clients)) if clients[place := (turn + step) % len(clients)].at <= now)
        client = clients[turn]
        beats = client.issue(now)
        first = max(now + latency_cycles + ANSWER_CYCLES, port_free, ends[WAITING_BURSTS] + latency_cycles)
        port_free = first + beats
        ends.append(port_free)
        client.answered(first, beats)
        weights.begin(tables.weights_at)
        weights.update()
        turn = (turn + 1) % len(clients)
    return Start(tuple(pixels.loaded), tuple(arrived[0] for arrived in weights.arrived),
                 max(arrived[needed - 1] for arrived, needed in zip(weights.arrived, weights.num_first, strict=True)))
