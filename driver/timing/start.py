"""What the read port does while a job's pixels are loaded, burst by burst: with the tables, parameters and weights
of this job, or of the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np

from convoy.driver.emit.pack import LayerStreams, StreamCounts
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import (
    ACT_DEPTH_BEATS,
    BURST_CYCLES,
    LOW_BEATS,
    PARAM_DEPTH_RECORDS,
    RUN_RETURN_CYCLES,
    SKIP_CYCLES,
    TABLE_DEPTH_BEATS,
    WAITING_BURSTS,
)
from convoy.spec.isa import DESCRIPTOR_BYTES, PARAM, STREAM, TAP_BYTES

from . import fitted
from .port import ANSWER_CYCLES, REQUEST_CYCLES

__all__ = ["Load", "Loaded", "Next", "Start", "simulate_load", "simulate_start"]

TURN_CYCLES = fitted.STREAM_START_CYCLES + BURST_CYCLES
"""From the last entry of the directory, or of the tap table, to the request of the first weights."""
FETCHED_DESCRIPTORS = 1
"""Descriptors behind a job's own that have been fetched when it is accepted."""


@dataclass(frozen=True)
class Loaded:
    """Times in cycles."""

    channels: tuple[float, ...]
    """When each input channel is in the stripe memory."""
    num_next_bursts: int
    """The longest bursts of weights that the next job has got by then."""
    bursts: tuple[tuple[float, float], ...]
    """When each burst of the port was requested, and when its last beat comes; until the first results of the job
    are drained.
    """

    def queue_cycles(self, now: float) -> float:
        """How long it takes until all has come that was requested before."""
        return max(0.0, max((end for asked, end in self.bursts if asked < now), default=0.0) - now)


@dataclass(frozen=True)
class Start(Loaded):
    """The same of a job that begins on an idle engine, and its own weights."""

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
    """The tap table, then the directory of the streams, as far as there is room for it."""

    def __init__(self, at: float, d: dict[str, int], config: NpuConfig):
        taps = _bursts(-(-d["num_taps"] * TAP_BYTES // config.port_bytes), config)
        self.entry_beats = config.num_cores * STREAM.num_bytes / config.port_bytes
        """Of a superblock."""
        super().__init__(at, [*taps, *_bursts(ceil(d["num_sb"] * self.entry_beats), config)])
        self.depth = max(TABLE_DEPTH_BEATS, 2 * config.max_burst_beats)
        self.num_taps, self.num_cores, self.num_sb = d["num_taps"], config.num_cores, d["num_sb"]
        self.num_taps_due = self.num_taps_asked = len(taps)
        self.asked, self.used, self.taps_end = 0, 0, 0.0
        self.arrived: list[float] = []
        """Beats of the directory."""

    def issue(self, now: float) -> int:
        beats = super().issue(now)
        if self.num_taps_asked:
            self.num_taps_asked -= 1
        else:
            self.asked += beats
        self._set_next(now + 1)
        return beats

    def answered(self, first: float, beats: int) -> None:
        if self.num_taps_due:
            if not self.taps_end:
                self.taps_end = first + RUN_RETURN_CYCLES + self.num_taps
            self.num_taps_due -= 1
        else:
            self.taps_end = max(self.taps_end, first + RUN_RETURN_CYCLES)
            self.arrived += [first + beat + 1 + RUN_RETURN_CYCLES for beat in range(beats)]

    def weights_at(self, sb: int) -> float:
        """When the first weights of a superblock may be requested."""
        needed = ceil((sb + 1) * self.entry_beats)
        return (
            max(self.taps_end + self.num_cores, self.arrived[needed - 1]) + TURN_CYCLES
            if len(self.arrived) >= needed
            else inf
        )

    def use(self, sb: int, now: float) -> None:
        """The entries of a superblock are taken."""
        self.used = int((sb + 1) * self.entry_beats)
        self._set_next(now)

    def _set_next(self, now: float) -> None:
        has_room = self.lengths and (self.num_taps_asked or self.asked - self.used + self.lengths[0] <= self.depth)
        self.at = now if has_room else inf


class _Pixels(_Client):
    """Runs of activations; `depth` beats may be requested and not yet taken, a beat is taken every `spacing` cycles
    at most.
    """

    def __init__(self, at: float, lengths: Sequence[int], num_channels: int, spacing: float, depth: int):
        super().__init__(at, lengths)
        self.spacing, self.depth, self.requested = spacing, depth, 0
        self.ends = [-(-channel * sum(lengths) // num_channels) for channel in range(1, num_channels + 1)]
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
            last = max(first + beat + RUN_RETURN_CYCLES, last + self.spacing)
            self.taken.append(last)
        while len(self.loaded) < len(self.ends) and self.ends[len(self.loaded)] <= len(self.taken):
            self.loaded.append(self.taken[self.ends[len(self.loaded)] - 1] + fitted.PLACE_CYCLES)
        self._set_next(self.at if self.at < inf else 0.0)

    def _set_next(self, now: float) -> None:
        """A request needs room for the longest burst."""
        needed = self.requested + max(self.lengths, default=0) - self.depth
        self.at = (
            inf
            if not self.lengths or needed > len(self.taken)
            else max(now, self.taken[needed - 1] + 1 if needed > 0 else 0.0)
        )


class _Use:
    """When a core takes the beats of its streams, as far as this is known: a window's when its pixels are there."""

    def __init__(self, streams: Sequence[StreamCounts], channels: Sequence[int], num_vec: int, pixels: _Pixels):
        """`channels`: for each window of the streams, one behind another, the channel that it needs."""
        self.pixels = pixels
        self.channels: list[int] = []
        """For each beat the one that it waits for."""
        self.used: list[float] = []
        self.cycles: list[float] = []
        start = 0
        for stream in streams:
            needed = np.array(channels[start : start + len(stream.nnz)])
            start += len(stream.nnz)
            tokens = np.cumsum(np.add(stream.nnz, stream.zeros))
            windows = np.searchsorted(
                tokens * (stream.num_beats / max(1, tokens[-1])), np.arange(stream.num_beats), side="right"
            )
            self.channels += needed[np.minimum(windows, len(needed) - 1)].tolist()
            self.cycles += [sum(stream.cycles(num_vec)) / stream.num_beats] * stream.num_beats

    def times(self, arrived: Sequence[float]) -> list[float]:
        """Of those beats that are known to be taken, when; `arrived`: when they come."""
        used, loaded = self.used, self.pixels.loaded
        while len(used) < min(len(arrived), len(self.channels)) and self.channels[len(used)] < len(loaded):
            place = len(used)
            used.append(
                max(
                    arrived[place] + fitted.USE_CYCLES,
                    loaded[self.channels[place]] + fitted.USE_CYCLES,
                    used[-1] + self.cycles[place] if used else 0.0,
                )
            )
        return used


class _Weights(_Client):
    """Streams of the first superblock, dealt to the cores in turn."""

    def __init__(
        self,
        streams: Sequence[StreamCounts],
        num_vec: int,
        num_groups: int,
        pixels: _Pixels,
        channels: Sequence[Sequence[int]],
        config: NpuConfig,
    ):
        super().__init__(inf, [])
        self.pixels, self.depth = pixels, config.weight_fifo_beats
        self.left = [deque(_bursts(stream.num_beats, config) * min(num_groups, 1 + LOW_BEATS)) for stream in streams]
        self.num_first = [stream.num_beats for stream in streams]
        self.uses = [_Use([stream], needed, num_vec, pixels) for stream, needed in zip(streams, channels, strict=True)]
        self.requested = [0] * len(streams)
        self.arrived: list[list[float]] = [[] for _ in streams]
        self.turn, self.ready = 0, inf
        self.issued: deque[int] = deque()

    def begin(self, at: float) -> None:
        """The directory has been read."""
        if self.ready == inf and at < inf:
            self.ready = at
            self.update()

    def _open_at(self, core: int) -> float:
        """When the core's next burst may be requested."""
        if not self.left[core]:
            return inf
        least = self.requested[core] + (1 - LOW_BEATS if self.pixels.lengths else self.left[core][0] - self.depth)
        used = self.uses[core].times(self.arrived[core])
        return self.ready if least <= 0 else inf if least > len(used) else max(self.ready, used[least - 1])

    def update(self) -> None:
        """Set the time of the next request."""
        self.at = (
            min((max(self.ready, self._open_at(core)) for core in range(len(self.left))), default=inf)
            if self.ready < inf
            else inf
        )

    def issue(self, now: float) -> int:
        num_cores = len(self.left)
        skipped = next(step for step in range(num_cores) if self._open_at((self.turn + step) % num_cores) <= now)
        core = (self.turn + skipped) % num_cores
        beats = self.left[core].popleft()
        self.requested[core] += beats
        self.turn, self.ready = (core + 1) % num_cores, now + BURST_CYCLES
        self.issued.append(core)
        return beats

    def answered(self, first: float, beats: int) -> None:
        self.arrived[self.issued.popleft()] += [first + beat for beat in range(beats)]

    @property
    def is_complete(self) -> bool:
        """The first group's have come."""
        return all(len(arrived) >= needed for arrived, needed in zip(self.arrived, self.num_first, strict=True))


class _LaterWeights(_Client):
    """Those that queues with less than `LOW_BEATS` get while pixels are loaded: superblock by superblock of this job
    and of the next one.

    Parameters
    ----------
    superblocks : (their tables, their number in these, for each core the lengths of its bursts)
    own : of each core, the beats of this job
    asked : of each core, how many beats have been requested
    first : the client that requests the first superblock of this job, if that is not over
    next_tables : those of the next job, whose longest bursts are counted
    """

    def __init__(
        self,
        superblocks: Sequence[tuple[_Tables, int, list[deque[int]]]],
        own: Sequence[_Use],
        asked: Sequence[int],
        first: _Weights | None,
        next_tables: _Tables | None,
        config: NpuConfig,
    ):
        super().__init__(inf, [])
        self.superblocks, self.own, self.asked, self.first, self.depth = (
            deque(superblocks),
            own,
            list(asked),
            first,
            config.weight_fifo_beats,
        )
        self.arrived = [[0.0] * len(use.channels) for use in own]
        self.tables: _Tables | None = None
        self.next_tables = next_tables
        self.left: list[deque[int]] = [deque() for _ in own]
        self.turn, self.ready = 0, 0.0
        self.num_longest, self.max_burst_beats = 0, config.max_burst_beats
        self.ahead = 1 + fitted.LOOKAHEAD_WEIGHTS // config.port_bytes

    def _open_at(self, core: int) -> float:
        if not self.left[core]:
            return inf
        is_giving_way = bool(self.own[core].pixels.lengths)
        least = self.asked[core] - self.ahead + (1 - LOW_BEATS if is_giving_way else self.left[core][0] - self.depth)
        used = self.own[core].times(self.arrived[core])
        return self.ready if least <= 0 else inf if least > len(used) else max(self.ready, used[least - 1])

    def update(self) -> None:
        """Set the time of the next request."""
        if self.first is not None:
            if any(self.first.left):
                return
            self.ready, self.first = self.first.ready, None
        if (
            not any(self.left)
            and self.superblocks
            and (at := self.superblocks[0][0].weights_at(self.superblocks[0][1])) < inf
        ):
            tables, sb, self.left = self.superblocks.popleft()
            self.ready = max(at, self.ready + len(self.left) + TURN_CYCLES)
            tables.use(sb, self.ready)
            self.tables = tables
        self.at = min(self._open_at(core) for core in range(len(self.left)))

    def issue(self, now: float) -> int:
        num_cores = len(self.left)
        skipped = next(step for step in range(num_cores) if self._open_at((self.turn + step) % num_cores) <= now)
        core = (self.turn + skipped) % num_cores
        beats = self.left[core].popleft()
        self.asked[core] += beats
        self.num_longest += self.tables is self.next_tables and beats == self.max_burst_beats
        self.turn, self.ready = (core + 1) % num_cores, now + BURST_CYCLES + SKIP_CYCLES * skipped
        return beats


class _Params(_Client):
    """Runs of parameters; as many as there is room for have been read, one more for each group that is drained."""

    def __init__(self, runs: Sequence[int], depth: int, drained: Callable[[int], float], config: NpuConfig):
        super().__init__(inf, [])
        self.runs, self.depth, self.drained, self.config = runs, depth, drained, config
        total = 0
        self.next = next((place for place, beats in enumerate(runs) if (total := total + beats) > depth), len(runs))
        self.asked, self.taken, self.num_drained = sum(runs[: self.next]), 0, 0

    def update(self) -> None:
        """Set the time of the next request."""
        while not self.lengths and self.next < len(self.runs):
            if self.asked + self.runs[self.next] - self.taken > self.depth:
                at = self.drained(self.num_drained)
                if at == inf:
                    return
                self.taken += self.runs[self.num_drained]
                self.num_drained += 1
                self.ready = at
                continue
            self.lengths.extend(_bursts(self.runs[self.next], self.config))
            self.asked += self.runs[self.next]
            self.next += 1
            self.at = self.ready


def _bursts(beats: int, config: NpuConfig) -> list[int]:
    """Lengths of the bursts of a run."""
    full, rest = divmod(beats, config.max_burst_beats)
    return [config.max_burst_beats] * full + [rest] * (rest > 0)


def _run_beats(d: dict[str, int], config: NpuConfig) -> list[int]:
    """Beats of each run of activations."""
    outer, inner = (
        np.arange(d["num_act_outer"]) * d["act_pitch_outer_bytes"],
        np.arange(d["num_act_inner"]) * d["act_pitch_inner_bytes"],
    )
    first = (d["act_addr"] + outer[:, None] + inner).reshape(-1) % config.port_bytes
    return (-(-(first + d["act_run_bytes"]) // config.port_bytes)).tolist()


@dataclass(frozen=True)
class Next:
    """The job behind one whose pixels are loaded."""

    accepted: float
    fields: dict[str, int]
    streams: LayerStreams
    num_following: int
    """Descriptors behind it."""


@dataclass(frozen=True)
class Load:
    """What is to be loaded, and how fast it goes on from there."""

    fields: dict[str, int]
    streams: LayerStreams
    num_vec: int
    """Lane vectors of a weight in a group, twice as many for int16."""
    writes: float
    """Least cycles of the loader for a channel, as far as it does not wait for bytes."""
    drain_cycles: float
    """From a superblock's last pixels to the drain of its group."""

    def pixels(self, at: float, config: NpuConfig) -> _Pixels:
        """Requested from `at` on."""
        runs = [length for beats in _run_beats(self.fields, config) for length in _bursts(beats, config)]
        spacing = max(1.0, self.writes * self.fields["num_ic"] / sum(runs))
        return _Pixels(at, runs, self.fields["num_ic"], spacing, max(ACT_DEPTH_BEATS, 2 * config.max_burst_beats))

    def uses(self, pixels: _Pixels, config: NpuConfig) -> list[_Use]:
        """Of each core."""
        d, found = self.fields, []
        for core in range(config.num_cores):
            streams = [
                stream for stream in self.streams.counts[core :: config.num_cores] for _ in range(d["num_groups"])
            ]
            channels = [
                channel for sb in range(d["num_sb"]) for channel in _channels(d, core, sb, config) * d["num_groups"]
            ]
            found.append(_Use(streams, channels, self.num_vec, pixels))
        return found

    def later_params(self, pixels: _Pixels, following: Next | None, config: NpuConfig) -> _Params:
        """Those for which there is room only when groups have been drained."""
        d = self.fields

        needed = [
            max(_channels(d, core, sb, config)[-1] for core in range(config.num_cores)) for sb in range(d["num_sb"])
        ]

        def drained(group: int) -> float:
            sb, group = divmod(group, d["num_groups"])
            channel = needed[sb] if sb < d["num_sb"] else d["num_ic"]
            return pixels.loaded[channel] + (group + 1) * self.drain_cycles if channel < len(pixels.loaded) else inf

        depth = max(PARAM_DEPTH_RECORDS * PARAM.num_bytes // config.port_bytes, 2 * config.max_burst_beats)
        return _Params(
            [*_param_runs(d, config), *(_param_runs(following.fields, config) if following else ())],
            depth,
            drained,
            config,
        )


def simulate_start(
    load: Load,
    accepted: float,
    start: float,
    num_following: int,
    following: Next | None,
    latency_cycles: int,
    config: NpuConfig,
) -> Start:
    """The beginning of a job that an idle engine accepts at `accepted`, and whose loader takes it at `start`;
    `num_following` descriptors are behind it, the first of them is `following` if it is for this engine. The next
    descriptors are fetched, and the tables, weights and parameters of the next job.
    """
    d, request = load.fields, accepted + REQUEST_CYCLES
    pixels, tables = load.pixels(start + REQUEST_CYCLES - 1, config), _Tables(request, d, config)
    kernels = (d["num_kernels"] if d["num_sb"] > 1 else d["num_kernels_last"]) * config.num_cores
    run_beats = -(-kernels * PARAM.num_bytes // config.port_bytes)
    depth = max(PARAM_DEPTH_RECORDS * PARAM.num_bytes // config.port_bytes, 2 * config.max_burst_beats)
    num_runs = min(d["num_sb"] * d["num_groups"] if num_following == 0 else depth, -(-depth // run_beats))
    params = _Client(
        request, (_bursts(run_beats, config) * num_runs)[: depth // min(run_beats, config.max_burst_beats)]
    )
    streams = load.streams.counts[: config.num_cores]
    weights = _Weights(
        streams,
        load.num_vec,
        d["num_groups"],
        pixels,
        [_channels(d, core, 0, config) for core in range(config.num_cores)],
        config,
    )
    fetched = (
        max(0, min(num_following - FETCHED_DESCRIPTORS, FETCHED_DESCRIPTORS)) * DESCRIPTOR_BYTES // config.port_bytes
    )
    descriptors = _Client(accepted + fitted.DESCRIPTOR_CYCLES, _bursts(fetched, config))

    next_tables = None
    later = _superblocks(tables, load.streams, d["num_groups"], config)[1:]
    if following:
        next_tables = _Tables(following.accepted + REQUEST_CYCLES, following.fields, config)
        later += _superblocks(next_tables, following.streams, following.fields["num_groups"], config)
    asked = [stream.num_beats * d["num_groups"] for stream in streams]
    later_weights = _LaterWeights(later, load.uses(pixels, config), asked, weights, next_tables, config)
    later_params = load.later_params(pixels, following, config)
    clients = [
        descriptors,
        tables,
        *([next_tables] if next_tables else []),
        params,
        later_params,
        pixels,
        weights,
        later_weights,
    ]

    def update() -> None:
        weights.begin(tables.weights_at(0))
        if weights.ready < inf and tables.used == 0:
            tables.use(0, weights.ready)
        weights.update()
        later_weights.update()
        later_params.update()

    bursts = _take_turns(
        clients,
        lambda: not pixels.lengths and weights.is_complete,
        lambda: pixels.loaded[-1] + load.drain_cycles,
        update,
        0.0,
        latency_cycles,
        config,
    )
    return Start(
        tuple(pixels.loaded),
        later_weights.num_longest,
        bursts,
        tuple(arrived[0] for arrived in weights.arrived),
        max(arrived[needed - 1] for arrived, needed in zip(weights.arrived, weights.num_first, strict=True)),
    )


def simulate_load(
    load: Load, start: float, port_free: float, following: Next | None, latency_cycles: int, config: NpuConfig
) -> Loaded:
    """A job that had to wait for earlier ones. Its tables, weights and first parameters have been fetched; those of
    the job behind it are fetched meanwhile.

    Parameters
    ----------
    start : when the loader takes the job
    port_free : when what was requested before has come
    following : the next job, if it is for this engine
    """
    pixels = load.pixels(start + REQUEST_CYCLES - 1, config)
    params = load.later_params(pixels, following, config)
    clients, weights = [params, pixels], None
    if following is not None:
        tables = _Tables(following.accepted + REQUEST_CYCLES, following.fields, config)
        fetched = min(following.num_following, FETCHED_DESCRIPTORS) * DESCRIPTOR_BYTES // config.port_bytes
        clients = [_Client(following.accepted + fitted.DESCRIPTOR_CYCLES, _bursts(fetched, config)), tables, *clients]
        uses = load.uses(pixels, config)
        asked = [len(use.channels) for use in uses]
        if max(asked) <= config.weight_fifo_beats:  # else the fetcher is still at this job
            weights = _LaterWeights(
                _superblocks(tables, following.streams, following.fields["num_groups"], config),
                uses,
                asked,
                None,
                tables,
                config,
            )
            clients.append(weights)

    def update() -> None:
        params.update()
        if weights is not None:
            weights.update()

    bursts = _take_turns(
        clients,
        lambda: not pixels.lengths,
        lambda: pixels.loaded[-1] + load.drain_cycles,
        update,
        port_free,
        latency_cycles,
        config,
    )
    return Loaded(tuple(pixels.loaded), weights.num_longest if weights is not None else 0, bursts)


def _superblocks(
    tables: _Tables, layer: LayerStreams, num_groups: int, config: NpuConfig
) -> list[tuple[_Tables, int, list[deque[int]]]]:
    """As `_LaterWeights` takes them."""
    num_cores, found = config.num_cores, []
    for sb in range(len(layer.counts) // num_cores):
        streams = layer.counts[sb * num_cores : (sb + 1) * num_cores]
        found.append(
            (
                tables,
                sb,
                [deque(_bursts(stream.num_beats, config) * min(num_groups, 1 + LOW_BEATS)) for stream in streams],
            )
        )
    return found


def _take_turns(
    clients: Sequence[_Client],
    is_done: Callable[[], bool],
    end: Callable[[], float],
    update: Callable[[], None],
    port_free: float,
    latency_cycles: int,
    config: NpuConfig,
) -> tuple[tuple[float, float], ...]:
    """Let the port serve the clients until that is done which somebody waits for, and on to the time `end`; `update`
    is called after each burst. When each burst is requested, and when its last beat comes.
    """
    bursts: list[tuple[float, float]] = []
    ends: deque[float] = deque([0.0] * (config.max_reads + WAITING_BURSTS), maxlen=config.max_reads + WAITING_BURSTS)
    turn, now = 0, 0.0
    while True:
        now = max(now + 1, min(client.at for client in clients), ends[0] - 1)
        if now == inf or (is_done() and now > end()):
            return tuple(bursts)
        turn = next(place for step in range(len(clients)) if clients[place := (turn + step) % len(clients)].at <= now)
        client = clients[turn]
        beats = client.issue(now)
        first = max(now + latency_cycles + ANSWER_CYCLES, port_free, ends[WAITING_BURSTS] + latency_cycles)
        port_free = first + beats
        ends.append(port_free)
        bursts.append((now, port_free))
        client.answered(first, beats)
        update()
        turn = (turn + 1) % len(clients)


def _channels(d: dict[str, int], core: int, sb: int, config: NpuConfig) -> list[int]:
    """For each window of a core in a superblock the last byte channel that it needs."""
    num_z, first = d["num_z_last" if 0 < sb == d["num_sb"] - 1 else "num_z"], sb * d["num_z"]
    channels = np.arange(num_z)
    if d["is_depthwise"]:
        channels = (first + channels) * config.num_cores + core
    return np.minimum((channels + 1) * (1 + d["is_wide"]) - 1, d["num_ic"] - 1).tolist()


def _param_runs(d: dict[str, int], config: NpuConfig) -> list[int]:
    """Beats of the parameters of each group."""
    runs = []
    for sb in range(d["num_sb"]):
        kernels = d["num_kernels_last" if sb == d["num_sb"] - 1 else "num_kernels"] * config.num_cores
        runs += [-(-kernels * PARAM.num_bytes // config.port_bytes)] * d["num_groups"]
    return runs
