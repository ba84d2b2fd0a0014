"""What the cells of a Lattice ECP5 are called and take."""

PART = "Lattice ECP5 LFE5U-85F, speed grade 6"
DEVICE = {"sites": 83640, "MULT18X18D": 156, "DP16KD": 208}
"""What an LFE5U-85F has."""
CELLS = {
    "LUT4": "LUT4",
    "CCU2C": "CCU2C",
    "DPR16X4": "TRELLIS_DPR16X4",
    "FF": "TRELLIS_FF",
    "MULT18X18D": "MULT18X18D",
    "DP16KD": "DP16KD",
}
"""Columns, and the names that Yosys has for them."""
SITES = {"LUT4": 1, "CCU2C": 2, "DPR16X4": 6}
"""Sites of LUTs that a cell takes: a carry cell two, a distributed RAM of 16 words of 4 bits six."""


def figures(cells: dict[str, int]) -> dict[str, int]:
    """Cells by column, `sites` last, of cells by Yosys' types."""
    columns = {column: cells.get(kind, 0) for column, kind in CELLS.items()}
    return columns | {"sites": sum(number * columns[column] for column, number in SITES.items())}
