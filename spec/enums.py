"""Enumerations with an Amaranth shape: `class Opcode(IntEnum, shape=8)`.

Amaranth's have no types; to a type checker they are the standard library's, which have the same members.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enum import IntEnum, IntFlag
else:
    from amaranth.lib.enum import IntEnum, IntFlag

__all__ = ["IntEnum", "IntFlag"]
