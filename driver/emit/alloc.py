"""Addresses: buffers that are not alive at the same time share memory; constants follow one another."""

from __future__ import annotations

from collections.abc import Sequence

from convoy.driver.plan.schedule import Buffer
from convoy.spec.isa import TABLE_ALIGN_BYTES

__all__ = ["Arena", "align", "place_buffers"]


def align(addr: int, alignment: int = TABLE_ALIGN_BYTES) -> int:
    """The next multiple of `alignment`."""
    return -(-addr // alignment) * alignment


def place_buffers(buffers: Sequence[Buffer], *, keep_all: bool) -> tuple[list[int], int]:
    """Addresses of the buffers from 0, and the bytes used; the largest are placed first, each at the lowest free
    address.

    With `keep_all` no two buffers share memory. Parts lie in the buffer that they are a part of, which has to be alive
    as long as they are.
    """
    addrs = [0] * len(buffers)
    placed: list[int] = []
    for index in sorted(
        (i for i, buffer in enumerate(buffers) if buffer.parent is None), key=lambda i: (-buffers[i].num_bytes, i)
    ):
        buffer, addr = buffers[index], 0
        rivals = [
            i for i in placed if keep_all or (buffers[i].first <= buffer.last and buffer.first <= buffers[i].last)
        ]
        for rival in sorted(rivals, key=lambda i: addrs[i]):
            if addr + buffer.num_bytes <= addrs[rival]:
                break
            addr = max(addr, align(addrs[rival] + buffers[rival].num_bytes))
        addrs[index] = addr
        placed.append(index)
    for index, buffer in enumerate(buffers):
        while buffer.parent is not None:
            addrs[index] += buffer.offset
            if buffers[buffer.parent].parent is None:
                addrs[index] += addrs[buffer.parent]
            buffer = buffers[buffer.parent]
    return addrs, align(max((addrs[i] + buffers[i].num_bytes for i in placed), default=0))


class Arena:
    """Constant memory handed out upwards from `start`; what was put there is in `pieces`."""

    def __init__(self, start: int):
        self.end = align(start)
        self.pieces: list[tuple[int, bytes]] = []

    def reserve(self, num_bytes: int, alignment: int = TABLE_ALIGN_BYTES) -> int:
        """Address of `num_bytes` of its own."""
        addr = align(self.end, alignment)
        self.end = align(addr + num_bytes)
        return addr

    def put(self, data: bytes, alignment: int = TABLE_ALIGN_BYTES) -> int:
        """Address of `data`."""
        addr = self.reserve(len(data), alignment)
        self.pieces.append((addr, data))
        return addr
