"""What a benchmark measures and how it judges: cases, metrics, measurements, rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from convoy.driver.workload.synthetic import LayerSpec
from convoy.spec.config import NpuConfig

__all__ = ["Case", "Measurement", "Metric", "Row", "Setup", "judge"]


@dataclass(frozen=True)
class Setup:
    """One layer on one NPU: what is simulated, once, however many cases ask for it."""

    layer: LayerSpec
    npu: NpuConfig


@dataclass(frozen=True)
class Measurement:
    """What the RTL did with a setup; all zero when the compiler refused it."""

    cycles: int = 0
    """From doorbell to interrupt."""
    tp_cycles: int = 0
    """Part of them that ended with the completion of a TP descriptor."""
    read_bytes: int = 0
    write_bytes: int = 0
    weight_bytes: int = 0
    """On the memory port; weights are part of what is read."""
    macs: int = 0
    """Dense multiply-accumulates."""
    num_weights: int = 0
    num_nonzero: int = 0
    bit_exact: bool | None = None
    """Every tensor equals LiteRT's; None when nothing ran."""
    engines: str = ""
    """Engine of each operator, as in a report."""
    refusal: str = ""
    """The compiler's error."""

    def utilisation(self, npu: NpuConfig) -> float | None:
        """Dense multiply-accumulates per cycle and multiplier."""
        return self.macs / (self.cycles * npu.macs_per_cycle) if self.cycles else None

    def ideal_cycles(self, npu: NpuConfig) -> float:
        """Cycles with a non-zero weight in every multiplier."""
        return self.macs * self.num_nonzero / self.num_weights / npu.macs_per_cycle


@dataclass(frozen=True)
class Metric:
    """One number out of a measurement and that of its twin."""

    name: str
    value: Callable[[Setup, Measurement, Measurement], float | None]
    """Of the layer, its measurement and its twin's (without a twin, its own again); None when it did not run."""
    style: str
    """Format of the number."""
    is_floor: bool = False
    """The limit is the least legal value; otherwise the largest."""

    def meets(self, value: float, limit: float | None) -> bool:
        """Is the value on the right side of the limit?"""
        return limit is None or (value >= limit if self.is_floor else value <= limit)

    def show(self, value: float) -> str:
        """The number as text."""
        return format(value, self.style)


@dataclass(frozen=True)
class Case:
    """One row of a benchmark before it has been measured."""

    rule: int
    group: str
    """Rows of a group share a plot and a table."""
    name: str
    setup: Setup
    metric: Metric
    limit: float | None = None
    twin: Setup | None = None

    @property
    def setups(self) -> Iterator[Setup]:
        """What has to be simulated."""
        yield self.setup
        if self.twin:
            yield self.twin


@dataclass(frozen=True)
class Row:
    """A case with its measurement and the verdict."""

    case: Case
    found: Measurement
    twin: Measurement | None
    value: float | None
    """None when the layer did not run though it should."""

    @property
    def ok(self) -> bool:
        """The limit is met."""
        return self.value is not None and self.case.metric.meets(self.value, self.case.limit)

    @property
    def is_exact(self) -> bool:
        """Nothing that ran, the twin included, differs from the reference."""
        return self.found.bit_exact is not False and (self.twin is None or self.twin.bit_exact is not False)

    @property
    def value_text(self) -> str:
        """The value as the table shows it."""
        return "-" if self.value is None else self.case.metric.show(self.value)

    @property
    def limit_text(self) -> str:
        """The limit as the table shows it."""
        if self.case.limit is None:
            return ""
        return ("≥ " if self.case.metric.is_floor else "≤ ") + self.case.metric.show(self.case.limit)

    def to_dict(self) -> dict[str, Any]:
        """The row as it stands in the JSON report."""
        case, found, npu = self.case, self.found, self.case.setup.npu
        return {
            "rule": case.rule,
            "group": case.group,
            "name": case.name,
            "config": npu.name,
            "layer": asdict(case.setup.layer),
            **_figures(found),
            "utilisation": found.utilisation(npu),
            "engines": found.engines,
            "twin": {"config": case.twin.npu.name, "layer": asdict(case.twin.layer), **_figures(self.twin)}
            if case.twin and self.twin
            else None,
            "metric": case.metric.name,
            "value": self.value,
            "limit": case.limit,
            "relation": ">=" if case.metric.is_floor else "<=",
            "ok": self.ok,
            "bit_exact": found.bit_exact if self.is_exact else False,
            "refusal": found.refusal or None,
        }


def _figures(found: Measurement) -> dict[str, int | None]:
    names = ("cycles", "tp_cycles", "read_bytes", "write_bytes", "weight_bytes")
    return {name: None if found.refusal else getattr(found, name) for name in names}


def judge(cases: list[Case], measured: Mapping[Setup, Measurement]) -> list[Row]:
    """Rows of the cases, in their order."""
    rows = []
    for case in cases:
        found, twin = measured[case.setup], measured[case.twin] if case.twin else None
        is_complete = case.metric is REFUSED or not (found.refusal or (twin and twin.refusal))
        value = case.metric.value(case.setup, found, twin or found) if is_complete else None
        rows.append(Row(case, found, twin, value))
    return rows


def _least_cycles(setup: Setup, found: Measurement) -> float:
    """What no schedule can beat: every multiplier at work on non-zero weights, or each input, weight and output once
    over the port.
    """
    height, width, num_ic = setup.layer.input_hwc
    out_h, out_w = setup.layer.output_hw
    beats = max(height * width * num_ic + found.num_nonzero, out_h * out_w * setup.layer.num_oc) / setup.npu.port_bytes
    return max(found.ideal_cycles(setup.npu), beats)


CYCLES = Metric("cycles / twin's", lambda setup, found, twin: found.cycles / twin.cycles, ".3f")
EXTRA_CYCLES = Metric("cycles beyond the twin's", lambda setup, found, twin: found.cycles - twin.cycles, ",d")
EXTRA_READ = Metric(
    "bytes read beyond the twin's", lambda setup, found, twin: max(0, found.read_bytes - twin.read_bytes), ",d"
)
TP_SHARE = Metric("cycles waiting for TP", lambda setup, found, twin: found.tp_cycles / found.cycles, ".1%")
UTILISATION = Metric("utilisation", lambda setup, found, twin: found.utilisation(setup.npu), ".1%", is_floor=True)
ROOFLINE = Metric(
    "share of the roofline", lambda setup, found, twin: _least_cycles(setup, found) / found.cycles, ".1%", is_floor=True
)
IDEAL_CYCLES = Metric(
    "ideal cycles / cycles",
    lambda setup, found, twin: found.ideal_cycles(setup.npu) / found.cycles,
    ".1%",
    is_floor=True,
)
FETCHED = Metric(
    "weight bytes / (density x twin's)",
    lambda setup, found, twin: found.weight_bytes * found.num_weights / (found.num_nonzero * twin.weight_bytes),
    ".3f",
)
WRITTEN = Metric("bytes written / twin's", lambda setup, found, twin: found.write_bytes / twin.write_bytes, ".3f")
POOL_FUSED = Metric("pool is fused", lambda setup, found, twin: int("fused" in found.engines), "d", is_floor=True)
POOL_ALONE = Metric("pool is a layer", lambda setup, found, twin: int("fused" not in found.engines), "d", is_floor=True)
SPEEDUP = Metric("twin's cycles / cycles", lambda setup, found, twin: twin.cycles / found.cycles, ".2f", is_floor=True)
REFUSED = Metric("refused by name", lambda setup, found, twin: int(bool(found.refusal)), "d", is_floor=True)
