"""The units of an NPU, each mapped alone, and their sum."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from amaranth.hdl import Shape
from technologies import ECP5, Technology
from tools import Netlist, harnessed, map_design, place_unit
from units import WHOLE, Part, memories, modules, part_design, parts, units

from convoy.spec.config import NpuConfig

__all__ = ["Row", "by_unit", "clocks", "memory_bits", "merged", "scaled", "total"]


@dataclass(frozen=True)
class Row:
    """A unit of an NPU, how often it is there, and the figures of one."""

    name: str
    count: int
    figures: dict[str, float]


@cache
def designs(config: NpuConfig) -> list[tuple[Part, str]]:
    """The parts of an NPU and their RTLIL."""
    found = units(config)
    design = modules(harnessed(found[WHOLE]))
    return [(part, part_design(design, part)) for part in parts(found)]


def by_unit(config: NpuConfig, technology: Technology, workers: int) -> list[Row]:
    """The units of an NPU, each mapped alone, those of an opened unit left out of it."""
    found = designs(config)

    def map_part(design: tuple[Part, str]) -> Netlist:
        part, text = design
        return map_design(text, _label(part), technology)

    with ThreadPoolExecutor(workers) as pool:
        mapped = pool.map(map_part, found)
        figures = [technology.figures(netlist.cells) for netlist in mapped]
    return merged(Row(part.name, 1, cells) for (part, _), cells in zip(found, figures, strict=True))


def clocks(config: NpuConfig, mhz: int, workers: int) -> dict[str, float]:
    """MHz that units reach on an ECP5 when each is placed alone, with this constraint; those of opened units are not
    placed. Prints each.
    """
    found = {(_label(part), text): part.name for part, text in designs(config) if not part.boxes}

    def place_part(design: tuple[str, str]) -> float:
        label, text = design
        return place_unit(map_design(text, label, ECP5, is_placed=True), 1, mhz, 1)[0].mhz

    lowest: dict[str, float] = {}
    with ThreadPoolExecutor(workers) as pool:
        for name, reached in zip(found.values(), pool.map(place_part, found), strict=True):
            print(f"{name:<20} alone: {reached:.1f} MHz", flush=True)
            lowest[name] = min(reached, lowest.get(name, reached))
    return lowest


def _label(part: Part) -> str:
    return part.name.replace(".", "_")


def merged(rows: Iterable[Row]) -> list[Row]:
    """A row for each name, with the mean of what one takes."""
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    return [
        Row(name, count, {column: value / count for column, value in total(same).items()})
        for name, same in by_name.items()
        if (count := sum(row.count for row in same))
    ]


def total(rows: Iterable[Row]) -> dict[str, float]:
    """The sum of all units, by column."""
    sums: Counter[str] = Counter()
    for row in rows:
        for column, value in row.figures.items():
            sums[column] += row.count * value
    return dict(sums)


def scaled(rows: list[Row], whole: dict[str, float]) -> list[Row]:
    """The rows, each column so that its sum is what the whole takes."""
    sums = total(rows)
    ratios = {column: whole[column] / value if value else 1.0 for column, value in sums.items()}
    return [
        Row(row.name, row.count, {column: value * ratios[column] for column, value in row.figures.items()})
        for row in rows
    ]


def memory_bits(config: NpuConfig) -> int:
    """Bits of all memories of an NPU, the small ones of its queues too."""
    return sum(Shape.cast(memory.shape).width * memory.depth for memory in memories(config))
