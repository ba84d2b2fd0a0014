"""`Record`: a bit layout said once, for hardware (an Amaranth layout) and software (encode, decode) alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data

__all__ = ["EncodeError", "Field", "Record"]


class EncodeError(ValueError):
    """A value does not fit the field of a record that it was given for."""


@dataclass(frozen=True)
class Field:
    """One field of a `Record`: `bits` wide, two's complement if `signed`, explained by `doc`."""

    name: str
    bits: int
    doc: str
    signed: bool = False

    @property
    def min(self) -> int:
        """Smallest value."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        """Largest value."""
        return (1 << (self.bits - 1)) - 1 if self.signed else (1 << self.bits) - 1

    @property
    def shape(self) -> Shape:
        """Amaranth shape."""
        return signed(self.bits) if self.signed else unsigned(self.bits)


class Record:
    """Fields packed from bit 0 upwards, in order, into `num_bytes` little-endian bytes; the rest is zero.

    Raises
    ------
    ValueError
        On construction, when the fields are wider than the record or a name comes twice.
    """

    def __init__(self, name: str, num_bytes: int, fields: Iterable[Field]):
        self.name = name
        self.num_bytes = num_bytes
        self.fields: dict[str, Field] = {}
        for field in fields:
            if field.name in self.fields:
                raise ValueError(f"{name}: field {field.name} comes twice")
            self.fields[field.name] = field
        self.num_bits = sum(field.bits for field in self.fields.values())
        if self.num_bits > 8 * num_bytes:
            raise ValueError(f"{name}: {self.num_bits} bits do not fit {num_bytes} bytes")

    @property
    def layout(self) -> data.StructLayout:
        """The fields as an Amaranth layout, `num_bits` wide."""
        return data.StructLayout({field.name: field.shape for field in self.fields.values()})

    def subset(self, *names: str) -> data.StructLayout:
        """An Amaranth layout of some of the fields: what one hardware unit needs of a descriptor."""
        return data.StructLayout({name: self.fields[name].shape for name in names})

    def encode(self, **values: int) -> bytes:
        """The record as bytes; every field must be given.

        Raises
        ------
        EncodeError
            When a field is missing, unknown or out of range.
        """
        if unknown := values.keys() - self.fields.keys():
            raise EncodeError(f"{self.name} has no field {min(unknown)}")
        if missing := self.fields.keys() - values.keys():
            raise EncodeError(f"{self.name}: field {min(missing)} is missing")
        word, lsb = 0, 0
        for name, field in self.fields.items():
            value = int(values[name])
            if not field.min <= value <= field.max:
                raise EncodeError(f"{self.name}.{name} = {value} is outside {field.min}..{field.max}")
            word |= (value & ((1 << field.bits) - 1)) << lsb
            lsb += field.bits
        return word.to_bytes(self.num_bytes, "little")

    def decode(self, raw: bytes) -> dict[str, int]:
        """The fields of `num_bytes` bytes.

        Raises
        ------
        EncodeError
            When `raw` has another length.
        """
        if len(raw) != self.num_bytes:
            raise EncodeError(f"{self.name}: {len(raw)} bytes instead of {self.num_bytes}")
        word = int.from_bytes(raw, "little")
        values = {}
        for name, field in self.fields.items():
            value = word & ((1 << field.bits) - 1)
            word >>= field.bits
            values[name] = value - (1 << field.bits) if field.signed and value >> (field.bits - 1) else value
        return values
