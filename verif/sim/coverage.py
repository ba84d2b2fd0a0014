"""Functional coverage: what the tests exercised, as points and crosses of cocotb-coverage.

Bins are derived from `spec`.

A point is a line in a table below: name, what it is taken from, its bins. `REQUIRED` names the points of which every
bin must be hit by a whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cocotb_coverage.coverage import CoverCross, CoverPoint, coverage_db

from convoy.spec.csr import REGISTERS, Error
from convoy.spec.isa import MAX_RUN_BITS, TP_TWO_OPERANDS, TP_WIDE, Rounding, TpOp

__all__ = [
    "ACCESSES",
    "ERRORS",
    "NN_JOBS",
    "PAUSES",
    "PAUSE_LEVELS",
    "PROGRAMS",
    "REQUIRED",
    "RESETS",
    "TP_BLOCKS",
    "never_hit",
    "read_coverage",
    "required_bins",
    "write_coverage",
]

PAUSE_LEVELS = ("none", "light", "heavy", "bursts")
"""Back-pressure: never; in a tenth of the cycles; in most; long stalls between stretches without."""
CHANNELS = (
    "m_axi.ar",
    "m_axi.r",
    "m_axi.aw",
    "m_axi.w",
    "m_axi.b",
    "s_axil.ar",
    "s_axil.r",
    "s_axil.aw",
    "s_axil.w",
    "s_axil.b",
)
BOOL = (0, 1)
Point = tuple[str, Callable[[Any], Any], Iterable[Any]]
Cross = tuple[str, Sequence[str], Sequence[tuple]]


class Group:
    """Points that take their values from one thing, and crosses of them, with the bins that cannot be.

    `sample` counts a thing. `bins` gives what it would hit, as `group.point: bin`, and counts nothing.
    """

    def __init__(self, name: str, points: Sequence[Point], crosses: Sequence[Cross] = ()):
        self._name, self._points = name, points

        def sample(thing: Any) -> None:
            pass

        items = [CoverPoint(f"{name}.{point}", xf=take, bins=list(bins)) for point, take, bins in points]
        items += [
            CoverCross(f"{name}.{cross}", items=[f"{name}.{point}" for point in members], ign_bins=list(ignored))
            for cross, members, ignored in crosses
        ]
        for item in reversed(
            items
        ):  # the outermost is sampled first, and a cross looks at what its points have just hit
            sample = item(sample)
        self.sample: Callable[[Any], None] = sample

    def bins(self, thing: Any) -> set[str]:
        return {
            f"{self._name}.{point}: {int(value) if isinstance(value, bool) else value}"
            for point, take, _ in self._points
            for value in [take(thing)]
        }


def _field(name: str, bins: Iterable[Any] = BOOL) -> Point:
    return name, lambda fields: fields[name], bins


def _at_most(name: str, label: str, limits: Sequence[int]) -> Point:
    """Ranges of a field: each bin is the largest value in it; the last one is everything above."""
    tops = [f"<={limit}" for limit in limits]
    return (
        label,
        lambda fields: next(
            (top for top, limit in zip(tops, limits, strict=True) if fields[name] <= limit), f">{limits[-1]}"
        ),
        [*tops, f">{limits[-1]}"],
    )


NN_JOBS = Group(
    "nn",
    [
        _field("is_wide"),
        _field("is_depthwise"),
        _field("stride_h_log2"),
        _field("stride_w_log2"),
        _field("has_lut"),
        _field("has_residual"),
        _field("pool_size", (0, 2, 3)),
        ("rounding", lambda d: Rounding(d["rounding"]).name, [rounding.name for rounding in Rounding]),
        _field("run_bits", range(MAX_RUN_BITS + 1)),
        _field("split_log2", range(3)),
        _field("is_flat"),
        _field("load_after_fill"),
        _field("wait_nn"),
        _field("wait_tp"),
        _at_most("num_taps", "taps", (1, 4, 9)),
        _at_most("pad_top", "pad_top", (0, 2)),
        _at_most("pad_left", "pad_left", (0, 2)),
        _at_most("num_groups", "groups", (1,)),
        _at_most("num_sb", "superblocks", (1,)),
        ("weights", lambda d: "uint8" if d["wgt_zero_point"] else "int8", ("int8", "uint8")),
    ],
    [
        ("is_depthwise_x_strides", ("is_depthwise", "stride_h_log2", "stride_w_log2"), ()),
        ("is_wide_x_pool_size", ("is_wide", "pool_size"), ()),
        ("waits", ("wait_nn", "wait_tp"), ()),
    ],
)
"""A decoded NN descriptor."""

_OPS = [op.name for op in TpOp]
_NOT_WIDE = [(op.name, 1) for op in TpOp if op not in TP_WIDE]
TP_BLOCKS = Group(
    "tp",
    [
        ("op", lambda d: TpOp(d["op"]).name, _OPS),
        _field("is_wide"),
        _field("is_high"),
        _field("has_lut"),
        _field("wait_nn"),
        _field("wait_tp"),
        (
            "repeats",
            lambda d: int(
                TpOp(d["op"]) in TP_TWO_OPERANDS and any(d[f"num_{n}"] > 1 and not d[f"b_step_{n}"] for n in range(3))
            ),
            BOOL,
        ),
    ],
    [
        ("op_x_is_wide", ("op", "is_wide"), _NOT_WIDE),
        ("op_x_has_lut", ("op", "has_lut"), ()),
        ("waits", ("wait_nn", "wait_tp"), ()),
    ],
)
"""A decoded TP descriptor."""

PROGRAMS = Group(
    "job",
    [
        (
            "descriptors",
            lambda job: (
                "1" if job["count"] == 1 else "2-4" if job["count"] < 5 else "5-16" if job["count"] < 17 else ">16"
            ),
            ("1", "2-4", "5-16", ">16"),
        ),
        ("parts", lambda job: min(job["parts"], 4), (1, 2, 3, 4)),
        ("engines", lambda job: job["engines"], ("NN", "TP", "NN+TP")),
        ("windows", lambda job: job["windows"], range(5)),
        ("end", lambda job: job["end"], ("interrupt", "polled")),
    ],
    [("engines_x_end", ("engines", "end"), ())],
)
"""A program that ran to its end: count, parts, engines, number of windows, and how the host learned of it."""

ERRORS = Group(
    "error",
    [
        ("code", lambda error: Error(error["code"]).name, [code.name for code in Error]),
        ("response", lambda error: error["resp"], ("none", "SLVERR", "DECERR")),
    ],
    [
        (
            "code_x_response",
            ("code", "response"),
            [
                *(
                    (code.name, resp)
                    for code in Error
                    if code not in (Error.BUS_READ, Error.BUS_WRITE)
                    for resp in ("SLVERR", "DECERR")
                ),
                (Error.BUS_READ.name, "none"),
                (Error.BUS_WRITE.name, "none"),
            ],
        )
    ],
)
"""How a program ended: code, and the response of the bus that led to it."""

RESETS = Group(
    "reset",
    [
        ("kind", lambda reset: reset[0], ("soft", "hard")),
        ("when", lambda reset: reset[1], ("idle", "first third", "second third", "last third")),
    ],
    [("kind_x_when", ("kind", "when"), ())],
)
"""A reset: kind, and how far a program had come."""

PAUSES = Group(
    "pause",
    [("channel", lambda pause: pause[0], CHANNELS), ("level", lambda pause: pause[1], PAUSE_LEVELS)],
    [("channel_x_level", ("channel", "level"), ())],
)
"""The back-pressure that one channel gets while a program runs."""

ACCESSES = Group(
    "register",
    [
        ("name", lambda access: access["name"], [*REGISTERS, "unmapped"]),
        ("kind", lambda access: access["kind"], ("ro", "rw", "wo", "w1c", "unmapped")),
        ("direction", lambda access: access["direction"], ("read", "write")),
        ("strobes", lambda access: access["strobes"], ("all", "some", "read")),
        ("kept", lambda access: access["kept"], ("no", "locked", "held")),
    ],
    [("kind_x_direction", ("kind", "direction"), ()), ("name_x_direction", ("name", "direction"), ())],
)
"""An access to a register; `kept`: why a write had to change nothing."""

REQUIRED = (
    "nn.is_wide",
    "nn.is_depthwise",
    "nn.stride_h_log2",
    "nn.stride_w_log2",
    "nn.has_lut",
    "nn.pool_size",
    "nn.rounding",
    "nn.is_flat",
    "nn.wait_nn",
    "nn.wait_tp",
    "nn.weights",
    "tp.op",
    "tp.is_wide",
    "tp.has_lut",
    "tp.wait_nn",
    "tp.wait_tp",
    "job.parts",
    "job.engines",
    "job.end",
    "error.code",
    "error.response",
    "reset.kind",
    "reset.when",
    "pause.channel",
    "pause.level",
    "register.kind_x_direction",
    "register.kept",
    "register.strobes",
)
"""Points of which a run of all tests must hit every bin."""


def required_bins(group: str) -> set[str]:
    """All bins of the required points of a group that are no crosses, as `Group.bins` names them."""
    return {
        f"{point}: {found}"
        for point in REQUIRED
        if point.startswith(f"{group}.")
        for found in coverage_db[point].detailed_coverage
    }


def never_hit(coverage: dict[str, dict[str, int]]) -> list[str]:
    """Bins of the required points that were not hit, by what `read_coverage` gives."""
    return [
        f"{point}: {found}"
        for point in REQUIRED
        for found, hits in coverage.get(point, {"every bin": 0}).items()
        if not hits
    ]


def write_coverage(folder: Path) -> None:
    """`coverage.xml` and `coverage.yml` of what has been sampled in this process."""
    coverage_db.export_to_xml(str(folder / "coverage.xml"))
    coverage_db.export_to_yaml(str(folder / "coverage.yml"))


def read_coverage(path: Path) -> dict[str, dict[str, int]]:
    """Points and crosses of a `coverage.xml` by name, each with its bins and how often they were hit."""
    points: dict[str, dict[str, int]] = {}
    for group in ElementTree.parse(path).getroot():
        for point in group:
            name = point.get("abs_name", "").removeprefix("top.")
            points[name] = {item.get("bin", ""): int(item.get("hits", 0)) for item in point}
    return points
