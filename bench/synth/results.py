"""What `make synth` has found: a file for each configuration in `bench/synth/results`, kept with the sources.

A run adds to what is known of the same hardware: one without placements or without the other technologies keeps those
of the run before. Of other hardware nothing is kept.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from by_unit import Row
from tools import Placement, harnessed, placing

from convoy.hw.npu import Npu
from convoy.spec.config import ALL_PRESETS, NpuConfig

__all__ = ["RESULTS", "Result", "hardware_of", "keep", "known"]

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Result:
    """What is known of one configuration."""

    config: dict[str, int | bool]
    hardware: str
    """Names the RTL, all of it."""
    memory_bits: int
    whole: dict[str, float]
    """Figures of the whole NPU on an ECP5."""
    placements: list[Placement] = field(default_factory=list)
    """Of each seed, from 1."""
    placing: str = ""
    """How they were placed (`tools.placing`)."""
    constraint_mhz: int = 0
    cycles: dict[str, int] = field(default_factory=dict)
    """Of an inference, by network."""
    units: dict[str, list[Row]] = field(default_factory=dict)
    """Units mapped alone, by technology."""
    alone_mhz: dict[str, float] = field(default_factory=dict)
    """Of units placed alone on an ECP5."""

    @property
    def macs(self) -> int:
        """Multipliers of the cores."""
        return NpuConfig(**self.config).macs_per_cycle

    @classmethod
    def of_json(cls, values: dict) -> "Result":
        """Of what `dataclasses.asdict` made."""
        units = {name: [Row(**row) for row in rows] for name, rows in values["units"].items()}
        placements = [Placement(**each) for each in values["placements"]]
        return cls(**values | {"units": units, "placements": placements})

    @property
    def fmax_mhz(self) -> list[float]:
        """Of the placements that are routed."""
        return [each.mhz for each in self.placements if each.is_routed]

    @property
    def is_current(self) -> bool:
        """The RTL is still that."""
        return self.hardware == hardware_of(NpuConfig(**self.config))

    @property
    def is_placed_so(self) -> bool:
        """It would be placed the same way today."""
        return self.placing == placing(int(self.whole["FF"]))

    def added_to(self, before: "Result") -> "Result":
        """This, with what an earlier run has found of the same hardware besides."""
        if self.hardware != before.hardware:
            return self
        is_less = self._num_placed() < before._num_placed()
        seen = before if is_less and self.placing in ("", before.placing) else self
        return replace(
            self,
            placements=seen.placements,
            placing=seen.placing,
            constraint_mhz=seen.constraint_mhz,
            cycles=before.cycles | self.cycles,
            units=before.units | self.units,
            alone_mhz=before.alone_mhz | self.alone_mhz,
        )

    def _num_placed(self) -> tuple[int, int]:
        return len(self.fmax_mhz), len(self.placements)


@cache
def hardware_of(config: NpuConfig) -> str:
    """A name for the RTL of a configuration: its hash."""
    return hashlib.sha256(harnessed(Npu(config)).encode()).hexdigest()[:12]


def known(folder: Path = RESULTS) -> dict[str, Result]:
    """All results by the configuration's name, presets first."""
    found = {path.stem: Result.of_json(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))}
    names = [name for name in ALL_PRESETS if name in found]
    return {name: found[name] for name in [*names, *(name for name in found if name not in names)]}


def keep(name: str, result: Result, folder: Path = RESULTS) -> None:
    """Write a result, with what is known of the same hardware besides."""
    folder.mkdir(exist_ok=True)
    if before := known(folder).get(name):
        result = result.added_to(before)
    (folder / f"{name}.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
