"""What units are mapped to: the cells of an ECP5, of Xilinx' series 7, or of a library for chips."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from convoy.hw.nn.accumulate import ACC_BITS

__all__ = ["DEVICE", "ECP5", "PART", "SHORT_BITS", "XC7", "Technology", "chip", "nand2_area"]

Cells = dict[str, float]
"""Cells of a unit by Yosys' types, and `area` where a library gives areas."""

PART = "Lattice ECP5 LFE5U-85F, speed grade 6"
DEVICE = {"sites": 83640, "MULT18X18D": 156, "DP16KD": 208}
"""What an LFE5U-85F has."""
_ECP5_SITES = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6}
"""Sites of LUTs that a cell takes: a carry cell two, a distributed RAM of 16 words of 4 bits six."""
_XC7_LUTS = {
    **{f"LUT{size}": 1 for size in range(1, 7)},
    **{"SRL16E": 1, "SRLC16E": 1, "SRLC32E": 1},
    **{"RAM32X1S": 1, "RAM64X1S": 1, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM32M": 4, "RAM64M": 4},
}
"""LUTs of six inputs that a cell takes: those of a distributed RAM hold its words."""


@dataclass(frozen=True)
class Technology:
    """What cells a unit is mapped to."""

    name: str
    script: str
    """Commands of Yosys, with a place for the top module."""
    figures: Callable[[Cells], dict[str, float]]
    """The columns that are shown, of the cells."""
    stat: str = "stat -json"
    """The command that counts the cells."""
    sources: tuple[Path, ...] = ()
    """Files that the commands read."""
    liberty: str = ""
    """The text of the library `<name>.lib`, if the commands read it."""


def _count(cells: Cells, pattern: str) -> float:
    return sum(count for kind, count in cells.items() if re.fullmatch(pattern, kind))


def _weigh(cells: Cells, weights: dict[str, int]) -> float:
    return sum(weight * cells.get(kind, 0) for kind, weight in weights.items())


def _ecp5_figures(cells: Cells) -> dict[str, float]:
    return {
        "LUT4": cells.get("LUT4", 0),
        "CCU2C": cells.get("CCU2C", 0),
        "DPR16X4": cells.get("TRELLIS_DPR16X4", 0),
        "FF": cells.get("TRELLIS_FF", 0),
        "MULT18X18D": cells.get("MULT18X18D", 0),
        "DP16KD": _count(cells, "DP16KD|PDPW16KD"),
        "sites": _weigh(cells, _ECP5_SITES),
    }


def _xc7_figures(cells: Cells) -> dict[str, float]:
    return {
        "LUT6": _weigh(cells, _XC7_LUTS),
        "of them RAM": _weigh(cells, {kind: n for kind, n in _XC7_LUTS.items() if kind.startswith(("RAM", "SRL"))}),
        "FF": _count(cells, "FD[RSCP]E(_1)?"),
        "CARRY4": cells.get("CARRY4", 0),
        "BRAM36": cells.get("RAMB36E1", 0) + cells.get("RAMB18E1", 0) / 2,
        "DSP48": cells.get("DSP48E1", 0),
    }


SHORT_BITS = 6
"""Sums and compares of so many bits are made of LUTs: a carry cell takes two of them for two bits, and a chain another
cell at its end.
"""
JOINED = Path(__file__).with_name("joined.v")
"""What `JoinedDifference` is made of."""
ECP5 = Technology(
    "ecp5",
    "synth_ecp5 -nowidelut -top {top} -run :coarse; "
    f"chtype -set joined t:*joined_*; techmap -map {JOINED.name} -D BITS={ACC_BITS}; "
    "synth_ecp5 -nowidelut -top {top} -run coarse:map_gates; "
    f"techmap t:$alu r:Y_WIDTH<={SHORT_BITS} %i; opt -full; "
    "synth_ecp5 -nowidelut -top {top} -run map_gates:",
    _ecp5_figures,
    sources=(JOINED,),
)
"""Without the multiplexers that join LUTs (PFUMX, L6MUX21), which make their neighbours harder to place."""
XC7 = Technology("xc7", "synth_xilinx -family xc7 -flatten -noiopad -noclkbuf -top {top}", _xc7_figures)


def chip(liberty: Path) -> Technology:
    """The cells of a library for chips, a liberty file. Memories are left out.

    Gate equivalents are areas as a multiple of that of a NAND of two inputs.

    Raises
    ------
    ValueError
        When the library has no such cell.
    """
    text = liberty.read_text()
    try:
        nand2 = nand2_area(text)
    except ValueError as error:
        raise ValueError(f"{liberty}: {error}") from None

    def figures(cells: Cells) -> dict[str, float]:
        return {"GE": cells.get("area", 0) / nand2, "flip-flops": _count(cells, ".*DFF.*")}

    script = (
        "synth -flatten -booth -top {top} -run :fine; opt -fast -full; opt -undriven -fine; techmap; opt -fast; "
        f"dfflibmap -liberty {liberty.name}; abc -liberty {liberty.name}; opt_clean"
    )
    return Technology(liberty.stem, script, figures, f"stat -json -liberty {liberty.name}", liberty=text)


def nand2_area(liberty: str) -> float:
    """The area of the smallest NAND of two inputs of a library.

    Raises
    ------
    ValueError
        When the library has none of the usual names (NAND2X1, nand2_1 ...).
    """
    found = re.findall(r"cell\s*\(\s*\"?\w*?nand2\w*?\"?\s*\)\s*{.*?\barea\s*:\s*([\d.]+)", liberty, re.S | re.I)
    if not found:
        raise ValueError(
            "no cell is named NAND2X1, nand2_1 or the like, with an area, which gate equivalents are multiples of: "
            "take a liberty file of standard cells"
        )
    return min(map(float, found))
