"""Advice as text, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, JustifyMethod

from convoy.driver.bench.contract import RULES
from convoy.driver.report.tables import print_table, short_name

from .advisor import Advice, Advised, Option

__all__ = ["advice_report", "print_advice", "print_applied", "write_advice_page"]

_RETRAIN = "another function: train it again"
_SAME = "keeps the function"


def advice_report(advised: Advised) -> dict[str, Any]:
    """`cycles` of the network, `advice` in order of gain, and `sparsity`: cycles by share of zero weights. An option
    without `gain_cycles` was not tried, and `refusal` says why if it cannot be made.
    """
    return {
        "cycles": advised.cycles,
        "advice": [_entry(one, advised.cycles) for one in advised.advice],
        "sparsity": [
            {"share": share, "cycles": cycles, "gain_cycles": None if cycles is None else advised.cycles - cycles}
            for share, cycles in advised.sparsity.items()
        ],
    }


def _entry(one: Advice, cycles: int) -> dict[str, Any]:
    finding = one.finding
    return {
        "number": finding.number,
        "op": finding.op,
        "name": finding.name,
        "rule": finding.rule or None,
        "title": finding.title,
        "problem": finding.problem,
        "cost_cycles": None if finding.cost is None else round(finding.cost),
        "share": None if finding.cost is None else finding.cost / max(1, cycles),
        "details": finding.details,
        "gain_cycles": one.gain,
        "options": [
            {
                "change": option.change.text,
                "gain_cycles": option.gain,
                "keeps_function": option.change.keeps_function,
                "can_apply": option.change.edit is not None and option.refusal is None,
                "refusal": option.refusal,
            }
            for option in one.options
        ],
    }


def print_advice(advised: Advised, console: Console) -> None:
    """A paragraph for each finding, the largest gain first, and what zero weights are worth."""
    for line in _lines(advised):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    columns: dict[str, JustifyMethod] = {"zero weights": "right", "cycles": "right", "of now": "right"}
    print_table(console, columns, _sparsity_rows(advised))


def _lines(advised: Advised) -> Iterator[str]:
    for rank, one in enumerate(advised.advice, 1):
        finding = one.finding
        rule = f" (rule {finding.rule}: {RULES[finding.rule].title})" if finding.rule else ""
        yield f"{rank}. operator {finding.number} {finding.op} {short_name(finding.name)}: {finding.title}{rule}"
        yield f"   {_problem(one, advised.cycles)}"
        yield from (f"   - {text}" for text in _options(one, advised.cycles))
    if not advised.advice:
        yield "nothing breaks a rule"
    yield f"{advised.cycles:,} cycles as it is (estimated); rule 7, the smallest weights of all layers set to zero:"


def _problem(one: Advice, cycles: int) -> str:
    finding = one.finding
    if finding.cost is None:
        return finding.problem
    share = f", {finding.cost / max(1, cycles):.1%} of the network" if finding.cost else ""
    return f"{finding.problem}; costs {finding.cost:,.0f} cycles{share}"


def _options(one: Advice, cycles: int) -> Iterator[str]:
    """What can be done; what cannot only if there is nothing else."""
    possible = [option for option in one.options if option.refusal is None]
    for option in possible:
        yield f"{option.change.text}{_gain(option, cycles)}"
    if not possible:
        for option in one.options:
            yield f"{option.change.text}: not here: {option.refusal}"


def _gain(option: Option, cycles: int) -> str:
    if option.gain is None:
        return ""
    kind = _SAME if option.change.keeps_function else _RETRAIN
    if option.gain == 0:
        return f": no cycle more or less ({kind})"
    change = "fewer" if option.gain > 0 else "more"
    return f": {abs(option.gain):,} cycles {change}, {abs(option.gain) / max(1, cycles):.1%} ({kind})"


def _sparsity_rows(advised: Advised) -> list[list[str]]:
    return [
        [f"{share:.0%}", "refused" if cycles is None else f"{cycles:,}", _ratio(cycles, advised.cycles)]
        for share, cycles in advised.sparsity.items()
    ]


def _ratio(cycles: int | None, base: int) -> str:
    return "-" if cycles is None else f"{cycles / max(1, base):.1%}"


def print_applied(
    done: Sequence[tuple[Advice, Option]],
    wanted: int,
    before: int,
    after: int,
    measured: tuple[int, int] | None,
    console: Console,
) -> None:
    """What was changed of so many changes that were wanted, and cycles before and after, estimated and measured."""
    for one, option in done:
        kind = _SAME if option.change.keeps_function else f"{_RETRAIN}, its new weights are random"
        finding = one.finding
        console.print(
            f"applied: operator {finding.number} {finding.op} {short_name(finding.name)}: {option.change.text} "
            f"({kind})",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if len(done) < wanted:
        console.print(f"applied: {len(done)} of {wanted}; there are no more changes that can be made", highlight=False)
    console.print(f"estimated: {before:,} cycles before, {after:,} after", highlight=False)
    if measured is not None:
        console.print(f"measured on the RTL: {measured[0]:,} cycles before, {measured[1]:,} after", highlight=False)


def write_advice_page(path: Path, model: str, advised: Advised) -> None:
    """The same as a page; needs the extra `plots`."""
    from convoy.driver.report.html_page import Section, write_page

    rows = [
        (
            finding.number,
            finding.op,
            short_name(finding.name),
            f"{finding.title} (rule {finding.rule})" if finding.rule else finding.title,
            _problem(one, advised.cycles),
            "; ".join(_options(one, advised.cycles)),
        )
        for one in advised.advice
        for finding in (one.finding,)
    ]
    sections = [
        Section(
            "Findings",
            "What breaks a rule of the contract, the largest gain first. Gains are of the whole network, estimated.",
            columns=("#", "op", "name", "finding", "problem", "what to do"),
            rows=rows,
        ),
        Section(
            "Zero weights",
            "Cycles if the smallest weights of all convolutions and fully connected layers are zero.",
            columns=("zero weights", "cycles", "of now"),
            rows=_sparsity_rows(advised),
        ),
    ]
    write_page(path, f"Advice on {Path(model).name}", f"{advised.cycles:,} cycles as it is, estimated.", sections)
