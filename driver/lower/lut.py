"""Unary int8 operators as tables: the 256 outputs that LiteRT's reference kernels (BUILTIN_REF) give for the 256
inputs.

| operator | arithmetic of the reference kernel, found by experiment |
|---|---|
| `LOGISTIC`, `TANH`, `ELU`, `GELU` | float32 of each dequantised input, times 1 / output scale, half away from zero |
| `HARD_SWISH` | 16-bit fixed point: saturating rounding products, the last one truncated; factor at most 1 |
| `LEAKY_RELU` | double rounding, one multiplier for positive, one for negative inputs; float32 factors |
| `RELU`, `RELU6`, `RELU_N1_TO_1` | double rounding by a factor in float32, then the clamp |
| `QUANTIZE` | double rounding by a factor in float64 |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from convoy.driver.graph.graph import GraphError, Quant

from .quantise import activation_range, quantise_multiplier

__all__ = ["LUT_KINDS", "make_lut", "rescale"]

_MAX_INT32 = (1 << 31) - 1
_INT16 = -(1 << 15), (1 << 15) - 1
_Function = Callable[[int], int]
"""From an input less its zero point to an output less its own."""


def make_lut(kind: str, source: Quant, target: Quant, options: dict[str, Any]) -> np.ndarray:
    """The table of an operator of `LUT_KINDS`: int8 (256,), entry `x & 255` for the input x.

    Parameters
    ----------
    source, target : one scale and zero point each
    options : the operator's, as in `Op.options`

    Raises
    ------
    GraphError
        When the reference kernel refuses these scales, or the slope of a `LEAKY_RELU` is negative.
    """
    function = _FUNCTIONS[kind](np.float32(source.scale[0]), np.float32(target.scale[0]), options)
    zero_in, zero_out = int(source.zero_point[0]), int(target.zero_point[0])
    low, high = activation_range(kind, target, np.dtype(np.int8)) if kind.startswith("RELU") else (-128, 127)
    inputs = np.arange(256, dtype=np.uint8).view(np.int8)
    values = np.array([function(int(x) - zero_in) for x in inputs], np.int64)
    return np.clip(values + zero_out, low, high).astype(np.int8)


# Float32


def _from_float(function: Callable[[np.float32], np.float32], scale_in: np.float32, scale_out: np.float32) -> _Function:
    inverse = np.float32(1) / scale_out

    def apply(x: int) -> int:
        with np.errstate(over="ignore"):
            value = float(function(scale_in * np.float32(x)) * inverse)
        if not abs(value) < _MAX_INT32:
            raise GraphError(f"scales {scale_in:g} and {scale_out:g}: outputs of {value:g} exceed 32 bits")
        return int(math.copysign(math.floor(abs(value) + 0.5), value))

    return apply


def _logistic(scale_in: np.float32, scale_out: np.float32, options: dict[str, Any]) -> _Function:
    return _from_float(
        lambda x: np.float32(1) / (np.float32(1) + np.float32(math.exp(min(-float(x), 88.0)))), scale_in, scale_out
    )


def _tanh(scale_in: np.float32, scale_out: np.float32, options: dict[str, Any]) -> _Function:
    return _from_float(lambda x: np.float32(math.tanh(x)), scale_in, scale_out)


def _elu(scale_in: np.float32, scale_out: np.float32, options: dict[str, Any]) -> _Function:
    return _from_float(lambda x: np.float32(math.expm1(x)) if x < 0 else x, scale_in, scale_out)


def _gelu(scale_in: np.float32, scale_out: np.float32, options: dict[str, Any]) -> _Function:
    def exact(x: np.float32) -> np.float32:
        return np.float32(0.5) * x * np.float32(math.erfc(-x * np.float32(math.sqrt(0.5))))

    def approximate(x: np.float32) -> np.float32:
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        return np.float32(0.5) * x * (np.float32(1) + np.float32(math.tanh(inner)))

    return _from_float(approximate if options.get("approximate", False) else exact, scale_in, scale_out)


# Double rounding


def _divide(x: int, shift: int) -> int:
    """Half away from zero."""
    return (x + (1 << (shift - 1)) - (x < 0)) >> shift if shift else x


def rescale(x: int, factor: tuple[int, int]) -> int:
    """`x` times a factor as from `quantise_multiplier`, by double rounding. The left shift wraps to 32 bits."""
    mult, exponent = factor
    shifted = ((x << max(exponent, 0)) + (1 << 31)) % (1 << 32) - (1 << 31)
    return _divide((shifted * mult + (1 << 30)) >> 31, max(-exponent, 0))


def _factor(real: float) -> tuple[int, int]:
    """`quantise_multiplier` of a factor by which 32 bits can be shifted.

    Raises
    ------
    GraphError
        When the factor is 2**30 or more: the reference kernels shift everything out.
    """
    if not real < 1 << 30:
        raise GraphError(f"the input scale is {real:g} times the output scale; the limit is 2^30")
    return quantise_multiplier(real)


def _quantize(scale_in: np.float32, scale_out: np.float32, options: dict[str, Any]) -> _Function:
    factor = _factor(float(scale_in) / float(scale_out))
    return lambda x: rescale(x, factor)


def _ratio(scale_in: np.float32, scale_out: np.float32) -> float:
    """In float32; infinite when it is too large."""
    with np.errstate(over="ignore"):
        return float(scale_in / scale_out)


def _relu(scale_in: np.float32, scale_out: np.float32, options: dict[str, Any]) -> _Function:
    factor = _factor(_ratio(scale_in, scale_out))
    return lambda x: rescale(x, factor)


def _leaky_relu(scale_in: np.float32, scale_out: np.float32, options: dict[str, Any]) -> _Function:
    if options["alpha"] < 0:
        raise GraphError(f"alpha = {options['alpha']:g}: only LEAKY_RELU with alpha of at least 0 is supported")
    positive = _factor(_ratio(scale_in, scale_out))
    negative = _factor(_ratio(scale_in * np.float32(options["alpha"]), scale_out))
    return lambda x: rescale(x, positive if x >= 0 else negative)


# Fixed point of 16 bits


def _saturate(x: int) -> int:
    return min(max(x, _INT16[0]), _INT16[1])


def _high_mul(a: int, b: int) -> int:
    """Doubled, rounded, the upper 16 bits."""
    return _saturate((a * b + (1 << 14)) >> 15)


def _divide_16(x: int, shift: int) -> int:
    """`_divide` with a mask of 16 bits, which a shift of 16 or more overflows: then it is the sign."""
    return _divide(x, shift) if shift < 16 else (1 if x >= 0 else -1)


def _factor_16(real: np.float32) -> tuple[int, int]:
    mult, exponent = quantise_multiplier(float(real))
    return min((mult + (1 << 15)) >> 16, _INT16[1]), exponent


def _hard_swish(scale_in: np.float32, scale_out: np.float32, options: dict[str, Any]) -> _Function:
    fine_scale = np.float32(1 / 128) * scale_in
    out_mult, out_exponent = _factor_16(fine_scale / scale_out)
    gate_mult, gate_exponent = _factor_16(fine_scale / np.float32(3 / 32768))
    if out_exponent > 0:
        raise GraphError(
            f"scales {scale_in} and {scale_out}: HARD_SWISH needs an output scale of more than 1/128 of the input scale"
        )

    def apply(x: int) -> int:
        fine = x << 7
        gate = _saturate(fine << max(gate_exponent - 1, 0))
        gate = _saturate(_high_mul(gate, gate_mult) << int(gate_exponent > 0))
        gate = (_divide_16(gate, max(-gate_exponent, 0)) + (1 << 15)) >> 1
        product = gate * _high_mul(fine, out_mult)
        return _divide_16(product >> 15 if product >= 0 else -(-product >> 15), -out_exponent)

    return apply


_FUNCTIONS: dict[str, Callable[[np.float32, np.float32, dict[str, Any]], _Function]] = {
    "LOGISTIC": _logistic,
    "TANH": _tanh,
    "HARD_SWISH": _hard_swish,
    "LEAKY_RELU": _leaky_relu,
    "ELU": _elu,
    "GELU": _gelu,
    "QUANTIZE": _quantize,
    "RELU": _relu,
    "RELU6": _relu,
    "RELU_N1_TO_1": _relu,
}

LUT_KINDS = frozenset(_FUNCTIONS)
"""Operators that `make_lut` knows."""
