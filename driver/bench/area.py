"""What a configuration takes on a Lattice ECP5, estimated: a linear model over configurations that were mapped.

`mapped.csv` has their parameters and cells; `make survey` writes it again. Each kind of cell is a sum of terms that
grow with a parameter. The terms' factors are those of least relative squares.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from convoy.spec.config import FEATURES, NpuConfig

__all__ = ["COLUMNS", "Area", "Fit", "area_model", "estimate_area", "fit", "read_mapped"]

MAPPED = Path(__file__).with_name("mapped.csv")
BLOCK_SHAPES = {512: 36, 1024: 18, 2048: 9, 4096: 4, 8192: 2, 16384: 1}
"""Bits of a word of a block memory (DP16KD) by the number of its words."""


def _blocks(num_bits: int, num_words: int) -> int:
    """Block memories of a memory: side by side, of its depth."""
    depth = next((words for words in BLOCK_SHAPES if num_words <= words), max(BLOCK_SHAPES))
    return -(-num_bits // BLOCK_SHAPES[depth]) * -(-num_words // depth)


Terms = dict[str, Callable[[NpuConfig], float]]
LOGIC: Terms = {
    "once": lambda c: 1,
    "lane of all cores": lambda c: c.macs_per_cycle,
    "lane of the drain": lambda c: c.post_lanes,
    "byte of the port": lambda c: c.port_bytes,
    "core": lambda c: c.num_cores,
    "byte of the windows": lambda c: c.macs_per_cycle * c.window_words,
    "lane of a core": lambda c: c.num_lanes,
    "lane of the tensor processor": lambda c: c.tp_lanes,
    "lane of the drain without int16": lambda c: c.post_lanes * (not c.has_int16),
    "lane of the drain without tables": lambda c: c.post_lanes * (not c.has_lut),
    "lane of fused sums left out": lambda c: c.residual_lanes * (not c.has_residual),
    "lane of fused pools left out": lambda c: c.pool_lanes * (not c.has_fused_pool),
    "check of descriptors left out": lambda c: not c.has_descriptor_check,
    "arithmetic of the tensor processor left out": lambda c: not c.tp_has_arithmetic,
    "pools of the tensor processor left out": lambda c: not c.tp_has_pools,
    "resizing of the tensor processor left out": lambda c: not c.tp_has_resize,
}
"""What look-up tables grow with, for each of it; the first ones are used when few configurations were mapped."""
MULTIPLIERS: Terms = {
    "once": lambda c: 1,
    "lane of all cores": lambda c: c.macs_per_cycle,
    "lane of the drain": lambda c: c.post_lanes,
    "lane of a fused sum": lambda c: c.residual_lanes,
    "lane of the tensor processor": lambda c: c.tp_lanes,
    "lane of the drain without int16": lambda c: c.post_lanes * (not c.has_int16),
    "lane of fused sums left out": lambda c: c.residual_lanes * (not c.has_residual),
    "arithmetic of the tensor processor left out": lambda c: not c.tp_has_arithmetic,
}
PORT_QUEUES, TP_BANKS = 7, 8
"""Queues of beats at the port, in blocks; banks of the buffer of the tensor processor, each twice."""


def _memory_blocks(c: NpuConfig) -> int:
    of_core = 2 * _blocks(32 * c.num_lanes, c.num_acc_entries) + _blocks(c.port_bits, c.weight_fifo_beats) + 1
    buffer = 2 * TP_BANKS * _blocks(8, c.tp_buffer_bytes // TP_BANKS)
    lines = _blocks(8, c.pool_max_row_bytes // 2)
    stripes, queues = _blocks(8 * c.num_lanes, c.stripe_words), PORT_QUEUES * _blocks(c.port_bits, 1)
    return c.num_cores * of_core + buffer + lines + stripes + queues


BLOCKS: Terms = {"once": lambda c: 1, "block of a large memory": _memory_blocks}
COLUMNS: dict[str, Terms] = {"LUT4": LOGIC, "sites": LOGIC, "DP16KD": BLOCKS, "MULT18X18D": MULTIPLIERS}
"""The columns that are estimated, and the terms of each."""


@dataclass(frozen=True)
class Fit:
    """A column of the model."""

    factors: dict[str, float]
    """Cells for each of a term."""
    mean_error: float
    max_error: float
    """Of configurations that the fit had not seen: each left out in turn, if the others have its terms too; shares of
    what they take. Not a number if there is no such one.
    """


@dataclass(frozen=True)
class Area:
    """What a configuration takes."""

    lut4: int
    sites: int
    """Sites of look-up tables: one per LUT4, two per carry cell, six per distributed RAM of 16 x 4 bits."""
    block_rams: int
    """Of 16 Kbit (DP16KD)."""
    dsp_blocks: int
    """Multipliers of 18 x 18 bits (MULT18X18D)."""


def read_mapped(text: str) -> list[tuple[NpuConfig, dict[str, int]]]:
    """Configurations and their cells, of a file with a column for each parameter and each kind of cell. Parameters
    without a column have their default.
    """
    rows = list(csv.DictReader(text.splitlines()))
    known = {field.name: isinstance(field.default, bool) for field in fields(NpuConfig) if field.name in rows[0]}
    found = list[tuple[NpuConfig, dict[str, int]]]()
    for row in rows:
        values: dict[str, Any] = {name: int(row[name]) for name in known}
        values |= {name: bool(values[name]) for name, is_bool in known.items() if is_bool}
        found.append((NpuConfig(**values), {name: int(row[name]) for name in COLUMNS}))
    return found


def _design(terms: Terms, configs: list[NpuConfig]) -> np.ndarray:
    return np.array([[term(config) for term in terms.values()] for config in configs], float)


def _solve(terms: Terms, configs: list[NpuConfig], cells: np.ndarray) -> np.ndarray:
    design = _design(terms, configs)
    return np.linalg.lstsq(design / cells[:, None], np.ones(len(cells)))[0]


def _is_told(terms: Terms, config: NpuConfig, others: list[NpuConfig]) -> bool:
    """Whether the others tell what this one takes: it has no term that is new beside theirs."""
    design = _design(terms, [*others, config])
    design /= np.maximum(np.abs(design).max(axis=0), 1)
    return np.linalg.matrix_rank(design[:-1]) == np.linalg.matrix_rank(design)


def _value(terms: Terms, factors: np.ndarray, config: NpuConfig) -> float:
    return float(sum(factor * term(config) for factor, term in zip(factors, terms.values(), strict=True)))


def fit(terms: Terms, configs: list[NpuConfig], cells: list[int]) -> Fit:
    """The factors of least relative squares, and the errors of those left out.

    There are more configurations than terms: the first terms are used, the others are 0.
    """
    terms = dict(list(terms.items())[: max(1, len(configs) - 1)])
    seen = np.array(cells, float)
    errors = []
    for index, config in enumerate(configs):
        others = configs[:index] + configs[index + 1 :]
        if not _is_told(terms, config, others):
            continue
        factors = _solve(terms, others, np.delete(seen, index))
        errors.append(abs(_value(terms, factors, config) / seen[index] - 1))
    factors = _solve(terms, configs, seen)
    named = dict(zip(terms, map(float, factors), strict=True))
    return Fit(named, float(np.mean(errors)) if errors else np.nan, max(errors, default=np.nan))


@cache
def area_model() -> dict[str, Fit]:
    """The model, by column."""
    mapped = read_mapped(MAPPED.read_text())
    configs = [config for config, _ in mapped]
    return {name: fit(terms, configs, [cells[name] for _, cells in mapped]) for name, terms in COLUMNS.items()}


def estimate_area(config: NpuConfig) -> Area | None:
    """What a configuration takes, whole numbers; None if it lacks a unit that all mapped ones have."""
    mapped = [known for known, _ in read_mapped(MAPPED.read_text())]
    if any(all(getattr(known, name) for known in mapped) and not getattr(config, name) for name in FEATURES):
        return None
    values = []
    for name, found in area_model().items():
        terms = COLUMNS[name]
        values.append(max(0, round(sum(factor * terms[term](config) for term, factor in found.factors.items()))))
    return Area(*values)
