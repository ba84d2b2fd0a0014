"""Where the cycles of a layer went: busy ones, and those lost to each cause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from convoy.driver.plan.macs import LaneMacs
from convoy.spec.config import NpuConfig
from convoy.spec.isa import Cause

__all__ = ["cycle_split", "largest_loss", "no_split", "total_split"]

LOSSES = tuple(cause for cause in Cause if cause != Cause.BUSY)


def cycle_split(core_cycles: Mapping[Cause, int], macs: LaneMacs, config: NpuConfig) -> dict[str, Any]:
    """`busy_cycles`, `edge_cycles` (the part of them that lanes past an edge take) and `lost`, cycles by cause; mean
    over the cores.

    `busy_cycles` and what is lost are together the cycles of the layer, exactly. Cores are busy for less than `macs`
    says where activations that are zero are skipped.
    """
    busy = core_cycles[Cause.BUSY] * config.num_lanes
    edge = (macs.issued - macs.useful) / config.macs_per_cycle * (busy / macs.issued if macs.issued else 0)
    lost = {cause.name.lower(): core_cycles[cause] / config.num_cores for cause in LOSSES}
    return {"busy_cycles": core_cycles[Cause.BUSY] / config.num_cores, "edge_cycles": edge, "lost": lost}


def no_split() -> dict[str, Any]:
    """What takes the place of `cycle_split` on a device without timing."""
    return {"busy_cycles": None, "edge_cycles": None, "lost": None}


def total_split(layers: Iterable[Mapping[str, Any]], cycles: int) -> dict[str, Any]:
    """The sums over `layers` of a report that took `cycles` together with what is between the last completion and
    the interrupt.
    """
    layers = list(layers)
    total = {name: sum(layer[name] for layer in layers) for name in ("busy_cycles", "edge_cycles")}
    lost = {cause.name.lower(): sum(layer["lost"][cause.name.lower()] for layer in layers) for cause in LOSSES}
    lost[Cause.DISPATCH.name.lower()] += cycles - sum(layer["cycles"] for layer in layers)
    return total | {"lost": lost}


def largest_loss(layer: Mapping[str, Any]) -> tuple[str, float] | None:
    """The cause of most lost cycles and its share of the layer's cycles; lanes past an edge are a cause too.

    None when nothing is lost or known.
    """
    if not layer["cycles"] or layer["lost"] is None:
        return None
    name, cycles = max((layer["lost"] | {"edge": layer["edge_cycles"]}).items(), key=lambda item: item[1])
    return (name, cycles / layer["cycles"]) if cycles > 0 else None
