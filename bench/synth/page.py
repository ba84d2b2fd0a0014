"""`docs/synthesis.md`: what `make synth` found, as a page."""

import statistics
from collections.abc import Callable, Iterable

from by_unit import Row, scaled, total
from results import Result
from technologies import DEVICE, ECP5, PART, SHORT_BITS, XC7
from tools import CLOCK_PIN, PACKAGE, PLANNED_REGISTERS, Placement, versions

from convoy.driver.bench.area import COLUMNS, area_model
from convoy.driver.report.markdown import filled

__all__ = ["page", "placed"]

SMALL_SHARE = 0.005
"""Units of a smaller share of the sites are one row."""
PEERS = (
    "Others, in LUT6 per multiplier: NVDLA's nv_small 1,192 (76,280 on a Zynq 7020), Gemmini's array 325 to 737, AMD's "
    "DPU B512 79, which has its sums and most of its multiplexers in the DSP blocks of an UltraScale+."
)


Results = dict[str, Result]


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(header)
    return [f"| {' | '.join(cells)} |" for cells in (names, ["---"] + ["---:"] * (len(names) - 1), *rows)] + [""]


def _frequency(statistic: Callable[[list[float]], float], values: list[float]) -> str:
    return f"{statistic(values):.1f} MHz" if values else "-"


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _wholes(results: Results) -> list[str]:
    header = ["configuration", "LUT4", "CCU2C", "DPR16X4", "sites", "share", "sites per MAC", "FF"]
    header += ["MULT18X18D", "share", "DP16KD", "share", "seeds", "wire", "Fmax expected"]
    header += ["Fmax median", "Fmax minimum"]
    rows = []
    for name, result in results.items():
        cells = result.whole
        share = {column: f"{cells[column] / number:.0%}" for column, number in DEVICE.items()}
        row = [name, *(_number(cells[column]) for column in ("LUT4", "CCU2C", "DPR16X4", "sites")), share["sites"]]
        row += [_number(cells["sites"] / result.macs), _number(cells["FF"])]
        row += [_number(cells["MULT18X18D"]), share["MULT18X18D"], _number(cells["DP16KD"]), share["DP16KD"]]
        placements = result.placements
        row += [
            str(len(placements)),
            _number(statistics.median(each.wire for each in placements)) if placements else "-",
        ]
        row += [_frequency(statistics.median, [each.expected_mhz for each in placements])]
        row += [_frequency(statistic, result.fmax_mhz) for statistic in (statistics.median, min)]
        rows.append(row)
    constraints: dict[int, list[str]] = {}
    for name, result in results.items():
        if result.placements:
            constraints.setdefault(result.constraint_mhz, []).append(name)
    return [
        "## Lattice ECP5",
        "",
        *filled(
            f"Device: {PART}. Each NPU is mapped as a whole, flattened, with no multiplexers that join LUTs "
            f"(`-nowidelut`), sums of up to {SHORT_BITS} bits in LUTs, and the adders of accumulators put together of "
            "carry cells (`bench/synth/technologies.py`, `joined.v`). "
            f"Package {PACKAGE}, clock at pin {CLOCK_PIN}. Before an NPU is placed, flip-flops behind multipliers and "
            "block memories, which are counted here, become registers of these (`hard_registers.py`). nextpnr places "
            f"those of {PLANNED_REGISTERS:,} flip-flops or more in three steps: after a first one, without resets, "
            "block memories and multipliers get places where all wire is short (`hard_places.py`); after a second one "
            "registers with a reset get tiles near by, for a tile has one reset (`floorplan.py`)."
        ),
        "",
        *_table(header, rows),
        *filled(
            "FF are flip-flops, CCU2C carry cells, DPR16X4 distributed RAMs of 16 words of 4 bits, MULT18X18D "
            "multipliers of 18 bits, DP16KD block memories of 16 Kbit. A site holds one LUT4; a carry cell takes two, "
            "a distributed RAM six. Shares are of the device. A MAC is a multiplier of a core: one multiply-accumulate "
            "per cycle. Wire is what a placement needs at least, half the circumference of each net, in tiles; its "
            "median. Fmax is the highest clock frequency of a placement: what nextpnr expects before it routes, and "
            "what it finds then."
            + "".join(f" Placed for {mhz} MHz: {', '.join(names)}." for mhz, names in constraints.items())
            + _tools(results)
        ),
        "",
        *_unrouted(results),
        *_of_earlier(results),
    ]


def _tools(results: Results) -> str:
    """What placed the NPUs, if that is not the packaged nextpnr of today."""
    names: dict[str, list[str]] = {}
    for name, result in results.items():
        for tool in dict.fromkeys(each.tool for each in result.placements):
            names.setdefault(tool, []).append(name)
    return "".join(
        f" Placed by {tool}: {', '.join(found)}." for tool, found in names.items() if tool not in versions().split(", ")
    )


def _unrouted(results: Results) -> list[str]:
    """What is not placed, or placed and not routed, and by how much."""
    lines = []
    if missing := [name for name, result in results.items() if not result.placements]:
        lines += [*filled(f"Not placed: {', '.join(missing)}."), ""]
    routed = [(each, name) for name, result in results.items() for each in result.placements if each.is_routed]
    for name, result in results.items():
        if not result.placements or result.fmax_mhz:
            continue
        first = result.placements[0]
        text = (
            f"{name} is placed, not routed: after {_minutes(first)} of routing {first.num_left:,} of its "
            f"{first.num_arcs:,} connections were left."
        )
        if routed:
            most, other = max(routed, key=lambda each: each[0].wire)
            text += f" Of what is routed {other} has most wire, {most.wire:,}, and took {_minutes(most)}."
        lines += [*filled(text), ""]
    return lines


def _minutes(placement: Placement) -> str:
    return f"{round(placement.routing_seconds / 60)} minutes"


def _of_earlier(results: Results) -> list[str]:
    earlier = [name for name, result in results.items() if not result.is_current]
    otherwise = [name for name, result in results.items() if result.placements and not result.is_placed_so]
    lines = []
    if earlier:
        lines += [*filled(f"Of earlier hardware, and to be mapped again: {', '.join(earlier)}."), ""]
    if otherwise:
        lines += [*filled(f"Of an earlier floorplan, and to be placed again: {', '.join(otherwise)}."), ""]
    return lines


def _folded(rows: list[Row], column: str) -> list[Row]:
    """The rows by falling share of a column; the small ones as one at the end."""
    whole = total(rows)[column]
    rows = sorted(rows, key=lambda row: -row.count * row.figures[column])
    small = [row for row in rows if row.count * row.figures[column] < SMALL_SHARE * whole]
    return [row for row in rows if row not in small] + ([Row("others", 1, total(small))] if small else [])


def _elsewhere(result: Result, shown: list[Row], technology: str, column: str) -> list[str]:
    """Cells of units in another technology, those that are not shown as one."""
    cells = {row.name: row.count * row.figures[column] for row in result.units[technology]}
    names = {row.name for row in shown}
    others = sum(count for name, count in cells.items() if name not in names)
    return [_number(cells.get(row.name, others)) for row in shown]


def _clocks(result: Result, shown: list[Row]) -> list[str]:
    """MHz of units placed alone; of those that are not shown the lowest."""
    names = {row.name for row in shown}
    rest = [mhz for name, mhz in result.alone_mhz.items() if name not in names]
    known = result.alone_mhz | ({"others": min(rest)} if rest else {})
    return [f"{known[row.name]:.0f}" if row.name in known else "-" for row in shown]


def _by_unit(name: str, result: Result, liberty: str | None) -> list[str]:
    rows = _folded(scaled(result.units[ECP5.name], result.whole), "sites")
    columns = list(rows[0].figures)
    sums = total(result.units[ECP5.name])
    elsewhere = {
        column: _elsewhere(result, rows, technology, column)
        for technology, column in ((XC7.name, "LUT6"), (liberty, "GE"))
        if technology in result.units
    }
    others = elsewhere | ({"MHz alone": _clocks(result, rows)} if result.alone_mhz else {})
    lines = [
        f"### {name} by unit",
        "",
        *_table(
            ["unit", "count", *columns, "share of sites", *others],
            [
                [
                    row.name,
                    str(row.count),
                    *(_number(row.count * row.figures[column]) for column in columns),
                    f"{row.count * row.figures['sites'] / result.whole['sites']:.1%}",
                    *(counts[index] for counts in others.values()),
                ]
                for index, row in enumerate(rows)
            ],
        ),
        *filled(
            "Each unit was mapped alone, and its figures multiplied so that they add up to the whole: LUT4 by "
            f"{result.whole['LUT4'] / sums['LUT4']:.3f}, sites by {result.whole['sites'] / sums['sites']:.3f} "
            "(alone, a unit does not know which of its inputs are constant and which outputs nobody reads). A unit "
            "is named after its file in `hw/`. What is counted is all of that name; `nn.core`, `nn.engine`, "
            "`nn.drain`, `tp.engine`, `ctrl.control` and `npu` are what they have besides the units in them."
            + (f" {' and '.join(elsewhere)}, of other technologies, are as the unit takes alone." if elsewhere else "")
            + (" MHz alone is what it reaches when nothing else is on the device." if result.alone_mhz else "")
        ),
        "",
    ]
    return lines


def _others(results: Results, liberty: str | None) -> list[str]:
    lines = ["## Xilinx 7 and a library for chips", ""]
    rows = []
    for name, result in results.items():
        if XC7.name not in result.units:
            continue
        cells = total(result.units[XC7.name])
        row = [name, _number(result.macs), _number(cells["LUT6"]), _number(cells["LUT6"] / result.macs)]
        row += [_number(cells[column]) for column in ("of them RAM", "FF", "CARRY4")]
        row += [f"{cells['BRAM36']:,.1f}", _number(cells["DSP48"])]
        if liberty:
            gates = total(result.units[liberty])["GE"] if liberty in result.units else 0
            row += [_number(gates), _number(gates / result.macs), _number(result.memory_bits / 1024)]
        rows.append(row)
    if not rows:
        return []
    header = ["configuration", "MAC", "LUT6", "LUT6 per MAC", "of them RAM", "FF", "CARRY4", "BRAM36", "DSP48"]
    header += ["GE", "GE per MAC", "memory Kbit"] if liberty else []
    lines += [
        *_table(header, rows),
        *filled(
            "Sums of the units, each mapped alone with `synth_xilinx -family xc7`: what joins units is in it, what "
            "flattening would save is not. LUT6 counts those that are distributed RAM and shift registers. "
            "Accumulators are in block RAM."
        ),
        "",
    ]
    if liberty:
        lines += [
            *filled(
                f"GE are gate equivalents: the area in the cells of `{liberty}` as a multiple of that of a NAND of two "
                "inputs, without the memories, whose bits are listed."
            ),
            "",
        ]
    return [*lines, *filled(PEERS), ""]


def _times(results: Results) -> list[str]:
    networks = list(dict.fromkeys(network for result in results.values() for network in result.cycles))
    rows = []
    for name, result in results.items():
        if not result.placements:
            continue
        clock = statistics.median(each.mhz for each in result.placements)
        times = (result.cycles.get(network) for network in networks)
        kind = "" if result.fmax_mhz else " expected"
        milliseconds = (f"{cycles / clock / 1e3:.3f}" if cycles else "-" for cycles in times)
        rows.append([name, f"{clock:.1f} MHz{kind}", *milliseconds])
    if not rows:
        return []
    return [
        "## Milliseconds per inference",
        "",
        *_table(["configuration", "clock", *networks], rows),
        *filled("At the median Fmax, of the cycles that `convoy estimate` gives; operators of the CPU are not in it."),
        "",
    ]


def _shares(path: list[str]) -> str:
    """What the hops of `describe_path` are, together."""
    hops = [(float(hop[0]), hop[2]) for hop in map(str.split, path)]
    total = sum(delay for delay, _ in hops)
    wire = sum(delay for delay, kind in hops if kind == "routing")
    return f"{total:.1f} ns, {wire:.1f} of them wire, through {sum(kind == 'logic' for _, kind in hops)} cells"


def _model() -> list[str]:
    rows = []
    for column, found in area_model().items():
        factors = ", ".join(f"{factor:,.2f} per {name}" for name, factor in found.factors.items() if name != "once")
        rows.append(
            [column, f"{round(found.factors['once']):,}", factors, f"{found.mean_error:.1%}", f"{found.max_error:.1%}"]
        )
    assert {row[0] for row in rows} == set(COLUMNS)
    return [
        "## Other configurations",
        "",
        *filled(
            "`convoy sweep` estimates what any configuration takes on an ECP5: each column is a sum of terms, fitted "
            "to configurations that were mapped (`driver/bench/mapped.csv`, written by `make survey`). Errors are of "
            "configurations that the fit had not seen: each is left out in turn, if the others have its terms too."
        ),
        "",
        *_table(["column", "once", "terms", "mean error", "largest error"], rows),
    ]


def page(results: Results) -> str:
    """The page."""
    technologies = (name for result in results.values() for name in result.units)
    liberty = next((name for name in technologies if name not in (ECP5.name, XC7.name)), None)
    lines = [
        "# Area and clock frequency",
        "",
        "Written by `make synth` (`bench/synth`); do not edit.",
        "",
        f"Tools: {versions()}.",
        "",
        *_wholes(results),
        *_times(results),
    ]
    for name, result in results.items():
        if ECP5.name in result.units:
            lines += _by_unit(name, result, liberty)
    lines += _others(results, liberty)
    lines += _model()
    for name, result in results.items():
        if result.fmax_mhz:
            first = result.placements[0]
            lines += [
                f"## Critical path of {name}",
                "",
                *filled(f"Of the first seed: {_shares(first.critical_path)}."),
                "",
                "```",
                *first.critical_path,
                "```",
                "",
            ]
    return "\n".join(lines)


def placed(results: Results) -> str:
    """`driver/report/placed.toml`: the clock of each preset that was placed, by which reports give milliseconds."""
    lines = ["# Clock frequencies that presets have reached, placed and routed. Written by `make synth`; do not edit."]
    for name, result in results.items():
        if result.fmax_mhz:
            median = statistics.median(result.fmax_mhz)
            lines += ["", f"[{name}]", f"mhz = {median:.1f}", f'device = "{PART}"', f"seeds = {len(result.fmax_mhz)}"]
    return "\n".join(lines) + "\n"
