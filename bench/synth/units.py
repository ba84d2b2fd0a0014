"""The units of an NPU, each by a short name, and the harness that puts one of them behind two pins."""

import difflib
from collections.abc import Iterator

from amaranth.hdl import (
    Cat,
    ClockDomain,
    ClockSignal,
    Const,
    DomainRenamer,
    Fragment,
    Module,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from convoy.hw.npu import Npu
from convoy.spec.config import NpuConfig

__all__ = ["Harness", "find_unit", "units"]

WHOLE = "npu"
"""The name of the NPU itself."""
PACKAGE = "convoy.hw."


class Harness(wiring.Component):
    """Puts a unit with many ports behind two pins: a shift register in front, a registered fold behind; its reset
    comes from a register.
    """

    i: In(1)
    o: Out(1)

    def __init__(self, unit: wiring.Component):
        self._unit = unit
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        reset = Signal(2, reset_less=True)
        m.domains.unit = ClockDomain(local=True)
        m.d.sync += reset.eq(Cat(ResetSignal(), reset))
        m.d.comb += [ClockSignal("unit").eq(ClockSignal()), ResetSignal("unit").eq(reset[1])]
        m.submodules.unit = DomainRenamer("unit")(self._unit)
        inputs, outputs = [], []
        for _, member, value in self._unit.signature.flatten(self._unit):
            value = Value.cast(value)
            if not isinstance(value, Const):
                (inputs if member.flow == In else outputs).append(value)
        chain = Signal(len(Cat(inputs)))
        captured = Signal(len(Cat(outputs)))
        fold = Signal(len(captured))
        m.d.sync += [
            chain.eq(Cat(self.i, chain)),
            captured.eq(Cat(outputs)),
            fold.eq(Cat(self.o, fold[:-1]) ^ captured),
        ]
        m.d.comb += [Cat(inputs).eq(chain), self.o.eq(fold[-1])]
        return m


def units(config: NpuConfig) -> dict[str, wiring.Component]:
    """Every unit of an NPU by its place (`nn.core_0.decoder`), the NPU itself as `npu`, in the order of the design."""
    return dict(_walk(Fragment.get(Npu(config), None), ()))


def _walk(fragment: Fragment, path: tuple[str, ...]) -> Iterator[tuple[str, wiring.Component]]:
    for origin in fragment.origins or ():
        if isinstance(origin, wiring.Component) and type(origin).__module__.startswith(PACKAGE):
            yield ".".join(path) or WHOLE, origin
    for inner, name, _ in fragment.subfragments:
        if name:
            yield from _walk(inner, (*path, name))


def short_names(found: dict[str, wiring.Component]) -> dict[str, str]:
    """Places by short names: `room.file` is the outermost unit of a file, `room.file.Class` one inside it; of several
    of a class the first.
    """
    names: dict[str, str] = {}
    for place, unit in found.items():
        file, name = type(unit).__module__.removeprefix(PACKAGE), type(unit).__name__.lstrip("_")
        outermost = names.setdefault(file, place)
        if type(found[outermost]) is not type(unit):
            names.setdefault(f"{file}.{name}", place)
    return names


def find_unit(config: NpuConfig, name: str) -> wiring.Component:
    """The unit of a short name or at a place.

    Raises
    ------
    SystemExit
        When there is none; lists the names.
    """
    found = units(config)
    names = short_names(found)
    place = names.get(name, name)
    if place not in found:
        near = difflib.get_close_matches(name, [*names, *found], 3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise SystemExit(f"no unit {name!r}{hint}\nunits: {' '.join(sorted(names))}\nor a place such as nn.core_0.acc")
    return found[place]
