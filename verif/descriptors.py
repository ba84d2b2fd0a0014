"""Small descriptors that keep all rules, to be spoilt by tests."""

from __future__ import annotations

from convoy.spec.isa import NN, NN_AT_LEAST_ONE, TP, TP_AT_LEAST_ONE, Opcode

__all__ = ["smallest_nn", "smallest_tp"]


def smallest_nn(**changes: int) -> bytes:
    """A 1x1 convolution of one pixel, for every configuration; `changes` are not checked."""
    values = dict.fromkeys(NN.fields, 0) | dict.fromkeys(NN_AT_LEAST_ONE, 1)
    values |= {"opcode": Opcode.NN, "phase_mask": 1, "act_min": -128, "act_max": 127, "is_flat": 1}
    return NN.encode(**values | changes)


def smallest_tp(**changes: int) -> bytes:
    """A copy of one byte."""
    values = dict.fromkeys(TP.fields, 0) | dict.fromkeys(TP_AT_LEAST_ONE, 1)
    return TP.encode(**values | {"opcode": Opcode.TP} | changes)
