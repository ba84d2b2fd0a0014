"""Hostile jobs: what can be done to a correct program, its tables, its memory and the NPU's registers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from convoy.driver.devices.bus_model import CHANNELS
from convoy.driver.emit.program import Program
from convoy.spec.config import NpuConfig
from convoy.spec.csr import NUM_WINDOWS, REGISTERS, Control, WindowControl
from convoy.spec.isa import COMPLETION, DESCRIPTOR_BYTES, LUT_BYTES, NN, PARAM, STREAM, TAP_BYTES, TP, Opcode
from convoy.spec.record import Field, Record

__all__ = ["BEFORE", "BEYOND_BYTES", "KINDS", "Attacker", "Event", "Job", "Target", "write_window"]

BEYOND_BYTES = 8192
"""Memory behind that of the plan that must not change."""
BEFORE = -1
"""The `Event.cycle` of what happens before the doorbell."""
SIZES = 1, 3, 50
"""Bits or places that are changed at once."""


@dataclass(frozen=True)
class Event:
    """Something that happens `cycle` cycles after the doorbell, or `BEFORE` it.

    `action`: "write" (register, value), "poke" (address, bytes), "fault" (as `inject_fault`) or "silence" (channels).
    """

    cycle: int
    action: str
    arguments: tuple


@dataclass(frozen=True)
class Job:
    """A correct program and what is done to it and to the NPU. `kinds`: keys of `KINDS`."""

    kinds: tuple[str, ...]
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Target:
    """A correct program with the memory that it finds and that it leaves."""

    program: Program
    before: bytes
    after: bytes
    clean_cycles: int

    @property
    def records(self) -> range:
        """The bytes of its completion records, which say when and so differ from run to run."""
        return range(
            self.program.record_addr, self.program.record_addr + COMPLETION.num_bytes * len(self.program.descriptors)
        )

    @property
    def code(self) -> range:
        """The bytes of its descriptors."""
        return range(
            self.program.program_addr, self.program.program_addr + DESCRIPTOR_BYTES * len(self.program.descriptors)
        )


def write_window(number: int, base: int, limit: int, control: int) -> list[tuple[str, int]]:
    """Register writes for a window."""
    return [
        (f"WINDOW{number}_{name}", int(value))
        for name, value in (("BASE", base), ("LIMIT", limit), ("CONTROL", control))
    ]


class Attacker:
    """Draws hostile jobs against a target of a configuration."""

    def __init__(self, config: NpuConfig, target: Target, rng: np.random.Generator):
        self.target, self.rng = target, rng
        self.program = target.program
        self.tables = _tables(config, target)

    def job(self) -> Job:
        """A job of one kind or several."""
        kinds = tuple(
            str(kind) for kind in self.rng.choice(list(KINDS), size=self.rng.choice([1, 1, 1, 2, 2, 3]), replace=False)
        )
        return self.job_of(*kinds)

    def job_of(self, *kinds: str) -> Job:
        """A job of these kinds; those for which the target offers nothing are left out. Limits end it, most times."""
        rng = self.rng
        timeout = int(rng.choice([0, self.target.clean_cycles + 500] + [self.target.clean_cycles + 2000] * 4))
        watchdog = int(rng.choice([0, 300, 1000, 1000]))
        events = [self.write(BEFORE, "TIMEOUT", timeout), self.write(BEFORE, "WATCHDOG", watchdog)]
        drawn = []
        for kind in kinds:
            found = list(KINDS[kind](self))
            if found:
                drawn.append(kind)
                events += found
        return Job(tuple(drawn), tuple(events))

    # What attacks are made of

    def write(self, cycle: int, name: str, value: int) -> Event:
        """A register write."""
        return Event(cycle, "write", (name, int(value)))

    def poke(self, cycle: int, addr: int, data: bytes) -> Event:
        """Bytes of memory overwritten by the host."""
        return Event(cycle, "poke", (int(addr), bytes(data)))

    def cycle(self) -> int:
        """A time from before the doorbell to a little after the end of a correct run."""
        return int(self.rng.integers(BEFORE, self.target.clean_cycles + 100))

    def pick(self, values):
        """One of these."""
        return values[int(self.rng.integers(len(values)))]

    def bytes_at(self, span: range) -> bytes:
        """Memory as the program finds it."""
        return self.target.before[span.start : span.stop]

    def flipped(self, raw: bytes, count: int) -> bytes:
        """Bytes with some bits inverted."""
        changed = bytearray(raw)
        for bit in self.rng.integers(8 * len(raw), size=count):
            changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)

    def value(self, bits: int, value: int) -> int:
        """A value of so many bits to take the place of this one: an end of the range, a neighbour, one bit inverted,
        an address, anything.
        """
        top = (1 << bits) - 1
        choices = [
            0,
            1,
            top,
            top - 1,
            top >> 1,
            (top >> 1) + 1,
            value + 1,
            value - 1,
            value * 2,
            value ^ 1 << int(self.rng.integers(bits)),
            int.from_bytes(self.rng.bytes(4), "little"),
            int(self.rng.integers(16)),
        ]
        if bits == 32:
            choices += [self.address()] * 4
        return self.pick(choices) & top

    def address(self) -> int:
        """An address of something, or one where something ends."""
        ends = [0, 0x1000, len(self.target.before), 1 << 30, 1 << 31, 1 << 32]
        spans = [self.target.code, self.target.records, *itertools.chain(*self.tables.values())]
        base = self.pick(
            [
                self.pick(ends),
                self.pick(spans).start,
                self.pick(spans).stop,
                int(self.rng.integers(len(self.target.before))),
            ]
        )
        return (base + self.pick([0, 0, 0, 1, -1, 2, 32, -32, -256, 256, 4096])) % (1 << 32)

    def spoil(self, record: Record, raw: bytes, names: list[str] | None = None) -> bytes:
        """A record with some fields changed, of these or of all."""
        word = int.from_bytes(raw, "little")
        for name in self.rng.choice(names or list(record.fields), size=self.rng.choice([1, 1, 2])):
            lsb, spec = _place(record, str(name))
            mask = (1 << spec.bits) - 1
            word = word & ~(mask << lsb) | self.value(spec.bits, word >> lsb & mask) << lsb
        return word.to_bytes(record.num_bytes, "little")

    def descriptors(self) -> list[tuple[int, bytes, Record]]:
        """The program's: address, bytes, what it is."""
        return [
            (self.program.program_addr + index * DESCRIPTOR_BYTES, raw, NN if raw[0] == Opcode.NN else TP)
            for index, raw in enumerate(self.program.descriptors)
        ]

    def descriptor(self) -> tuple[int, bytes, Record]:
        """One of them."""
        return self.pick(self.descriptors())

    def entry(self, table: str, num_bytes: int) -> range | None:
        """An entry of a table of the program, if it has one."""
        if not self.tables[table]:
            return None
        span = self.pick(self.tables[table])
        start = span.start + num_bytes * int(self.rng.integers(max(1, len(span) // num_bytes)))
        return range(start, start + num_bytes)

    def open_windows(self) -> list[Event]:
        """One window for all of the program's memory, or none at all."""
        writes = [(f"WINDOW{number}_CONTROL", 0) for number in range(NUM_WINDOWS)]
        if self.rng.integers(2):
            writes += write_window(
                0, 0, len(self.target.before) - BEYOND_BYTES, WindowControl.READ | WindowControl.WRITE
            )
        return [self.write(BEFORE, name, value) for name, value in writes]

    def windows(self, cycle: int) -> list[Event]:
        """Other windows."""
        writes, number = [], int(self.rng.integers(NUM_WINDOWS))
        choice = int(self.rng.integers(4))
        mine = self.program.windows[number] if number < len(self.program.windows) else None
        if choice == 0 or mine is None:
            writes = write_window(number, self.address(), self.address(), self.rng.integers(4))
        elif choice == 1:
            limit = mine.base + 32 * int(self.rng.integers((mine.limit - mine.base) // 32 + 1))
            writes = [(f"WINDOW{number}_LIMIT", limit)]
        elif choice == 2:
            base = mine.base + 32 * int(self.rng.integers((mine.limit - mine.base) // 32 + 1))
            writes = [(f"WINDOW{number}_BASE", base)]
        else:
            writes = [(f"WINDOW{number}_CONTROL", int(self.rng.integers(4)))]
        return [self.write(cycle, name, value) for name, value in writes]


def _place(record: Record, name: str) -> tuple[int, Field]:
    lsb = 0
    for spec in record.fields.values():
        if spec.name == name:
            return lsb, spec
        lsb += spec.bits
    raise KeyError(name)


def _tables(config: NpuConfig, target: Target) -> dict[str, list[range]]:
    """Where the tables of a program lie."""
    found: dict[str, list[range]] = {"tap": [], "stream": [], "weights": [], "param": [], "lut": []}
    for raw in target.program.descriptors:
        record = NN if raw[0] == Opcode.NN else TP
        d = record.decode(raw)
        if d["has_lut"]:
            found["lut"].append(range(d["lut_addr"], d["lut_addr"] + LUT_BYTES))
        if record is TP:
            continue
        num_params = ((d["num_sb"] - 1) * d["num_kernels"] + d["num_kernels_last"]) * config.num_cores
        if d["is_swapped"]:
            num_params = d["tile_iw"]
        found["tap"].append(range(d["tap_addr"], d["tap_addr"] + TAP_BYTES * d["num_taps"]))
        found["param"].append(range(d["param_addr"], d["param_addr"] + PARAM.num_bytes * num_params))
        if d["is_swapped"]:
            continue
        directory = range(d["stream_addr"], d["stream_addr"] + STREAM.num_bytes * d["num_sb"] * config.num_cores)
        found["stream"].append(directory)
        for addr in directory[:: STREAM.num_bytes]:
            entry = STREAM.decode(target.before[addr : addr + STREAM.num_bytes])
            start = d["wgt_addr"] + entry["offset_bytes"]
            found["weights"].append(range(start, start + entry["num_beats"] * config.port_bytes))
    return found


Events = Iterator[Event]


def _descriptor_bits(a: Attacker) -> Events:
    addr, raw, _ = a.descriptor()
    yield a.poke(BEFORE, addr, a.flipped(raw, a.pick(SIZES)))


def _descriptor_fields(a: Attacker) -> Events:
    addr, raw, record = a.descriptor()
    yield a.poke(BEFORE, addr, a.spoil(record, raw))


def _fused_fields(a: Attacker) -> Events:
    """What makes a descriptor that fuses a table, a sum or a pool, or none, one that fuses another; what makes swapped
    operands and rings.
    """
    addr, raw, record = a.descriptor()
    parts = ("has_", "lut_", "res_", "pool_", "is_wide", "is_swapped", "src_", "num_src_", "ring_")
    names = [name for name in record.fields if name.startswith(parts)]
    yield a.poke(BEFORE, addr, a.spoil(record, raw, names))


def _fused_pool(a: Attacker) -> Events:
    """The pool of a convolution, or one where there is none."""
    descriptors = [part for part in a.descriptors() if part[2] is NN]
    if descriptors:
        addr, raw, _ = a.pick(descriptors)
        yield a.poke(BEFORE, addr, a.spoil(NN, raw, [name for name in NN.fields if name.startswith("pool_")]))


def _random_descriptor(a: Attacker) -> Events:
    addr, raw, _ = a.descriptor()
    keep = int(a.rng.integers(1, 4))
    yield a.poke(BEFORE, addr, raw[:keep] + a.rng.bytes(DESCRIPTOR_BYTES - keep))


def _table_of_records(table: str, record: Record) -> Callable[[Attacker], Events]:
    def attack(a: Attacker) -> Events:
        if span := a.entry(table, record.num_bytes):
            yield a.poke(BEFORE, span.start, a.spoil(record, a.bytes_at(span)))

    return attack


def _table_of_bytes(table: str, num_bytes: int) -> Callable[[Attacker], Events]:
    def attack(a: Attacker) -> Events:
        if span := a.entry(table, num_bytes):
            raw = a.bytes_at(span)
            yield a.poke(
                BEFORE,
                span.start,
                a.pick([a.flipped(raw, a.pick(SIZES)), a.rng.bytes(num_bytes), bytes(num_bytes), b"\xff" * num_bytes]),
            )

    return attack


def _noise(a: Attacker) -> Events:
    """Random bytes over whatever lies there."""
    for _ in range(a.pick(SIZES)):
        addr, size = int(a.rng.integers(len(a.target.before) - 64)), int(a.rng.integers(1, 64))
        yield a.poke(BEFORE, addr, a.rng.bytes(size))


def _self_writing(a: Attacker) -> Events:
    """A job whose results are the program, its tables, its records."""
    addr, raw, record = a.descriptor()
    lsb, spec = _place(record, a.pick(["out_addr", "out_addr", "act_addr" if record is NN else "a_addr"]))
    word = int.from_bytes(raw, "little") & ~((1 << spec.bits) - 1 << lsb)
    place = a.pick([a.target.code, a.target.code, a.target.records, *itertools.chain(*a.tables.values())])
    yield from a.open_windows()
    yield a.poke(
        BEFORE,
        addr,
        (word | (place.start + int(a.rng.integers(len(place))) & ~31) << lsb).to_bytes(DESCRIPTOR_BYTES, "little"),
    )


def _records(a: Attacker) -> Events:
    """Completion records over the program, its tables, anything."""
    if a.rng.integers(4):
        yield from a.open_windows()
    yield a.write(BEFORE, "RECORD_BASE", a.address())


def _program_base(a: Attacker) -> Events:
    if a.rng.integers(2):
        yield from a.open_windows()
    yield a.write(BEFORE, "PROGRAM_BASE", a.address())


def _program_count(a: Attacker) -> Events:
    if a.rng.integers(2):
        yield from a.open_windows()
    yield a.write(BEFORE, "PROGRAM_COUNT", a.value(a.pick([8, 16, 17, 32]), len(a.program.descriptors)))


def _windows(a: Attacker) -> Events:
    for _ in range(a.pick([1, 1, 3])):
        yield from a.windows(BEFORE)


def _windows_in_run(a: Attacker) -> Events:
    for _ in range(a.pick([1, 1, 3])):
        yield from a.windows(a.cycle())


def _locked_windows(a: Attacker) -> Events:
    """The windows that the program needs are locked: whatever is written to them, it runs as always."""
    used = range(len(a.program.windows))
    for number in used:
        window = a.program.windows[number]
        control = (
            WindowControl.READ * window.is_readable | WindowControl.WRITE * window.is_writable | WindowControl.LOCK
        )
        yield a.write(BEFORE, f"WINDOW{number}_CONTROL", control)
    for number in used:
        for name, value in write_window(number, a.address(), a.address(), a.rng.integers(8)):
            yield a.write(a.cycle(), name, value)


def _register_in_run(a: Attacker) -> Events:
    names = [
        name for name, register in REGISTERS.items() if name not in ("CONTROL", "IRQ_ENABLE") and not register.locked_by
    ]
    for _ in range(a.pick([1, 1, 3])):
        yield a.write(a.cycle(), a.pick(names), a.value(32, 1))


def _control_in_run(value: Control) -> Callable[[Attacker], Events]:
    def attack(a: Attacker) -> Events:
        for _ in range(a.pick([1, 1, 3])):
            yield a.write(a.cycle(), "CONTROL", value)

    return attack


def _limits(a: Attacker) -> Events:
    """Of the watchdog and of the whole program."""
    for name in ("TIMEOUT", "WATCHDOG"):
        yield a.write(
            a.pick([BEFORE, a.cycle()]),
            name,
            a.pick([0, 1, 2, 16, 100, 1000, 0xFFFFFFFF, int(a.rng.integers(1, a.target.clean_cycles + 1))]),
        )


def _memory_in_run(a: Attacker) -> Events:
    """Someone else writes to the memory of the program."""
    spans = [a.target.code, *itertools.chain(*a.tables.values())]
    for _ in range(a.pick(SIZES[:2])):
        span = a.pick(spans)
        addr = span.start + int(a.rng.integers(len(span)))
        size = min(int(a.rng.integers(1, 33)), span.stop - addr)
        yield a.poke(a.cycle(), addr, a.pick([a.rng.bytes(size), a.flipped(a.bytes_at(range(addr, addr + size)), 1)]))


def _answer(resp: int) -> Callable[[Attacker], Events]:
    def attack(a: Attacker) -> Events:
        spans = [
            a.target.code,
            a.target.records,
            *itertools.chain(*a.tables.values()),
            *[range(len(a.target.before))] * 3,
        ]
        span = a.pick(spans)
        addr, size = span.start + int(a.rng.integers(len(span))), int(a.pick([1, 1, 64, 1 << 20]))
        start = a.cycle()
        yield Event(start, "fault", (addr, size, resp, bool(a.rng.integers(2))))
        if a.rng.integers(2):
            yield Event(max(start, 0) + int(a.rng.integers(1, 600)), "fault", (0, 0))

    return attack


def _silent_channel(a: Attacker) -> Events:
    start = a.cycle()
    yield Event(
        start,
        "silence",
        tuple(str(channel) for channel in a.rng.choice(CHANNELS, size=a.pick([1, 1, 2, 5]), replace=False)),
    )
    if a.rng.integers(2):
        yield Event(max(start, 0) + int(a.rng.integers(1, 600)), "silence", ())


KINDS: dict[str, Callable[[Attacker], Events]] = {
    "bits of a descriptor": _descriptor_bits,
    "fields of a descriptor": _descriptor_fields,
    "fields of what is fused": _fused_fields,
    "fused pool": _fused_pool,
    "a random descriptor": _random_descriptor,
    "tap table": _table_of_bytes("tap", TAP_BYTES),
    "stream directory": _table_of_records("stream", STREAM),
    "weight streams": _table_of_bytes("weights", 32),
    "parameters": _table_of_records("param", PARAM),
    "lookup table": _table_of_bytes("lut", 16),
    "noise": _noise,
    "a program that writes itself": _self_writing,
    "records anywhere": _records,
    "PROGRAM_BASE": _program_base,
    "PROGRAM_COUNT": _program_count,
    "windows": _windows,
    "windows during the run": _windows_in_run,
    "locked windows": _locked_windows,
    "registers during the run": _register_in_run,
    "doorbell during the run": _control_in_run(Control.DOORBELL),
    "CLEAR_ERROR during the run": _control_in_run(Control.CLEAR_ERROR),
    "soft reset": _control_in_run(Control.SOFT_RESET),
    "limits": _limits,
    "memory during the run": _memory_in_run,
    "SLVERR": _answer(2),
    "DECERR": _answer(3),
    "silence at an address": _answer(0),
    "silent channels": _silent_channel,
}
"""Kinds of attacks: each draws events, or none if the target offers nothing to attack."""
