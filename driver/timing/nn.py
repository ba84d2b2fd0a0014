"""When the NN engine completes a job: the pipeline of docs/architecture.md in recurrences, a step per window and per
group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from convoy.driver.emit.pack import LayerStreams, StreamCounts
from convoy.driver.plan.cost import lut_cycles
from convoy.driver.plan.swap import tap_cycles
from convoy.driver.runtime.device import MemoryModel
from convoy.spec.config import NpuConfig
from convoy.spec.cycles import (
    ACC_READ_CYCLES,
    BURST_CYCLES,
    COMPRESS_CYCLES,
    DRAIN_FAN_OUT_CYCLES,
    FILL_CYCLES,
    FINISH_CYCLES,
    LOW_BEATS,
    LUT_CYCLES,
    MAX_WRITES,
    MIN_FILL_CYCLES,
    RELEASE_CYCLES,
    REQUANTISE_CYCLES,
    TAKE_CYCLES,
    WAITING_BURSTS,
)
from convoy.spec.isa import DESCRIPTOR_BYTES, PARAM, STREAM, TAP_BYTES, Cause

from . import fitted
from .port import READ_TRIP_CYCLES, WRITE_TRIP_CYCLES, Delay, SharedPort, Transfer
from .start import Load, Loaded, Next, Start, simulate_load, simulate_start
from .swapped import core_cycles, num_tokens

__all__ = ["Following", "NnTimer", "Slice", "Spent", "num_beats", "port_cycles"]

FILLED_CYCLES = FILL_CYCLES + 1
"""From the last word of a window to the first weight that may meet it: the sequencer counts windows in a register."""
FREE_CYCLES = RELEASE_CYCLES + 1 + TAKE_CYCLES
"""From the last weight of a window to the refill of its slot: the filler counts windows, then takes one."""
VISIT_CYCLES = FINISH_CYCLES + fitted.GROUP_SEEN_CYCLES
"""From the last weight of a group to the first visit of its drain."""
RESULT_CYCLES = (
    2 * DRAIN_FAN_OUT_CYCLES + ACC_READ_CYCLES + REQUANTISE_CYCLES + COMPRESS_CYCLES + fitted.CHUNK_WRITE_CYCLES
)
"""From an accumulator to the port; more with tables."""
NUM_LOADS = 2
"""Jobs whose pixels are loaded while the weights of one are fetched: its own and those of the job before."""


def num_beats(run_bytes: float, is_aligned: bool, config: NpuConfig) -> float:
    """Beats of a run; if it may begin anywhere, on average."""
    return -(-run_bytes // config.port_bytes) if is_aligned else (run_bytes - 1) / config.port_bytes + 1


def port_cycles(beats: float, num_runs: float, latency_cycles: int, max_bursts: int, config: NpuConfig) -> float:
    """Cycles of the memory port for `beats` in `num_runs` runs: a cycle per beat, or as long as the bursts take with
    `max_bursts` of them in flight.
    """
    bursts = max(num_runs, beats / config.max_burst_beats)
    return max(beats, (bursts * (latency_cycles + fitted.FLIGHT_CYCLES) + beats) / max_bursts)


@dataclass
class Spent:
    """Cycles of all cores that a job took, as far as the model books them."""

    core_cycles: dict[Cause, float] = field(default_factory=lambda: dict.fromkeys(Cause, 0.0))

    def add(self, cause: Cause, cycles: float) -> None:
        """Book."""
        if cycles > 0:
            self.core_cycles[cause] += cycles


@dataclass(frozen=True)
class Following:
    """What comes behind a job in its program: descriptors, and the streams of the next one if it is for this engine."""

    num_descriptors: int
    streams: LayerStreams | None
    fields: dict[str, int] | None
    """Of the next one, likewise."""
    offered: Callable[[float], float]
    """When the next one could be offered if this one were accepted at some time."""
    tp_loads: Callable[[float, Transfer], Sequence[Transfer]]
    """What the tensor processor reads behind a job, from when the job was accepted and what its loader reads."""


@dataclass(frozen=True)
class Slice:
    """A time in which a unit works, by the name of its track."""

    track: str
    start: float
    end: float


@dataclass
class _Unit:
    """What the drain does for one kernel of one core in a group: cycles of the walk and of the second operand's
    sums; beats and runs that it writes.
    """

    visits: float
    sums: float
    beats: float
    num_runs: int
    shared_sums: float
    """Cycles of the sums while a burst of weights comes before each second operand."""


@dataclass
class _Pixels:
    """When channels have been loaded."""

    first: float
    per_channel: float
    num_ic: int
    cause: Cause
    """What held the loader up, if it was more than the bus."""
    start: Start | None = None
    """Weights too, when the engine was idle."""
    channels: tuple[float, ...] = ()
    """Each one, where the port was simulated burst by burst."""
    delay: Callable[[float], float] = float
    """When that comes which would come at some time if the tensor processor read nothing."""

    def loaded(self, channel: int) -> float:
        """A channel that does not exist needs no loading."""
        channel = min(channel, self.num_ic - 1)
        return self.delay(self.channels[channel] if self.channels else self.first + (channel + 1) * self.per_channel)


class NnTimer:
    """The engine between jobs; `time` takes it through one more."""

    def __init__(self, config: NpuConfig, memory: MemoryModel):
        self.config, self.latency = config, memory.latency_cycles
        self.read_trip, self.write_trip = (
            memory.latency_cycles + READ_TRIP_CYCLES,
            memory.latency_cycles + WRITE_TRIP_CYCLES,
        )
        self.result_cycles = RESULT_CYCLES + LUT_CYCLES * config.has_lut
        self.load_taken = self.load_end = self.fill_free = self.fetched = self.fetch_taken = self.drain_taken = (
            self.drained
        ) = self.added = self.written = self.completed = 0.0
        self.ends = [0.0] * config.num_cores
        self.decoded = [0.0] * config.num_cores
        self.buffers = [0.0, 0.0]
        """When the two accumulator memories were drained last, the older first."""
        self.releases: list[float] = []
        self.slices: list[Slice] = []
        """What the units did, in no order."""
        self.loads: list[Transfer] = []
        """What the loader has read."""
        self.loaded: Loaded | None = None
        """What the port did while the pixels were loaded, if it was simulated."""
        self.ahead_bursts = 0
        """Of weights for the next job, still to come."""

    def time(
        self, d: dict[str, int], layer: LayerStreams, ready: float, released: float, following: Following
    ) -> tuple[float, float, Spent]:
        """(accepted, completed, spent) of a descriptor offered at `ready`, for which the tensor processor has made what
        it reads at `released`.
        """
        config, spent = self.config, Spent()
        accepted = max(ready, self.load_taken, self.fetch_taken, self.drain_taken) + 1
        self.ahead_bursts = (
            sum(stream.num_beats // config.max_burst_beats for stream in following.streams.counts)
            if following.streams
            else 0
        )
        pixels = self._load(d, accepted, released, layer, following)
        self.fetched = self._first_fetch(d, accepted)
        self.ends = [max(end, accepted + fitted.CORE_JOB_CYCLES) for end in self.ends]
        self.fill_free = max(self.fill_free, accepted + fitted.FILLER_JOB_CYCLES, *self.releases[-1:])
        self.releases = []
        units = [self._unit_cycles(d, suffix) for suffix in ("", "_last")]
        lut = self.read_trip + lut_cycles(config) if d["has_lut"] else 0
        drain_ready = max(accepted, self.drained) + fitted.DRAIN_JOB_CYCLES + lut
        consumed: list[float] = []
        for sb in range(d["num_sb"]):
            streams = layer.counts[sb * config.num_cores : (sb + 1) * config.num_cores]
            for group in range(d["num_groups"]):
                is_last = group == d["num_groups"] - 1
                end = self._group(
                    d,
                    streams,
                    sb,
                    (1 + d["is_wide"]) * d["num_vec_last" if is_last else "num_vec"],
                    pixels,
                    consumed,
                    spent,
                )
                start = max(end + VISIT_CYCLES, self.drained + fitted.GROUP_GAP_CYCLES, drain_ready)
                if sb == group == 0:
                    self.drain_taken = max(self.drained, accepted)
                num_units = d["num_kernels_last" if sb == d["num_sb"] - 1 else "num_kernels"] * config.num_cores
                self._drain(
                    start, num_units, units[is_last], layer.num_runs[sb] / num_units if d["num_groups"] == 1 else 1.0
                )
        self.completed = max(self.completed, max(self.drained + self.result_cycles, self.written) + self.write_trip)
        return accepted, self.completed, spent

    def time_swapped(self, d: dict[str, int], ready: float, released: float) -> tuple[float, float, Spent]:
        """The same of a descriptor with swapped operands, if no activation is zero."""
        config, spent = self.config, Spent()
        accepted = max(ready, self.load_taken, self.fetch_taken, self.drain_taken) + 1
        first, per_channel = self._load_image(d, accepted)
        self.fetch_taken = max(accepted, self.fetched)
        gather = max(
            self.fetch_taken + self.read_trip + fitted.TABLE_CYCLES, released, (self.completed + 1) * d["wait_nn"]
        )
        self.ends = [max(end, accepted + fitted.CORE_JOB_CYCLES, self.buffers[0]) for end in self.ends]
        self.fill_free = max(self.fill_free, accepted + fitted.FILLER_JOB_CYCLES, *self.releases[-1:])
        end = self._swapped_windows(d, first, per_channel, gather + self.read_trip, spent)
        lut = self.read_trip + lut_cycles(config) if d["has_lut"] else 0
        drain_ready = max(accepted, self.drained) + fitted.DRAIN_JOB_CYCLES + lut
        start = max(end + VISIT_CYCLES, self.drained + fitted.GROUP_GAP_CYCLES, drain_ready)
        self.drain_taken = max(self.drained, accepted)
        self._drain(start, d["tile_iw"], self._swapped_unit(d), 1 / d["tile_iw"])
        self.completed = max(self.completed, max(self.drained + self.result_cycles, self.written) + self.write_trip)
        return accepted, self.completed, spent

    def _load_image(self, d: dict[str, int], accepted: float) -> tuple[float, float]:
        """Start the loader on an image of weights: when the first channel may be there, and what each one takes."""
        config = self.config
        self.load_taken = max(accepted + 1, self.fill_free * d["load_after_fill"], self.load_taken)
        others = DESCRIPTOR_BYTES + d["src_bytes"] + d["tile_iw"] * PARAM.num_bytes
        beats = (d["act_run_bytes"] + others) / config.port_bytes
        first = max(
            self.load_taken + self.read_trip + fitted.FIRST_PLACE_CYCLES, self.load_end + fitted.LOAD_GAP_CYCLES
        )
        return first, max(beats / d["num_ic"], d["channel_words"])

    def _swapped_windows(
        self, d: dict[str, int], load: float, per_channel: float, gather: float, spent: Spent
    ) -> float:
        """Load, fill and use the windows of a job; when the last core has issued its last weight. `load`, `gather`:
        when the first channel, and the first activation, may be there.
        """
        config, words = self.config, d["seg_words"]
        work = core_cycles(d, config)
        per_tap, slots, ring = tap_cycles(d["num_pos"], config), d["num_slots"], d["ring_channels"]
        rows, begun, ends, fill_free = work.tolist(), self.ends, list(self.ends), self.fill_free
        fills: list[float] = []
        releases: list[float] = []
        window = bus = 0.0
        for z in range(d["num_z"]):
            tap = z % len(rows)
            load += per_channel
            if z >= ring:
                load = max(load, fills[z - ring] + fitted.PLACE_CYCLES)
            gather += per_tap + (tap == 0)
            begin = max(fill_free, load, releases[z - slots] if z >= slots else 0.0)
            fill_free = begin + max(words, MIN_FILL_CYCLES)
            fills.append(begin + words)
            filled = max(begin + words + FILLED_CYCLES, gather + fitted.DECODE_CYCLES)
            if (wait := filled - max(ends)) > 0:
                window += min(wait, words + FILLED_CYCLES)
                bus += max(0.0, wait - words - FILLED_CYCLES)
            ends = [max(end, filled) + cycles for end, cycles in zip(ends, rows[tap], strict=True)]
            releases.append(max(ends) + FREE_CYCLES)
        busy = d["num_src_planes"] * d["num_vec"] * float(num_tokens(d, config).sum())
        spent.add(Cause.BUSY, busy)
        spent.add(Cause.WINDOW, config.num_cores * window)
        spent.add(Cause.BUS, config.num_cores * bus)
        spent.add(Cause.IMBALANCE, sum(ends) - sum(begun) - busy - config.num_cores * (window + bus))
        self.load_end, self.fill_free, self.fetched = load, fill_free, gather
        self.releases = releases[-1:]
        self.slices += [
            Slice("loader", self.load_taken, load),
            Slice("weights", self.fetch_taken, gather),
            *(Slice(f"core {core}", *times) for core, times in enumerate(zip(begun, ends, strict=True))),
        ]
        self.ends = [end + 1 for end in ends]
        self.decoded = list(ends)
        return max(ends)

    def _swapped_unit(self, d: dict[str, int]) -> _Unit:
        """The drain of one output channel."""
        config, num_pos = self.config, d["num_pos"]
        sums = -(-num_pos // config.residual_lanes) + fitted.RESIDUAL_UNIT_CYCLES if d["has_residual"] else 0
        beats = num_pos / config.port_bytes
        return _Unit(max(num_pos, PARAM.num_bytes / config.port_bytes), sums, beats, 1, max(sums, beats))

    def _load(
        self, d: dict[str, int], accepted: float, released: float, layer: LayerStreams, following: Following
    ) -> _Pixels:
        """Start the loader."""
        config = self.config
        held = [released, *[self.completed] * d["wait_nn"], *[self.fill_free] * d["load_after_fill"]]
        self.load_taken = max(accepted + 1, *held, self.load_taken)
        lanes, rows = config.num_lanes, np.arange(d["tile_rows"]) * d["pitch_row"] % config.num_lanes
        segments = int(((rows + d["tile_cols"] - 1) // lanes + 1).sum())
        stored = [
            bin(d["phase_mask"] >> 2 * py & (3 if d["stride_w_log2"] else 1)).count("1")
            for py in range(1 << d["stride_h_log2"])
        ]
        writes = segments * sum(max(1, count) for count in stored)
        num_runs = d["num_act_inner"] * d["num_act_outer"]
        is_held, is_cold = self.load_taken > accepted + 1, self.completed <= accepted
        has_weights = self._first_fetch(d, accepted) + self.read_trip <= self.load_taken  # when the loader begins
        gaps = 0  # a full segment waits until the bytes of the one before have left the queue
        if d["stride_w_log2"] and 2 * lanes > 3 * config.port_bytes:
            gaps = d["num_ic"] * d["tile_ih"] * (d["tile_cols"] // lanes)
        self.loaded, start, first, per_channel = None, None, 0.0, 0.0
        channels: tuple[float, ...] = ()
        num_vec = (1 + d["is_wide"]) * d["num_vec_last" if d["num_groups"] == 1 else "num_vec"]
        if is_held or is_cold:
            compute = max(sum(stream.cycles(num_vec)) for stream in layer.counts[: config.num_cores])
            load, behind = (
                Load(d, layer, num_vec, max(writes, gaps / d["num_ic"]), compute + VISIT_CYCLES),
                self._next(following, accepted),
            )
            if is_held and (has_weights or not is_cold):
                port_free = max(self.load_taken + self._queued_beats(d, layer, accepted), self.load_end)
                loaded = simulate_load(load, self.load_taken, port_free, behind, self.latency, config)
            else:
                loaded = start = simulate_start(
                    load, accepted, self.load_taken, following.num_descriptors, behind, self.latency, config
                )
            channels, self.loaded = loaded.channels, loaded
            self.ahead_bursts -= loaded.num_next_bursts
        else:
            is_aligned = all(
                d[name] % config.port_bytes == 0
                for name in ("act_addr", "act_pitch_inner_bytes", "act_pitch_outer_bytes")
            )
            beats = num_runs * num_beats(
                d["act_run_bytes"], is_aligned or (num_runs == 1 and d["act_addr"] % config.port_bytes == 0), config
            )
            beats = port_cycles(beats, num_runs, self.latency, config.max_reads, config)
            contended = max(0.0, self._other_beats(d, layer) - max(0.0, self.load_taken - self.load_end))
            first = max(
                self.load_taken + self.read_trip + fitted.FIRST_PLACE_CYCLES, self.load_end + fitted.LOAD_GAP_CYCLES
            )
            per_channel = max((beats + max(contended, gaps)) / d["num_ic"], writes)
        waits = Cause.BUS if not is_held else Cause.TP if released >= self.completed else Cause.DRAIN
        pixels = _Pixels(first, per_channel, d["num_ic"], waits, start, channels)
        begin, end = self.load_taken + self.read_trip if channels else first, pixels.loaded(d["num_ic"])
        beats = num_runs * num_beats(d["act_run_bytes"], False, config)
        alone = Transfer(
            begin,
            end,
            min(1.0, beats / (end - begin)),
            beats / (num_runs * -(-d["act_run_bytes"] // (config.max_burst_beats * config.port_bytes))),
        )
        pixels.delay = Delay(SharedPort(config, self.latency), alone, following.tp_loads(accepted, alone))
        self.load_end = pixels.loaded(d["num_ic"])
        self.loads.append(replace(alone, end=self.load_end))
        self.slices.append(
            Slice(
                "loader",
                self.load_taken + fitted.FIRST_PLACE_CYCLES if channels else first - self.read_trip,
                self.load_end,
            )
        )
        return pixels

    def _next(self, following: Following, accepted: float) -> Next | None:
        """The next job, which the engine accepts when the loader takes the present one."""
        if following.fields is None or following.streams is None:
            return None
        at = max(following.offered(accepted), self.load_taken, self.drained, accepted) + 1
        return Next(at, following.fields, following.streams, following.num_descriptors - 1)

    def _queued_beats(self, d: dict[str, int], layer: LayerStreams, accepted: float) -> float:
        """Weights of the job that the port has been asked for and not yet brought when the loader begins: pixels
        come behind them.
        """
        beats = sum(stream.num_beats for stream in layer.counts) * d["num_groups"]
        beats = min(beats, self.config.weight_fifo_beats * self.config.num_cores)
        begun = self._first_fetch(d, accepted) + self.read_trip
        window = (self.config.max_reads + WAITING_BURSTS) * self.config.max_burst_beats
        return (
            max(0.0, min(window, self._fetch_end(begun, beats, is_first=True) - self.load_taken))
            if begun < self.load_taken
            else 0.0
        )

    def _first_fetch(self, d: dict[str, int], accepted: float) -> float:
        """When the first weights of a job are requested."""
        return (
            max(self.fetched, accepted) + self.read_trip + d["num_taps"] + self.config.num_cores + fitted.TABLE_CYCLES
        )

    def _other_beats(self, d: dict[str, int], layer: LayerStreams) -> float:
        """What else the port brings for a job: a descriptor, tables, weights, parameters."""
        config = self.config
        weights = sum(stream.num_beats for stream in layer.counts) * d["num_groups"]
        kernels = ((d["num_sb"] - 1) * d["num_kernels"] + d["num_kernels_last"]) * config.num_cores * d["num_groups"]
        tables = d["num_taps"] * TAP_BYTES + len(layer.counts) * STREAM.num_bytes + DESCRIPTOR_BYTES
        return (tables + kernels * PARAM.num_bytes) / config.port_bytes + weights

    def _group(
        self,
        d: dict[str, int],
        streams: Sequence[StreamCounts],
        sb: int,
        num_vec: int,
        pixels: _Pixels,
        consumed: list[float],
        spent: Spent,
    ) -> float:
        """Compute a group; when the last core has issued its last weight."""
        config = self.config
        work = [stream.cycles(num_vec) for stream in streams]
        before = [max(end, buffer) for end, buffer in zip(self.ends, [self.buffers[0]] * len(self.ends), strict=True)]
        for end, start in zip(self.ends, before, strict=True):
            spent.add(Cause.DRAIN, start - end)
        ahead = max(1, config.weight_fifo_beats // max(stream.num_beats for stream in streams))
        fetch = max(self.fetched, consumed[-ahead] if len(consumed) >= ahead else 0.0)
        arrivals = [fetch + self.read_trip] * config.num_cores
        self.fetched = self._fetch_end(fetch, self._fetch_cycles(d, streams, sb), is_first=not consumed)
        if pixels.start and not consumed:
            arrivals, self.fetched = (
                [pixels.delay(first) for first in pixels.start.first_weights],
                pixels.delay(pixels.start.last_weights) - self.read_trip,
            )
        self.slices.append(Slice("weights", fetch, self.fetched))
        for core, stream in enumerate(streams):
            arrived = max(before[core], arrivals[core] + fitted.DECODE_CYCLES)
            decoded = max(arrived, self.decoded[core] + fitted.DECODE_CYCLES)
            spent.add(Cause.BUS, arrived - before[core])
            spent.add(Cause.WEIGHTS, decoded - arrived + 1 + sum(stream.idle) + sum(stream.waits(num_vec)))
            self.ends[core] = decoded
        starts = list(self.ends)
        self._windows(d, sb, work, pixels, spent)
        late = self.fetched + self.read_trip - max(self.ends)  # weights that come after all others have been used
        for core, stream in enumerate(streams):
            if late > 0:
                spent.add(Cause.BUS, late)
                self.ends[core] += late
            tokens = sum(stream.nnz) + sum(stream.zeros)
            self.decoded[core] = max(
                starts[core] + tokens * stream.token_cycles, self.ends[core] - fitted.LOOKAHEAD_WEIGHTS * num_vec
            )
            spent.add(Cause.BUSY, sum(stream.nnz) * num_vec)
            self.slices.append(Slice(f"core {core}", starts[core], self.ends[core]))
            self.ends[core] += 1
        end = max(self.ends)
        consumed.append(end)
        return end

    def _fetch_end(self, begin: float, cycles: float, *, is_first: bool) -> float:
        """When weights have been requested.

        The first ones of a job, not used yet, give way to pixels once each queue holds `LOW_BEATS`.
        """
        left = cycles - LOW_BEATS * self.config.num_cores
        if not is_first or left <= 0:
            return begin + cycles
        now = begin + cycles - left
        for load in self.loads[-NUM_LOADS:]:
            before = max(0.0, min(left, load.start - now))
            now, left = now + before, left - before
            if left > 0:
                now = max(now, load.end)
        return now + left

    def _windows(self, d: dict[str, int], sb: int, work: list[list[float]], pixels: _Pixels, spent: Spent) -> None:
        """Fill the windows of a group and use them."""
        num_cores, value_bytes = self.config.num_cores, 1 + d["is_wide"]
        words = value_bytes * d["num_phases"] * d["seg_words"]
        everyone, releases, num_slots = range(num_cores), self.releases, d["num_slots"]
        for z in range(len(work[0])):
            slot_free = releases[-num_slots] if len(releases) >= num_slots else 0.0
            for part in everyone if d["is_depthwise"] else (0,):
                channel = (
                    ((sb * d["num_z"] + z) * num_cores + part if d["is_depthwise"] else z) * value_bytes
                    + value_bytes
                    - 1
                )
                loaded = pixels.loaded(channel) if channel < d["num_ic"] else 0.0
                begin = max(self.fill_free, loaded, slot_free)
                cause = Cause.WINDOW
                if begin > self.fill_free:
                    cause = (
                        Cause.IMBALANCE if begin > loaded else pixels.cause if begin <= pixels.loaded(0) else Cause.BUS
                    )
                self.fill_free = begin + max(words, MIN_FILL_CYCLES)
                filled = begin + words + FILLED_CYCLES
                for core in (part,) if d["is_depthwise"] else everyone:
                    spent.add(cause, filled - self.ends[core])
                    self.ends[core] = max(self.ends[core], filled) + work[core][z]
            releases.append(max(self.ends) + FREE_CYCLES)
            del releases[:-num_slots]

    def _fetch_cycles(self, d: dict[str, int], streams: Sequence[StreamCounts], sb: int) -> float:
        """Cycles of the memory port for the weights of a group, and for its parameters."""
        config = self.config
        weights = sum(port_cycles(stream.num_beats, 1, self.latency, config.max_reads, config) for stream in streams)
        choices = BURST_CYCLES * sum(-(-stream.num_beats // config.max_burst_beats) for stream in streams)
        kernels = d["num_kernels_last" if sb == d["num_sb"] - 1 else "num_kernels"]
        return max(weights, choices) + kernels * config.num_cores * PARAM.num_bytes / config.port_bytes

    def _unit_cycles(self, d: dict[str, int], suffix: str) -> _Unit:
        """One kernel of one core in a group."""
        config = self.config
        num_pos, num_vec, pitch, width = d["num_pos" + suffix], d["num_vec" + suffix], d["drain_pitch"], d["tile_ow"]
        rows = -(-num_pos // pitch)
        num_bytes = (rows - 1) * width + min(width, num_pos - (rows - 1) * pitch)
        if d["is_flat"]:
            visits = -(-num_pos // config.post_lanes) + num_vec - -(-num_pos // config.num_lanes)
        else:
            visits = rows * -(-min(width, num_pos) // config.post_lanes)
        value_bytes, pieces = 1 + d["is_wide"], 0
        if d["pool_size"]:
            pieces = rows * -(-width * value_bytes // config.pool_lanes)
            rows, width = max(1, rows // 2), (width - d["pool_size"]) // 2 + 1
            num_bytes = rows * width
        num_runs = 1 if (d["is_flat"] and not d["pool_size"]) or width == d["out_pitch_row_bytes"] else rows
        is_aligned = all(
            d[name] % config.port_bytes == 0 for name in ("out_addr", "out_group_step_bytes", "out_pitch_row_bytes")
        )
        beats = num_runs * num_beats(num_bytes / num_runs, is_aligned, config)
        sums = -(-num_bytes // config.residual_lanes) + fitted.RESIDUAL_UNIT_CYCLES if d["has_residual"] else 0
        shared_sums = max(sums, beats + num_runs * config.max_burst_beats) if sums else 0
        return _Unit(
            max(visits * value_bytes, pieces, PARAM.num_bytes / config.port_bytes),
            sums,
            beats * value_bytes,
            num_runs * value_bytes,
            shared_sums,
        )

    def _drain(self, start: float, num_units: int, unit: _Unit, share: float) -> None:
        """Drain a group; `share` of the units begin a run of their own."""
        port = num_units * port_cycles(unit.beats, share * unit.num_runs, self.latency, MAX_WRITES, self.config)
        visits, sums = num_units * unit.visits, num_units * unit.sums
        if sums:
            num_shared = min(num_units, self.ahead_bursts)
            self.ahead_bursts -= num_shared
            sums += num_shared * (unit.shared_sums - unit.sums)
            queued = (
                self.loaded.queue_cycles(start) if self.loaded else self.config.max_reads * self.config.max_burst_beats
            )  # of weights for the next job
            self.added = max(self.added, start + self.read_trip + queued + fitted.RESIDUAL_CYCLES) + sums
        self.written = max(self.written + port, start + self.result_cycles + port, self.added if sums else 0.0)
        ahead = fitted.DRAIN_QUEUE_CHUNKS * max(port, sums) / visits
        self.drained = max(start + visits, self.written - self.result_cycles - ahead)
        self.buffers = [self.buffers[1], self.drained + fitted.GROUP_FREE_CYCLES]
        self.slices += [
            Slice("drain", start, self.drained),
            Slice("writer", max(start + self.result_cycles, self.written - max(port, sums)), self.written),
        ]
