"""docs/networks.md and its picture, from the rows of the zoo."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import altair as alt

from convoy.driver.bench.peer import PEER_NAME, peer_version
from convoy.driver.report.markdown import bullets, filled

DOCS = Path(__file__).parents[2] / "docs"
IMAGE = "images/networks.svg"
SOURCES = {
    "keras.applications": "`keras.applications`, written by TensorFlow's converter",
    "keras": "networks in Keras as their authors publish them, made small, written by TensorFlow's converter",
    "litert-torch": "torchvision's and others in PyTorch, written by `litert-torch`",
    "onnxruntime": "the same, written by `torch.onnx` and onnxruntime's static quantiser (QDQ)",
    "files": "files given on the command line",
}
COLUMNS = (
    "network",
    "exact",
    "MACs",
    "on NPU",
    "cycles",
    "estimate / RTL",
    "floor / cycles",
    "U55 / Convoy",
    "compile s",
    "on the CPU",
)
MEANINGS = {
    "exact": "every tensor equals the reference's, run on the RTL (`rtl`) or on the golden model (`golden`)",
    "MACs": "multiply-accumulates as if no weight were zero",
    "on NPU": "share of them that the NPU does",
    "cycles": "of the NPU, layers one behind another; those of the RTL, or the estimate of the timing model",
    "estimate / RTL": "cycles of the timing model over those of the RTL, where that ran",
    "floor / cycles": (
        "a yardstick summed over layers: the larger of MACs with weights that are not zero over the multipliers, and "
        "bytes that must be read or written over the width of the port; above 1 where activations that are zero, or "
        "pads, are skipped too"
    ),
    "U55 / Convoy": (
        "cycles that Arm's compiler Vela estimates for an Ethos-U55 with as many multipliers and the same port, for "
        "what runs on Convoy's NPU, over Convoy's: above 1 Convoy is faster"
    ),
    "compile s": "seconds of processor time",
    "on the CPU": "operators that LiteRT's kernels execute, and how many; reasons are below",
}
SMALL_MACS = 1_000_000
"""Networks of fewer are summed up apart: most of their time is the start of each layer."""
COLOURS = ["#08519c", "#6baed6", "#31a354", "#e08214", "#999999"]


def write_page(rows: Sequence[dict[str, Any]], config: str) -> None:
    """Write both files."""
    ran = [row for row in rows if row.get("bit_exact")]
    _chart(ran).save(DOCS / IMAGE)
    lines = [
        "# Networks that no one tuned",
        "",
        *filled(
            f"{len(rows)} networks with random weights and a random calibration, as real converters write them, and "
            f"what configuration {config} makes of each: {len(ran)} run with every tensor equal to the reference's, "
            f"{sum(row.get('bit_exact') is False for row in rows)} run with another result, "
            f"{sum('bit_exact' in row and row['bit_exact'] is None for row in rows)} with nothing to compare with, "
            f"{sum(bool(row.get('refusal')) and row.get('is_made', True) for row in rows)} are refused; "
            f"{sum(not row.get('is_made', True) for row in rows)} the converters do not write. Cycles of the "
            f"Ethos-U55 are estimates of {PEER_NAME} {peer_version()}, not measurements."
        ),
        "",
        "`make zoo` makes the networks, runs them and writes this page.",
        "",
        f"![How near each network is to its floor]({IMAGE})",
        "",
        *_summary(ran),
        "",
        "Columns:",
        "",
        *bullets(MEANINGS),
        "",
    ]
    for source, meaning in SOURCES.items():
        of_source = [row for row in rows if row["source"] == source]
        if of_source:
            lines += [f"## {source}", "", *filled(f"{meaning[0].upper()}{meaning[1:]}."), "", *_table(of_source), ""]
    lines += [*_host_reasons(ran), *_refusals(rows)]
    (DOCS / "networks.md").write_text("\n".join(lines).rstrip() + "\n")


def _summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Means and lowest ratios, of networks that the NPU has multiplications of."""
    rows = [row for row in rows if row["cycles"] and row["macs"]]
    groups = {
        "all": rows,
        f"of {SMALL_MACS:,} MACs or more": [row for row in rows if row["macs"] >= SMALL_MACS],
        f"of fewer than {SMALL_MACS:,}": [row for row in rows if row["macs"] < SMALL_MACS],
    }
    groups |= {source: [row for row in rows if row["source"] == source] for source in SOURCES}
    lines = [
        "| networks | number | floor / cycles, geometric mean | lowest | U55 / Convoy, geometric mean | lowest |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for group, members in groups.items():
        floors = [row["floor_cycles"] / row["cycles"] for row in members]
        peers = [row["peer_cycles"] / row["cycles"] for row in members if row["peer_cycles"]]
        lines.append(f"| {group} | {len(members)} | {_mean_and_least(floors)} | {_mean_and_least(peers)} |")
    return lines


def _mean_and_least(ratios: Sequence[float]) -> str:
    """Two cells."""
    return f"{geometric_mean(ratios):.2f} | {min(ratios):.2f}" if ratios else "- | -"


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"| {' | '.join(COLUMNS)} |",
        "|---|---|" + "---:|" * (len(COLUMNS) - 3) + "---|",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    if row.get("refusal"):
        return [row["network"], "refused" if row.get("is_made", True) else "not written", *["-"] * (len(COLUMNS) - 2)]
    macs, cycles, number = row["macs"] + row["host_macs"], row["cycles"], Counter[str]()
    for op in row["host_ops"]:
        number[op["op"]] += op["number"]
    device = {"native": "rtl"}.get(row["device"], row["device"])
    return [
        row["network"],
        {True: device, False: "**NO**", None: "no reference"}[row["bit_exact"]],
        f"{macs:,}",
        f"{row['macs'] / macs:.1%}" if macs else "-",
        f"{cycles:,}",
        f"{row['estimated_cycles'] / cycles:.3f}" if cycles and row["device"] == "native" else "-",
        f"{row['floor_cycles'] / cycles:.2f}" if cycles else "-",
        f"{row['peer_cycles'] / cycles:.2f}" if cycles and row["peer_cycles"] else "-",
        f"{row['compile_seconds']:.1f}",
        ", ".join(kind if count == 1 else f"{count} {kind}" for kind, count in number.items()),
    ]


def _host_reasons(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Why operators are on the CPU, each reason once, with the networks that have it."""
    networks: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for row in rows:
        for op in row["host_ops"]:
            networks[op["op"], _general(op["reason"])].add(row["network"])
    ranked = sorted(networks.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        "## What runs on the CPU, and why",
        "",
        "| operator | reason | networks |",
        "|---|---|---:|",
        *(f"| {kind} | {reason} | {len(names)} |" for (kind, reason), names in ranked),
        "",
    ]


def _general(reason: str) -> str:
    """A reason without names of tensors, which converters make hundreds of letters long, and without shapes."""
    text = re.sub(r"'[^']*'(?!s)", "'...'", reason)
    text = re.sub(r"([(\[])\d[\d, ]*([)\]])", r"\1...\2", text)
    return re.sub(r"\b\d+ x \d+ pixels", "N x N pixels", text).replace("|", "\\|")


def _refusals(rows: Sequence[dict[str, Any]]) -> list[str]:
    refused = [row for row in rows if row.get("refusal")]
    if not refused:
        return []
    return [
        "## What does not run",
        "",
        *(line for row in refused for line in filled(f"**{row['source']}/{row['network']}**: {_why(row)}", "- ")),
    ]


def _why(row: dict[str, Any]) -> str:
    also = row.get("reference_refusal")
    return _general(row["refusal"]) + (f" (the reference does not run it either: {_general(also)})" if also else "")


def _chart(rows: Sequence[dict[str, Any]]) -> alt.TopLevelMixin:
    """A bar for each network with cycles: floor over cycles, by source."""
    values = [
        {
            "network": f"{row['network']} ({row['source']})",
            "source": row["source"],
            "share": min(row["floor_cycles"] / row["cycles"], 1),
        }
        for row in rows
        if row["cycles"] and row["macs"]
    ]
    return (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            x=alt.X(
                "share:Q",
                title="floor / cycles: how much of its time a network could not do without",
                axis=alt.Axis(format="%", orient="top"),
                scale=alt.Scale(domain=[0, 1]),
            ),
            y=alt.Y("network:N", title=None, sort="-x", axis=alt.Axis(labelLimit=260)),
            color=alt.Color(
                "source:N",
                title=None,
                sort=list(SOURCES),
                scale=alt.Scale(domain=list(SOURCES), range=COLOURS),
                legend=alt.Legend(orient="top"),
            ),
        )
        .properties(width=560, height=alt.Step(13), padding={"left": 40, "right": 20, "top": 5, "bottom": 5})
    )
