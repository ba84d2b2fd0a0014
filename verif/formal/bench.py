"""A unit with free inputs, what must hold of it, and faults with which it must not."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cat, ClockDomain, Const, Cover, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.utils import exact_log2

__all__ = ["ARBITRARY", "Bench", "Fault", "opened"]

PAGE_BYTES = 4096
ARBITRARY = "arbitrary_at_power_up"
"""Attribute of the wires of registers without reset, whose first value is whatever the solver likes."""


def opened(unit: wiring.Component) -> SimpleNamespace:
    """Elaborates a unit and returns the local variables of its `elaborate`, `m` among them, for invariants and faults.

    The unit gives the same module when the design is elaborated, so statements that are added to `m` until then take part.
    """
    found: dict[str, object] = {}

    def note(frame, event, _argument):
        if event == "return" and frame.f_locals.get("self") is unit and "elaborate" in frame.f_code.co_name:
            found.update(frame.f_locals)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        module = unit.elaborate(None)
    finally:
        sys.setprofile(before)
    unit.elaborate = lambda platform: module
    return SimpleNamespace(**found)


@dataclass(frozen=True)
class Fault:
    """A mutation of the unit, and the property that must fail with it."""

    text: str
    breaks: str


@dataclass
class Bench:
    """The top of a proof. The netlist holds all faults too; the inputs `fault` and `focus` choose.

    Attributes
    ----------
    m
        What the proof adds to the unit: history, assumptions, properties.
    properties
        Names; property number n (from 1) alone is checked with `focus` n, all of them and the invariants with 0.
    faults
        Fault number n (from 1) is active with `fault` n, none with 0.
    covers
        Names of what must be reachable.
    assumptions
        In words.
    """

    m: Module = field(default_factory=Module)
    properties: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    covers: list[str] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.fault, self.focus = Signal(8, name="fault"), Signal(8, name="focus")
        self.m.domains.sync = sync = ClockDomain(reset_less=True)
        self._inputs = [sync.clk, self.fault, self.focus]

    def put(self, unit: wiring.Component, name: str = "unit") -> SimpleNamespace:
        """Adds the unit, with all its inputs free; returns what is inside (`opened`)."""
        inside = opened(unit)
        self.m.submodules[name] = unit
        for _path, member, value in unit.signature.flatten(unit):
            if member.flow == wiring.In:
                self._inputs.append(Value.cast(value))
        return inside

    def constant(self, shape, name: str) -> Signal:
        """Any value, which stays the same."""
        first = Signal(init=1)
        value = Signal(shape, name=name)
        self._inputs.append(value)
        self.m.d.sync += first.eq(0)
        self.m.d.comb += Assume(first | (value == self.past(value)))
        return value

    def past(self, value, init=0) -> Signal:
        """The value in the cycle before; `init` at first."""
        value = Value.cast(value)
        register = Signal(value.shape(), init=init, name="past")
        self.m.d.sync += register.eq(value)
        return register

    def assume(self, text: str, condition):
        """What the unit's surroundings must keep to; `text` is printed."""
        self.assumptions.append(text)
        self.m.d.comb += Assume(condition)

    def prove(self, name: str, condition):
        """A property; several conditions may share a name."""
        if name not in self.properties:
            self.properties.append(name)
        number = self.properties.index(name) + 1
        self.m.d.comb += Assert((self.focus != 0) & (self.focus != number) | condition, src_loc_at=1)

    def invariant(self, condition):
        """What the induction needs besides; proved together with the properties."""
        self.m.d.comb += Assert((self.focus != 0) | condition, src_loc_at=1)

    def cover(self, name: str, condition):
        """Something that must be reachable."""
        self.covers.append(name)
        self.m.d.comb += Cover(condition, src_loc_at=1)

    @contextmanager
    def breaking(self, name: str, inside: SimpleNamespace, text: str):
        """Within it, statements added to `inside.m` are the fault with which the property `name` must fail."""
        self.faults.append(Fault(text, name))
        with inside.m.If(self.fault == len(self.faults)):
            yield inside.m

    # What several units promise

    def stays(self, name: str, valid, ready, payload, *, unless=0):
        """Property: an offer stands until it is taken, and does not change."""
        waits, before = self.past(valid & ~ready), self.past(payload)
        self.prove(name, ~waits | unless | (valid & (Value.cast(payload) == before)))

    def legal(self, config, valid, addr, last_beat, *, suffix=""):
        """Properties: a burst on offer is aligned, within a page, not past 2**32 and of at most `max_burst_beats`."""
        for name, condition in is_legal(config, addr, last_beat).items():
            self.prove(name + suffix, ~valid | condition)

    def to_rtlil(self) -> str:
        """The netlist, with the module `top`."""
        return rtlil.convert(self.m, name="top", ports=self._inputs, emit_src=True)


def is_legal(config, addr, last_beat) -> dict[str, Value]:
    """What every burst must be, by name; calculated without any narrowing."""
    last = last_byte(config, addr, last_beat)
    return {
        "aligned": addr[:exact_log2(config.port_bytes)] == 0,
        "in one page": addr[12:] == last[12:32],
        "below 2^32": last[32:] == 0,
        "length": last_beat < config.max_burst_beats,
    }


def last_byte(config, addr, last_beat) -> Value:
    """Address of the last byte of a burst; 33 bits and more, nothing wraps."""
    return (addr + Cat(Const(-1, exact_log2(config.port_bytes)), last_beat))[:34]


def in_window(config, windows, is_open, addr, last_beat, align_log2: int) -> Value:
    """Whether a burst lies in one enabled window, or no window is enabled; for one that is `in one page`, which spares the solver the long carry."""
    first, last = addr, Cat(last_byte(config, addr, last_beat)[:12], addr[12:])
    inside = [window.enable & (first[align_log2:] >= window.base) & (last[align_log2:] < window.limit) for window in windows]
    return is_open | Cat(inside).any()
