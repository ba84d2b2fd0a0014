"""Places for the block memories and multipliers of a netlist: where all of its wire is short."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import cg

__all__ = ["EVERYWHERE", "Cells", "bel", "nets_at", "nets_of", "settled", "tile", "top"]

HARD = ("DP16KD", "MULT18X18D")
"""Block memories and multipliers lie in few rows. nextpnr puts them down before the logic around them has its place,
and there they stay.
"""
LOGIC = ("LUT4", "CCU2C", "TRELLIS_COMB", "TRELLIS_FF", "TRELLIS_RAMW", "TRELLIS_DPR16X4")
"""What can go with them."""
TURNS, TRADES = 12, 4
"""Times that the logic goes where it is pulled, and that each kind trades in between."""
HOLD = 0.01
"""How much logic is held by the place that it had, of how much its nets pull it."""
EVERYWHERE = 200
"""A net with more ends is wherever its cells are."""
Cells = dict[str, dict]


def settled(design: dict, placed: dict) -> dict:
    """The netlist with a `BEL` for block memories and multipliers. Changes `design`.

    In turns, those of a kind trade places until all of them take the least wire to the logic, and the logic goes where
    its nets pull it, as if it took no room.

    Parameters
    ----------
    design
        Of Yosys.
    placed
        The same, or the same without resets, as nextpnr placed it, `--write`.
    """
    packed = {name: cell for name, cell in top(placed).items() if bel(cell)}
    names = list(packed)
    wiring = _wiring(packed)
    start = np.array([tile(bel(cell)) for cell in packed.values()], float)
    blocks = [np.array([i for i, name in enumerate(names) if packed[name]["type"] == kind], int) for kind in HARD]
    bels = [np.array([bel(packed[names[i]]) for i in those]) for those in blocks]
    places = start.copy()
    for turn in range(TURNS):
        if turn:
            places = _pulled(wiring, places, start)
        for those, sites in [*zip(blocks, bels, strict=True)] * TRADES:
            if len(those):
                sites[:] = sites[_traded(wiring, places, those)]
                places[those] = [tile(site) for site in sites]
    cells = top(design)
    for those, sites in zip(blocks, bels, strict=True):
        for index, site in zip(those, sites, strict=True):
            cells[names[index]]["attributes"]["BEL"] = str(site)
    return design


def top(design: dict) -> Cells:
    """Cells by name."""
    return design["modules"]["top"]["cells"]


def bel(cell: dict) -> str:
    """Where nextpnr has put a cell."""
    return cell["attributes"].get("NEXTPNR_BEL", "")


def tile(place: str) -> tuple[int, int]:
    """Column and row of a `BEL`."""
    x, y = re.match(r"X(\d+)/Y(\d+)/", place).groups()
    return int(x), int(y)


def nets_at(cell: dict) -> set[int]:
    """Those that a cell is an end of."""
    return {net for nets in cell["connections"].values() for net in nets if isinstance(net, int)}


def nets_of(packed: Cells) -> dict[int, list[str]]:
    """The names of those placed cells that each net joins."""
    ends = defaultdict(list)
    for name, cell in packed.items():
        for net in nets_at(cell) if bel(cell) else ():
            ends[net].append(name)
    return ends


@dataclass(frozen=True)
class _Wiring:
    """Which cells nets join, by their number: the nets' ends one net after the other."""

    cell_of: np.ndarray
    net_of: np.ndarray
    first: np.ndarray
    """The first end of each net."""
    ends_beside: dict[int, list[np.ndarray]]
    """The cells of each net of a block memory or multiplier, without itself."""
    is_loose: np.ndarray
    """Of a cell: it is logic."""


def _wiring(packed: Cells) -> _Wiring:
    numbers = {name: number for number, name in enumerate(packed)}
    nets = [
        np.array([numbers[name] for name in names])
        for names in nets_of(packed).values()
        if 1 < len(names) <= EVERYWHERE
    ]
    sizes = np.array([len(net) for net in nets], int)
    kinds = np.array([cell["type"] for cell in packed.values()])
    beside = defaultdict(list)
    for net in nets:
        for cell in net[np.isin(kinds[net], HARD)]:
            beside[int(cell)].append(net[net != cell])
    return _Wiring(
        np.array([cell for net in nets for cell in net], int),
        np.repeat(np.arange(len(nets)), sizes),
        np.cumsum(sizes) - sizes,
        beside,
        np.isin(kinds, LOGIC),
    )


def _traded(wiring: _Wiring, places: np.ndarray, those: np.ndarray) -> np.ndarray:
    """Whose place each of those takes: the least sum of the half perimeters of their nets."""
    sites = places[those]
    wire = np.zeros((len(those), len(those)))
    for row, block in zip(wire, those, strict=True):
        for others in wiring.ends_beside[int(block)]:
            low, high = places[others].min(axis=0), places[others].max(axis=0)
            row += (np.maximum(high, sites) - np.minimum(low, sites)).sum(axis=1)
    return linear_sum_assignment(wire)[1]


def _pulled(wiring: _Wiring, places: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Where logic is that each net pulls to its middle, by the square of the distance over the net's extent: so that
    what is least is nearly the sum of extents.
    """
    num_cells, num_nets = len(places), len(wiring.first)
    loose = np.concatenate([wiring.is_loose, np.ones(num_nets, bool)])
    result = places.copy()
    for axis in (0, 1):
        ends = places[wiring.cell_of, axis]
        low, high = (extreme.reduceat(ends, wiring.first) for extreme in (np.minimum, np.maximum))
        pull = (1 / (high - low + 2))[wiring.net_of]
        pairs = (pull, (wiring.cell_of, num_cells + wiring.net_of))
        pulls = coo_array(pairs, shape=(num_cells + num_nets,) * 2).tocsr()
        pulls = pulls + pulls.T
        weight = pulls.sum(axis=1)
        hold = np.where(np.arange(len(weight)) < num_cells, HOLD * weight, 0)
        guess = np.concatenate([places[:, axis], (low + high) / 2])
        side = hold[:num_cells] * start[:, axis]
        side = np.concatenate([side, np.zeros(num_nets)]) + pulls @ np.where(loose, 0, guess)
        matrix = diags_array(weight + hold) - pulls
        scale = diags_array(1 / np.maximum(weight + hold, 1e-9)[loose])
        found, _ = cg(matrix[loose][:, loose], side[loose], guess[loose], rtol=1e-5, maxiter=300, M=scale)
        guess[loose] = found
        result[:, axis] = guess[:num_cells]
    return result
