"""A unit with free inputs, what must hold of it, and faults with which it must not."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Cat, ClockDomain, Const, Cover, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.utils import exact_log2

from convoy.hw.bus.port import Burst

__all__ = ["ARBITRARY", "LEGAL", "Bench", "Fault", "last_byte", "opened"]

ARBITRARY = "arbitrary_at_power_up"
"""Attribute of registers without reset: their first value is whatever the solver likes, for they may hold what a
program before has left.
"""


def opened(unit: wiring.Component) -> SimpleNamespace:
    """Elaborates a unit and returns the local variables of its `elaborate`, `m` among them, for invariants and faults.

    The unit gives the same module when the design is elaborated, so statements that are added to `m` until then take
    part.
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
    for value in found.values():
        if (
            isinstance(value, Value | data.View)
            and isinstance(signal := Value.cast(value), Signal)
            and signal.reset_less
        ):
            signal.attrs[ARBITRARY] = ""
    return SimpleNamespace(**found)


@dataclass(frozen=True)
class Fault:
    """A mutation of the unit, and the properties each of which must fail with it."""

    text: str
    breaks: tuple[str, ...]


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
        self.is_first = Signal(init=1)
        """High in the first cycle of a proof's base case."""
        self.m.d.sync += self.is_first.eq(0)

    def put(self, unit: wiring.Component, name: str = "unit") -> SimpleNamespace:
        """Adds the unit, with all its inputs free; returns what is inside (`opened`)."""
        inside = opened(unit)
        self.m.submodules[name] = unit
        for _path, member, value in unit.signature.flatten(unit):
            if member.flow == wiring.In and isinstance(
                Value.cast(value), Signal
            ):  # not the constants of streams that are always ready
                self._inputs.append(Value.cast(value))
        return inside

    def constant(self, shape, name: str) -> Signal:
        """Any value, which stays the same."""
        value = Signal(shape, name=name)
        self._inputs.append(value)
        self.m.d.comb += Assume(self.is_first | (value == self.past(value)))
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
    def breaking(self, names: str | tuple[str, ...], inside: SimpleNamespace, text: str):
        """Within it, statements added to `inside.m` are the fault with which the properties `names` must fail, each
        by itself.
        """
        self.faults.append(Fault(text, (names,) if isinstance(names, str) else names))
        with inside.m.If(self.fault == len(self.faults)):
            yield inside.m

    # What several units promise

    def stays(self, name: str, valid, ready, payload, *, unless=0):
        """Property: an offer stands until it is taken, and does not change."""
        waits, before = self.past(valid & ~ready), self.past(payload)
        self.prove(name, ~waits | unless | (valid & (Value.cast(payload) == before)))

    def legal(self, config, valid, burst):
        """Properties: a burst on offer is aligned, within a page, not past 2**32 and of at most `max_burst_beats`."""
        for name, condition in is_legal(config, burst).items():
            self.prove(name, ~valid | condition)

    def legal_invariant(self, config, valid, burst):
        """The same of a burst inside."""
        for condition in is_legal(config, burst).values():
            self.invariant(~valid | condition)

    def burst(self, addr, last_beat):
        """A `Burst` of its two values."""
        burst = Signal(Burst, name="burst")
        self.m.d.comb += [burst.addr.eq(addr), burst.last_beat.eq(last_beat)]
        return burst

    @staticmethod
    def opened(unit: wiring.Component) -> SimpleNamespace:
        """What is inside a unit that another one holds."""
        return opened(unit)

    def to_rtlil(self) -> str:
        """The netlist, with the module `top`."""
        return rtlil.convert(self.m, name="top", ports=self._inputs, emit_src=True)


LEGAL = "aligned", "in one page", "below 2^32", "length"
"""Names of what every burst must be."""


def is_legal(config, burst) -> dict[str, Value]:
    """What every burst must be, by name; calculated without any narrowing."""
    addr, last_beat = burst.addr, burst.last_beat
    last = last_byte(config, addr, last_beat)
    return dict(
        zip(
            LEGAL,
            (
                addr[: exact_log2(config.port_bytes)] == 0,
                addr[12:] == last[12:32],
                last[32:] == 0,
                last_beat < config.max_burst_beats,
            ),
            strict=True,
        )
    )


def last_byte(config, addr, last_beat) -> Value:
    """Address of the last byte of a burst; 33 bits and more, nothing wraps."""
    return (addr + Cat(Const(-1, exact_log2(config.port_bytes)), last_beat))[:34]
