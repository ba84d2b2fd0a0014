"""The units of an NPU, each mapped alone, and their sum."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

from amaranth.hdl import Shape
from technologies import Technology
from tools import Netlist, harnessed, map_design
from units import WHOLE, memories, modules, part_design, parts, units

from convoy.spec.config import NpuConfig

__all__ = ["Row", "by_unit", "memory_bits", "merged", "scaled", "total"]


@dataclass(frozen=True)
class Row:
    """A unit of an NPU, how often it is there, and the figures of one."""

    name: str
    count: int
    figures: dict[str, float]


@cache
def designs(config: NpuConfig) -> list[tuple[str, str]]:
    """The parts of an NPU: their names and RTLIL."""
    found = units(config)
    design = modules(harnessed(found[WHOLE]))
    return [(part.name, part_design(design, part)) for part in parts(found)]


def by_unit(config: NpuConfig, technology: Technology, workers: int) -> list[Row]:
    """The units of an NPU, each mapped alone, those of an opened unit left out of it."""
    found = designs(config)

    def map_part(named: tuple[str, str]) -> Netlist:
        name, text = named
        return map_design(text, name.replace(".", "_"), technology)

    with ThreadPoolExecutor(workers) as pool:
        mapped = pool.map(map_part, found)
        figures = [technology.figures(netlist.cells) for netlist in mapped]
    return merged(Row(name, 1, cells) for (name, _), cells in zip(found, figures, strict=True))


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
