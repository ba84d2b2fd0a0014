"""The memory behind the AXI4 port in Python: timing, random stalls and protocol checks, one step per clock cycle."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from convoy.driver.runtime.device import DeviceError, MemoryModel
from convoy.spec.csr import WindowControl

from .windows import Window

__all__ = ["CHANNELS", "MEMORY_BYTES", "Address", "AxiMemory", "Pins", "SparseMemory", "WriteBeat", "channel_mask"]

MEMORY_BYTES = 1 << 30
"""Address space behind the port."""
MAX_BURSTS = 64
MAX_EARLY_BEATS = 512
SLVERR, DECERR = 2, 3
CHANNELS = "AR", "AW", "W", "R", "B"
"""Channels that `silence` knows; their order is that of the bits in axi_memory.h."""


def channel_mask(channels: tuple[str, ...]) -> int:
    """A bit for each of these `CHANNELS`.

    Raises
    ------
    ValueError
        When there is no such channel.
    """
    if unknown := set(channels) - set(CHANNELS):
        raise ValueError(f"no channel {unknown.pop()!r}; there are {', '.join(CHANNELS)}")
    return sum(1 << CHANNELS.index(channel) for channel in set(channels))


class Address(NamedTuple):
    """What the manager shows on AW or AR."""

    addr: int
    id: int
    len: int
    size: int
    burst: int


class WriteBeat(NamedTuple):
    """What the manager shows on W."""

    data: int
    strb: int
    last: int


@dataclass
class Pins:
    """What the memory drives; the names are those of the AXI4 signals."""

    awready: int = 0
    wready: int = 0
    arready: int = 0
    bvalid: int = 0
    bid: int = 0
    bresp: int = 0
    rvalid: int = 0
    rid: int = 0
    rdata: int = 0
    rresp: int = 0
    rlast: int = 0


class SparseMemory:
    """`MEMORY_BYTES` of zeros, of which the system provides only the pages that are written.

    Members
    -------
    array : numpy.ndarray
        The bytes, flat.

    Raises
    ------
    DeviceError
        On access outside.
    """

    def __init__(self) -> None:
        self.array = np.zeros(MEMORY_BYTES, np.uint8)
        self._view = memoryview(self.array)

    def read(self, addr: int, num_bytes: int) -> bytes:
        """Bytes from an address."""
        self._check(addr, num_bytes)
        return bytes(self._view[addr : addr + num_bytes])

    def write(self, addr: int, data: bytes) -> None:
        """Bytes to an address."""
        self._check(addr, len(data))
        self._view[addr : addr + len(data)] = data

    def _check(self, addr: int, num_bytes: int) -> None:
        if addr < 0 or addr + num_bytes > MEMORY_BYTES:
            raise DeviceError(f"{num_bytes} bytes at {addr:#x} are outside the memory of {MEMORY_BYTES:#x} bytes")


@dataclass
class _Burst:
    address: Address
    ready_cycle: int = 0
    beat: int = 0
    is_complete: bool = False
    beats: list[WriteBeat] = field(default_factory=list)


class AxiMemory:
    """The memory of `MemoryModel` with `port_bytes` per beat.

    The rules of its timing are in docs/simulation.md; axi_memory.h follows the same.

    Members
    -------
    pins : Pins
        To be driven in the cycle that comes.
    windows : list of Window
        Every burst that is shown must lie in one of these, of its direction; if none has access to anything, it may lie
        anywhere.
    """

    def __init__(self, memory: SparseMemory, port_bytes: int, model: MemoryModel):
        self.pins = Pins()
        self.windows: list[Window] = []
        self._fault, self._fault_resp, self._fault_only_beats = range(0), SLVERR, False
        self._silent: frozenset[str] = frozenset()
        self._memory = memory
        self._port_bytes = port_bytes
        self._model = model
        self._latency_cycles = max(model.latency_cycles, 1)
        self._random = (model.seed * 0x9E3779B97F4A7C15 + 0x2545F4914F6CDD1D) & (2**64 - 1)
        self._cycle = 0
        self._was_read = False
        self._waits: dict[str, Address | WriteBeat] = {}
        self._reads: deque[_Burst] = deque()
        self._writes: deque[_Burst] = deque()
        self._early: deque[WriteBeat] = deque()

    def inject_fault(self, addr: int, num_bytes: int, resp: int, only_beats: bool) -> None:
        """Bursts that touch these bytes are answered with `resp` and write nothing; 0: they are not answered while
        this holds.

        With `only_beats` it is only those beats of a read that touch them.
        """
        self._fault, self._fault_resp, self._fault_only_beats = range(addr, addr + num_bytes), resp, only_beats

    def silence(self, *channels: str) -> None:
        """These `CHANNELS` neither take nor give anything new while this holds."""
        channel_mask(channels)
        self._silent = frozenset(channels)

    def step(self, aw: Address | None, w: WriteBeat | None, ar: Address | None, bready: int, rready: int) -> None:
        """One clock edge: what the manager showed before it (None: not valid); `pins` are for the next cycle.

        Raises
        ------
        DeviceError
            When the manager violates the protocol.
        """
        pins = self.pins
        if self._waits:
            self._check_stable({"AR": ar, "AW": aw, "W": w})
        if ar is not None and "AR" not in self._waits:
            self._check_burst("read", ar)
        if aw is not None and "AW" not in self._waits:
            self._check_burst("write", aw)
        if ar is not None and pins.arready:
            self._reads.append(_Burst(ar, self._cycle + self._latency_cycles))
        if aw is not None and pins.awready:
            self._writes.append(_Burst(aw))
        if w is not None and pins.wready:
            self._early.append(w)
        if self._early:
            self._match_beats()
        if pins.rvalid and rready:
            pins.rvalid = 0
            burst = self._reads[0]
            burst.beat += 1
            if burst.beat > burst.address.len:
                self._reads.popleft()
        if pins.bvalid and bready:
            pins.bvalid = 0
        self._waits = {}
        for name, shown, ready in (("AR", ar, pins.arready), ("AW", aw, pins.awready), ("W", w, pins.wready)):
            if shown is not None and not ready:
                self._waits[name] = shown
        self._cycle += 1
        self._drive("W" in self._waits)

    def _drive(self, is_write_waiting: bool) -> None:
        pins = self.pins
        stall_ar = stall_aw = stall_w = stall_r = stall_b = False
        if self._model.stall_percent:
            stall_ar, stall_aw, stall_w, stall_r, stall_b = [self._stalls() for _ in range(5)]
        pins.arready = int(not stall_ar and len(self._reads) < MAX_BURSTS and "AR" not in self._silent)
        pins.awready = int(not stall_aw and len(self._writes) < MAX_BURSTS and "AW" not in self._silent)
        can_read = (
            bool(self._reads)
            and self._reads[0].ready_cycle <= self._cycle
            and not stall_r
            and not self._is_hung(self._reads[0])
            and "R" not in self._silent
        )
        can_write = not stall_w and len(self._early) < MAX_EARLY_BEATS and "W" not in self._silent
        grant_read = grant_write = True
        if self._model.is_shared:
            wants_read = bool(pins.rvalid) or can_read
            if wants_read and is_write_waiting and can_write and not pins.rvalid:
                grant_read = self._was_read = not self._was_read
            grant_write = not (wants_read and grant_read)
        pins.wready = int(can_write and grant_write)
        if not pins.rvalid and can_read and grant_read:
            self._show_read_beat()
        is_answerable = (
            bool(self._writes)
            and self._writes[0].is_complete
            and not self._is_hung(self._writes[0])
            and "B" not in self._silent
        )
        if not pins.bvalid and is_answerable and not stall_b and self._writes[0].ready_cycle <= self._cycle:
            self._finish_write()

    def _stalls(self) -> bool:
        value = self._random
        value ^= value << 13 & (2**64 - 1)
        value ^= value >> 7
        value ^= value << 17 & (2**64 - 1)
        self._random = value
        return (value >> 33) % 100 < self._model.stall_percent

    def _match_beats(self) -> None:
        for burst in self._writes:
            while self._early and not burst.is_complete:
                beat = self._early.popleft()
                is_last = burst.beat == burst.address.len
                if bool(beat.last) != is_last:
                    self._fail(
                        f"WLAST is {beat.last} on beat {burst.beat} of the write to {burst.address.addr:#010x} of "
                        f"{burst.address.len + 1} beats"
                    )
                burst.beats.append(beat)
                burst.beat += 1
                if is_last:
                    burst.is_complete = True
                    burst.ready_cycle = self._cycle + self._latency_cycles
            if not self._early:
                return

    def _show_read_beat(self) -> None:
        burst, pins = self._reads[0], self.pins
        addr = burst.address.addr + burst.beat * self._port_bytes
        pins.rvalid = 1
        pins.rid = burst.address.id
        pins.rlast = int(burst.beat == burst.address.len)
        if addr >= MEMORY_BYTES:
            pins.rresp, pins.rdata = DECERR, 0
            return
        pins.rresp = self._fault_resp if self._is_faulty(burst) else 0
        pins.rdata = int.from_bytes(self._memory.read(addr, self._port_bytes), "little")

    def _finish_write(self) -> None:
        """Write the memory and show the response; until then a reader sees the old bytes."""
        burst, pins = self._writes.popleft(), self.pins
        resp = DECERR if burst.address.addr >= MEMORY_BYTES else self._fault_resp if self._is_faulty(burst) else 0
        full = (1 << self._port_bytes) - 1
        for index, beat in enumerate(burst.beats):
            addr = burst.address.addr + index * self._port_bytes
            if resp or not beat.strb:
                continue
            data = beat.data.to_bytes(self._port_bytes, "little")
            if beat.strb == full:
                self._memory.write(addr, data)
                continue
            for offset in range(self._port_bytes):
                if beat.strb >> offset & 1:
                    self._memory.write(addr + offset, data[offset : offset + 1])
        pins.bvalid = 1
        pins.bid = burst.address.id
        pins.bresp = resp

    def _is_faulty(self, burst: _Burst) -> bool:
        """Whether the fault is for this burst, or for the next beat of a read."""
        is_beat = self._fault_only_beats and not burst.is_complete
        start = burst.address.addr + (burst.beat * self._port_bytes if is_beat else 0)
        end = start + (1 if is_beat else burst.address.len + 1) * self._port_bytes
        return start < self._fault.stop and end > self._fault.start

    def _is_hung(self, burst: _Burst) -> bool:
        return not self._fault_resp and self._is_faulty(burst)

    def _check_burst(self, what: str, a: Address) -> None:
        """A burst is checked when it is shown first, not when it is taken."""
        end = a.addr + (a.len + 1) * self._port_bytes
        if a.burst != 1:
            self._fail(f"{what} of {a.addr:#010x} has burst type {a.burst}, not INCR")
        if 1 << a.size != self._port_bytes:
            self._fail(f"{what} of {a.addr:#010x} has beats of {1 << a.size} bytes, not {self._port_bytes}")
        if a.addr % self._port_bytes:
            self._fail(f"{what} of {a.addr:#010x} is not aligned to {self._port_bytes} bytes")
        if a.addr >> 12 != (end - 1) >> 12:
            self._fail(f"{what} of {a.addr:#010x}, {a.len + 1} beats, crosses a 4 KiB boundary")
        access = WindowControl.__members__[what.upper()]
        mine = [window for window in self.windows if window.access & access]
        if any(window.access for window in self.windows) and not any(
            a.addr >= window.base and end <= window.limit for window in mine
        ):
            text = " ".join(f"{window.base:#010x}-{window.limit:#010x}" for window in mine)
            self._fail(f"{what} of {a.addr:#010x}, {a.len + 1} beats, is outside the memory windows: {text or 'none'}")

    def _check_stable(self, shown: dict[str, Address | WriteBeat | None]) -> None:
        for name, before in self._waits.items():
            if shown[name] != before:
                self._fail(f"{name} changed before {name}READY; it was {before}, is {shown[name]}")

    def _fail(self, message: str) -> None:
        raise DeviceError(f"cycle {self._cycle}: {message}")
