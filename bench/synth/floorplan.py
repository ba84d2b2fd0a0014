"""A floorplan of a netlist for nextpnr: its block memories, its multipliers, and tiles for what is reset."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from hard_places import Cells, bel, settled, tile, top
from scipy.optimize import linear_sum_assignment

__all__ = ["planned", "without_resets"]

TILE_SLICES, SLICE_FFS = "ABCD", 2
"""Of a tile of logic: four slices of two flip-flops and two LUTs each. To nextpnr all flip-flops of a tile have one
reset net, and those of a slice one clock enable (`slices_compatible` in its `ecp5/arch_place.cc`).
"""
CHAINED = ("CCU2", "DPRAM")
"""Modes of LUTs that lie beside each other in a fixed order: carry chains and distributed memories. While there are
tiles enough, registers with a reset get others, so that the places of these stay free.
"""
Net = int | str


@dataclass(frozen=True)
class _Register:
    """A flip-flop, with the LUT that it shares a site with."""

    name: str
    lut: str | None
    enable: tuple
    x: int
    y: int


def without_resets(design: dict) -> dict:
    """The netlist with flip-flops that are never reset, for a first placement that no reset net hinders. Changes
    `design`.
    """
    for cell in top(design).values():
        if cell["type"] == "TRELLIS_FF":
            cell["connections"]["LSR"] = ["0"]
    return design


def planned(design: dict, placed: dict) -> dict:
    """The netlist with a `BEL` for block memories, multipliers, and registers with a reset. Changes `design`.

    nextpnr's placers know nothing of reset nets until they make a placement legal. Then each cell takes the nearest
    tile that suits it, until no tile without a register is left, and the registers of some reset find no place at all.
    Here the registers of each reset are gathered eight by eight, and each eight gets a tile near where they were.

    Parameters
    ----------
    design
        Of Yosys.
    placed
        The same without resets as nextpnr placed it, `--write`.

    Raises
    ------
    ValueError
        When there are more eights of registers than tiles.
    """
    cells, packed = top(settled(design, placed)), top(placed)
    for name, cell in cells.items():
        if cell["type"] == "TRELLIS_FF" and not _is_paired(packed[name]):
            _keep_apart(cell)
    loads = [load for registers in _by_reset(cells, packed).values() for load in _loads(registers)]
    for load, (x, y) in zip(loads, _assign(loads, packed), strict=True):
        for name, slots in zip(TILE_SLICES, load, strict=False):
            for index, register in enumerate(slots):
                cells[register.name]["attributes"]["BEL"] = f"X{x}/Y{y}/SLICE{name}.FF{index}"
                if register.lut:
                    cells[register.lut]["attributes"]["BEL"] = f"X{x}/Y{y}/SLICE{name}.K{index}"
    return design


def _is_paired(register: dict) -> bool:
    """nextpnr has put it at the site of what drives it."""
    return register["parameters"]["SD"].strip() == "1"


def _keep_apart(register: dict) -> None:
    """Have nextpnr not pair it with what drives it: which one of several registers it pairs with a LUT may change."""
    for ports in (register["connections"], register["port_directions"]):
        ports["M"] = ports.pop("DI")


def _net(cell: dict, port: str) -> Net | None:
    """What a port is connected to."""
    return next(iter(cell["connections"].get(port, ())), None)


def _by_reset(cells: Cells, packed: Cells) -> dict[tuple, list[_Register]]:
    """The registers with a reset, without those that nextpnr makes part of a carry chain or a distributed memory."""
    luts = {_net(cell, "Z"): name for name, cell in cells.items() if cell["type"] == "LUT4"}
    found = defaultdict(list)
    for name, cell in cells.items():
        reset = _net(cell, "LSR")
        if cell["type"] != "TRELLIS_FF" or not isinstance(reset, int):
            continue
        is_paired = _is_paired(packed[name])
        lut = luts.get(_net(cell, "DI")) if is_paired else None
        if is_paired and not lut:
            continue
        x, y = tile(bel(packed[name]))
        enable = (_net(cell, "CE"), cell["parameters"].get("CEMUX"))
        found[reset, cell["parameters"].get("LSRMUX")].append(_Register(name, lut, enable, x, y))
    return found


def _loads(registers: list[_Register]) -> list[list[list[_Register]]]:
    """Registers of one reset as tiles of slices of registers, near ones together."""
    by_enable = defaultdict(list)
    for register in registers:
        by_enable[register.enable].append(register)
    singles = [_parts([[each] for each in group], SLICE_FFS) for group in by_enable.values()]
    slices = [[register for each in part for register in each] for parts in singles for part in parts]
    return _parts(slices, len(TILE_SLICES))


def _parts(groups: list[list[_Register]], size: int) -> list[list[list[_Register]]]:
    """Groups in parts of `size`, by halving along the longer side."""
    if len(groups) <= size:
        return [groups]
    centres = np.array([_centre(group) for group in groups])
    axis = int(np.argmax(np.ptp(centres, axis=0)))
    order = np.argsort(centres[:, axis], kind="stable")
    half = -(-len(groups) // size) // 2 * size
    return [part for side in (order[:half], order[half:]) for part in _parts([groups[i] for i in side], size)]


def _centre(registers: Iterable[_Register]) -> np.ndarray:
    return np.mean([(register.x, register.y) for register in registers], axis=0)


def _assign(loads: list[list[list[_Register]]], packed: Cells) -> list[tuple[int, int]]:
    """A tile for each load: the least sum of distances."""
    logic = {name: tile(bel(cell)) for name, cell in packed.items() if "/SLICE" in bel(cell)}
    chained = {tile for name, tile in logic.items() if packed[name]["parameters"].get("MODE") in CHAINED}
    columns, rows = (sorted({tile[axis] for tile in logic.values()}) for axis in (0, 1))
    tiles = np.array([(x, y) for y in rows for x in columns])
    free = np.array([tile for tile in tiles.tolist() if tuple(tile) not in chained])
    if len(loads) <= len(free):
        tiles = free
    if len(loads) > len(tiles):
        raise ValueError(
            f"registers with a reset need {len(loads)} tiles of logic, of which there are {len(tiles)}: "
            "take a smaller NPU or fewer resets"
        )
    centres = np.array([_centre(register for each in load for register in each) for load in loads])
    distance = np.abs(centres[:, None, :] - tiles[None, :, :]).sum(axis=2)
    _, chosen = linear_sum_assignment(distance)
    return [tuple(tiles[index].tolist()) for index in chosen]
