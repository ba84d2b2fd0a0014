"""The units of an NPU, each by a short name, and the harness that puts one of them behind two pins."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass

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
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from convoy.hw.npu import Npu
from convoy.spec.config import NpuConfig

__all__ = [
    "HARNESSED",
    "WHOLE",
    "Harness",
    "Part",
    "find_unit",
    "memories",
    "modules",
    "part_design",
    "parts",
    "short_names",
    "units",
]

WHOLE = "npu"
"""The name of the NPU itself."""
HARNESSED = "top.unit"
"""The module of what is in a harness."""
PACKAGE = "convoy.hw."
OPENED = ("npu", "nn.engine", "nn.core", "nn.drain", "tp.engine", "ctrl.control")
"""Units, by their short names, whose parts are counted one by one."""


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
    found = _walk(Fragment.get(Npu(config), None), ())
    return {place: unit for place, unit in found if type(unit).__module__.startswith(PACKAGE)}


def memories(config: NpuConfig) -> list[Memory]:
    """Every memory of an NPU."""
    return [unit for _, unit in _walk(Fragment.get(Npu(config), None), ()) if isinstance(unit, Memory)]


def _walk(fragment: Fragment, path: tuple[str, ...]) -> Iterator[tuple[str, wiring.Component]]:
    for origin in fragment.origins or ():
        if isinstance(origin, wiring.Component):
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


@dataclass(frozen=True)
class Part:
    """A unit that is counted alone, or what an opened unit has besides its parts."""

    name: str
    """Its short name."""
    place: str
    boxes: tuple[str, ...]
    """Names of its parts, which are counted for themselves."""


def parts(found: dict[str, wiring.Component]) -> list[Part]:
    """What an NPU is made of, of its units."""
    names = {type(found[place]): name for name, place in short_names(found).items()}
    opened = {place for place, unit in found.items() if names[type(unit)] in OPENED}

    def is_counted(place: str) -> bool:
        is_small = names[type(found[place])].startswith("lib.")
        return place in opened or (_parent(place) in opened and not is_small)

    counted = [place for place in found if is_counted(place)]
    return [
        Part(
            names[type(found[place])],
            place,
            tuple(inner.rpartition(".")[2] for inner in counted if place in opened and _parent(inner) == place),
        )
        for place in counted
    ]


def _parent(place: str) -> str:
    return "" if place == WHOLE else place.rpartition(".")[0] or WHOLE


def modules(rtlil: str) -> dict[str, str]:
    """The modules of a design by name, each with its attributes."""
    found = {}
    for text in re.split(r"(?<=^end\n)", rtlil, flags=re.MULTILINE):
        if name := re.search(r"^module \\(\S+)$", text, re.MULTILINE):
            found[name[1]] = text
    return found


def part_design(found: dict[str, str], part: Part) -> str:
    """The design of a part of the NPU in its harness, with the part as `top.unit`; of its boxes only the ports.

    A module's name ends in `$` and a number where the name was taken. Ports without a name are counted anew, and the
    clock is that of the harness: equal parts of one or of different NPUs are one text.
    """
    plain = {re.sub(r"\$\d+", "", name): name for name in found}
    place = HARNESSED if part.place == WHOLE else f"{HARNESSED}.{part.place}"
    root, boxes = plain[place], {plain[f"{place}.{box}"] for box in part.boxes}
    texts, waiting = [], [root]
    while waiting:
        name = waiting.pop()
        text = found[name]
        if name in boxes:
            lines = text.splitlines(keepends=True)
            ports = (line for line in lines if re.match(r"module|end$|  wire .*(in|out)put", line))
            text = "attribute \\blackbox 1\n" + "".join(ports)
        else:
            waiting += [inner for inner in re.findall(r"^  cell \\(\S+) ", text, re.MULTILINE) if inner in found]
        texts.append(re.sub(rf"(?<=\\){re.escape(root)}(?=[. \n])", HARNESSED, text))
    numbers: dict[str, str] = {}
    text = "".join(texts)
    if clock := re.search(r"^  wire .*input \d+ \\(\w+)_clk$", found[root], re.MULTILINE):
        text = re.sub(rf"(?<=\\){clock[1]}(?=_(clk|rst)[ \n])", "unit", text)
    return re.sub(r"\\port\$[\d$]+", lambda port: numbers.setdefault(port[0], f"\\port${len(numbers)}"), text)


def find_unit(config: NpuConfig, name: str) -> wiring.Component:
    """The unit of a short name or at a place.

    Raises
    ------
    ValueError
        When there is none; lists the names.
    """
    found = units(config)
    names = short_names(found)
    place = names.get(name, name)
    if place not in found:
        near = difflib.get_close_matches(name, [*names, *found], 3)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"no unit {name!r}{hint}\nunits: {' '.join(sorted(names))}\nor a place such as nn.core_0.acc")
    return found[place]
