"""Programs for memory that does not begin at address 0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from convoy.driver.graph.graph import GraphError
from convoy.spec.config import PAGE_BYTES
from convoy.spec.isa import NN, TP, Opcode
from convoy.spec.record import Record

from .program import HostStep, MemoryWindow, Placement, Plan, Program

__all__ = ["ADDRESS_SPACE_BYTES", "DESCRIPTORS", "address_fields", "lsb", "relocated", "with_addresses"]

DESCRIPTORS: dict[int, Record] = {Opcode.NN: NN, Opcode.TP: TP}
"""By opcode."""
ADDRESS_SPACE_BYTES = 1 << 32
"""What the addresses of descriptors reach."""


def address_fields(record: Record) -> list[str]:
    """The fields of a descriptor that hold an address, whether it is used or not."""
    return [name for name in record.fields if name.endswith("_addr")]


def lsb(record: Record, name: str) -> int:
    """The bit of a record from which on a field lies."""
    names = list(record.fields)
    return sum(record.fields[each].bits for each in names[: names.index(name)])


def with_addresses(descriptor: bytes, move: Callable[[int], int]) -> bytes:
    """A descriptor with every address replaced by what `move` makes of it."""
    record = DESCRIPTORS[descriptor[0]]
    values = record.decode(descriptor)
    return record.encode(**values | {name: move(values[name]) for name in address_fields(record)})


def relocated(plan: Plan, base: int) -> Plan:
    """A plan that uses memory from address `base` on instead of 0.

    Raises
    ------
    GraphError
        When `base` is no multiple of `PAGE_BYTES`, at which bursts are cut as at address 0, or the memory does not end
        below `ADDRESS_SPACE_BYTES`.
    """
    if base % PAGE_BYTES:
        raise GraphError(f"base {base:#x}: give a multiple of {PAGE_BYTES}, such as {base & -PAGE_BYTES:#x}")
    if base + plan.memory_bytes >= ADDRESS_SPACE_BYTES:
        most = (ADDRESS_SPACE_BYTES - 1 - plan.memory_bytes) & -PAGE_BYTES
        raise GraphError(
            f"base {base:#x}: {plan.memory_bytes:,} bytes of memory do not end below 4 GiB; give at most {most:#x}"
        )

    def place(placement: Placement) -> Placement:
        return replace(placement, addr=placement.addr + base)

    return replace(
        plan,
        steps=tuple(
            step if isinstance(step, HostStep) else replace(step, program=_moved(step.program, base))
            for step in plan.steps
        ),
        placements={index: place(placement) for index, placement in plan.placements.items()},
        keeps=tuple(replace(keep, placement=place(keep.placement)) for keep in plan.keeps),
        base=plan.base + base,
    )


def _moved(program: Program, base: int) -> Program:
    descriptors = tuple(with_addresses(each, lambda addr: addr + base) for each in program.descriptors)
    image = [(addr + base, data) for addr, data in program.image]
    if image:
        image[-1] = program.program_addr + base, b"".join(descriptors)
    return replace(
        program,
        descriptors=descriptors,
        program_addr=program.program_addr + base,
        record_addr=program.record_addr + base,
        image=tuple(image),
        windows=tuple(
            MemoryWindow(window.base + base, window.limit + base, window.is_readable, window.is_writable)
            for window in program.windows
        ),
        streams={addr + base: streams for addr, streams in program.streams.items()},
    )
