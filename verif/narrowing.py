"""Assignments that drop bits of a value without saying so by `truncate`, `saturate` or a slice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from amaranth.hdl import Elaboratable, Fragment
from amaranth.hdl._ast import Assign, Const, Operator, Switch, SwitchValue

__all__ = ["silent_cuts"]


def silent_cuts(design: Elaboratable, root: Path) -> set[str]:
    """`file:line` of each assignment in a file below `root` whose value has bits that the target has not.

    The carry of a sum or a difference is no such bit: counters and addresses, which count modulo a power of two, have
    no room for it. A target of no bits at all, as a small configuration makes them, is not listed.
    """
    found = set()
    for assignment in _assignments(Fragment.get(design, None)):
        path, line = Path(assignment.src_loc[0]).resolve(), assignment.src_loc[1]
        if 0 < len(assignment.lhs) < _needed_bits(assignment.rhs) and path.is_relative_to(root):
            found.add(f"{path.relative_to(root).as_posix()}:{line}")
    return found


def _assignments(fragment) -> Iterator[Assign]:
    pending = [statement for statements in fragment.statements.values() for statement in statements]
    while pending:
        statement = pending.pop()
        if isinstance(statement, Assign):
            yield statement
        elif isinstance(statement, Switch):
            pending += [inner for _, statements, *_ in statement.cases for inner in statements]
    for inner, *_ in fragment.subfragments:
        yield from _assignments(inner)


def _needed_bits(value) -> int:
    """Bits of a value without carries."""
    if isinstance(value, Const):
        return max(1, value.value.bit_length()) if value.value >= 0 else (~value.value).bit_length() + 1
    if isinstance(value, SwitchValue):
        return max(_needed_bits(case) for _, case in value.cases)
    if isinstance(value, Operator) and value.operator == "&":
        masks = [operand for operand in value.operands if not operand.shape().signed]
        return min(_needed_bits(mask) for mask in masks) if masks else len(value)
    if isinstance(value, Operator) and value.operator in ("<<", ">>") and isinstance(value.operands[1], Const):
        shifted, count = value.operands
        return max(1, _needed_bits(shifted) + (count.value if value.operator == "<<" else -count.value))
    if isinstance(value, Operator) and value.operator in ("+", "-", "|", "^", "~", "u", "s"):
        return max(_needed_bits(operand) for operand in value.operands)
    return len(value)
