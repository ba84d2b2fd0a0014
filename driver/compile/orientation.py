"""Tiled schedules of both orientations -> the one that is estimated to take less time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convoy.spec.config import NpuConfig

from .tilings import Tiled
from .weigh import op_cycles

__all__ = ["Oriented", "choose_orientation"]


@dataclass(frozen=True)
class Oriented:
    """The tiled schedule that is taken, and what it is estimated to cost."""

    tiled: Tiled
    cycles: dict[int, float]
    """By operator index."""


def choose_orientation(tilings: Sequence[Tiled], config: NpuConfig) -> Oriented:
    """The first of the cheapest among those without a refusal.

    Raises
    ------
    Refusal
        The last refusal, when there is one in every orientation.
    """
    choices = [
        Oriented(tiled, op_cycles(tiled.schedule, tiled.tilings, config)) for tiled in tilings if tiled.refusal is None
    ]
    if not choices and (refusal := tilings[-1].refusal):
        raise refusal
    return min(choices, key=lambda choice: sum(choice.cycles.values()))
