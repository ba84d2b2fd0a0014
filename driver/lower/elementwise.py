"""Operators on each element: sums, differences, products, extremes, and tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from convoy.driver.graph.graph import Graph, GraphError, Op, Quant, Tensor
from convoy.spec.isa import ADD_SHIFT, ADD_SHIFT_WIDE, MAX_PRODUCT_SHIFT, MAX_PRODUCT_SHIFT_WIDE, TpOp

from .lut import LUT_KINDS, make_lut, rescale
from .operands import activation, clamp, moved, nhwc, require, require_quant
from .pairs import pair_fields
from .quantise import add_multipliers, power_multipliers, quantise_multiplier
from .work import ElementwiseWork, Lowering, LutWork

__all__ = ["ELEMENTWISE_LOWERINGS", "product_table"]

_OPS = {"ADD": TpOp.ADD, "SUB": TpOp.SUB, "MUL": TpOp.MUL, "MAXIMUM": TpOp.MAXIMUM, "MINIMUM": TpOp.MINIMUM}


def _operand(graph: Graph, index: int) -> Tensor:
    """A tensor of int8 or int16, constant or not; a constant of uint8 is seen as int8, like activations."""
    tensor = graph.tensors[index]
    if tensor.data is not None and tensor.dtype == np.uint8:
        quant = tensor.quant and replace(tensor.quant, zero_point=tensor.quant.zero_point - 128)
        tensor = replace(tensor, dtype=np.dtype(np.int8), quant=quant, data=(tensor.data ^ 0x80).view(np.int8))
    is_wide = tensor.dtype == np.int16
    require(
        is_wide or tensor.dtype == np.int8,
        f"{tensor.name!r} is {tensor.dtype}; the NPU computes on int8, uint8 and int16",
    )
    return tensor


def _lower_elementwise(graph: Graph, op: Op) -> ElementwiseWork | LutWork:
    kind = _OPS[op.kind]
    target, operands = moved(graph, op.outputs[0]), [_operand(graph, index) for index in op.inputs[:2]]
    a, b = operands
    is_wide, num_doubts = target.dtype == np.int16, 0
    for tensor in operands:
        require(
            tensor.dtype == target.dtype,
            f"{tensor.name!r} is {tensor.dtype}, {target.name!r} is {target.dtype}; they should be the same",
        )
    require(a.data is None or b.data is None, "both operands are constant")
    require(
        a.shape == b.shape or max(len(a.shape), len(b.shape)) <= 4,
        f"shapes {a.shape} and {b.shape}: operands of different shapes have at most 4 axes",
    )
    shape, shapes = nhwc(target.shape), (nhwc(a.shape), nhwc(b.shape))
    sizes = np.array(shapes)
    require(
        bool(((sizes == shape) | (sizes == 1)).all() and (sizes.max(axis=0) == shape).all()),
        f"shapes {a.shape} and {b.shape} do not give {target.shape}",
    )
    require(shape[0] == 1, f"batch {shape[0]}: an operand is not the same for each image")
    has_pot_scales = is_wide and op.options.get("has_pot_scales", False)
    require(
        not has_pot_scales or shapes[0] == shapes[1],
        f"shapes {a.shape} and {b.shape}: with pot_scale_int16 operands have one shape",
    )
    if kind in (TpOp.MAXIMUM, TpOp.MINIMUM):
        fields = {"act_min": int(np.iinfo(target.dtype).min), "act_max": int(np.iinfo(target.dtype).max)}
    else:
        for tensor in (a, b, target):
            require_quant(tensor)
        act_min, act_max = clamp(op, target)
        quants = a.quantisation, b.quantisation, target.quantisation
        zero_points = [int(quant.zero_point[0]) for quant in quants]
        fields = {
            "a_zero_point": zero_points[0],
            "b_zero_point": zero_points[1],
            "zero_point_out": zero_points[2],
            "act_min": act_min,
            "act_max": act_max,
        }
        if "pairs" in op.options:
            scales = [float(quant.scale[0]) for quant in quants]
            factors, num_doubts = pair_fields(
                kind,
                op.options["pairs"],
                (scales[0], scales[1], scales[2]),
                (zero_points[0], zero_points[1], zero_points[2]),
            )
        else:
            factors = _factors(kind, *quants, is_wide, has_pot_scales)
        fields |= factors
    for number, tensor in enumerate(operands):
        if tensor.data is not None and tensor.data.size == 1 and not is_wide:
            return LutWork(
                int(np.prod(shape)), _table(kind, fields, int(tensor.data.item()), is_b=number == 1), 1 - number
            )
    a_data, b_data = (
        None if tensor.data is None else tensor.data.reshape(form)
        for tensor, form in zip(operands, shapes, strict=True)
    )
    return ElementwiseWork(kind, shape, shapes, (a_data, b_data), fields, is_wide=is_wide, num_doubts=num_doubts)


def _factors(kind: TpOp, a: Quant, b: Quant, out: Quant, is_wide: bool, has_pot_scales: bool) -> dict[str, int]:
    """Multipliers and shifts of ADD, SUB and MUL."""
    scale_a, scale_b, scale_out = (quant.scale[0] for quant in (a, b, out))
    if kind == TpOp.MUL:
        mult, exponent = quantise_multiplier(float(scale_a * scale_b / scale_out))
        limit = MAX_PRODUCT_SHIFT_WIDE if is_wide else MAX_PRODUCT_SHIFT
        require(exponent <= limit, f"the factor of the product needs a left shift of {exponent}; the limit is {limit}")
        return {"out_mult": mult, "b_shift": max(exponent, 0), "out_shift": max(-exponent, 0)}
    multipliers = add_multipliers(scale_a, scale_b, scale_out, ADD_SHIFT_WIDE if is_wide else ADD_SHIFT)
    if has_pot_scales:
        powers = power_multipliers(scale_a, scale_b, scale_out)
        if powers is None:
            raise GraphError(
                f"scales {scale_a:g}, {scale_b:g} and {scale_out:g}: with pot_scale_int16 they are powers of two, the "
                "largest operand's that of the result, and the smallest not less than its 2^-16"
            )
        multipliers = powers
    fields: dict[str, int] = {}
    for name, (mult, exponent) in zip(("a", "b", "out"), multipliers, strict=True):
        require(
            -31 <= exponent <= 0, f"the factor of {name} needs a shift of {exponent}; factors below 1 are supported"
        )
        fields |= {f"{name}_mult": mult, f"{name}_shift": -exponent}
    return fields


def _table(kind: TpOp, fields: dict[str, int], value: int, *, is_b: bool) -> np.ndarray:
    """The operation with one operand always `value`: int8 (256,), entry `x & 255` for the other operand x."""
    out = fields.get("out_mult", 0), fields.get("b_shift", 0) * (kind == TpOp.MUL) - fields.get("out_shift", 0)

    def scaled(x: int, name: str) -> int:
        return rescale(
            (x - fields[f"{name}_zero_point"]) << ADD_SHIFT, (fields[f"{name}_mult"], -fields[f"{name}_shift"])
        )

    def apply(a: int, b: int) -> int:
        if kind in (TpOp.MAXIMUM, TpOp.MINIMUM):
            return max(a, b) if kind == TpOp.MAXIMUM else min(a, b)
        if kind == TpOp.MUL:
            total = (a - fields["a_zero_point"]) * (b - fields["b_zero_point"])
        else:
            total = scaled(a, "a") + (scaled(b, "b") if kind == TpOp.ADD else -scaled(b, "b"))
        return rescale(total, out) + fields["zero_point_out"]

    inputs = [int(x) for x in np.arange(256, dtype=np.uint8).view(np.int8)]
    results = [apply(x, value) if is_b else apply(value, x) for x in inputs]
    return np.clip(results, fields["act_min"], fields["act_max"]).astype(np.int8)


def _lower_lut(graph: Graph, op: Op) -> LutWork:
    source, target = activation(graph, op.inputs[0]), activation(graph, op.outputs[0])
    return LutWork(int(np.prod(target.shape)), make_lut(op.kind, source.quantisation, target.quantisation, op.options))


def product_table(a: Quant, b: Quant, out: Quant, values: np.ndarray) -> np.ndarray:
    """LiteRT's MUL of 8 bits by `values` (n,), int8 or uint8 like everything: (256, n), row x & 255 for the first
    operand x.
    """
    info = np.iinfo(values.dtype)
    zero_a, zero_b, zero_out = (int(quant.zero_point[0]) for quant in (a, b, out))
    factor = quantise_multiplier(float(a.scale[0] * b.scale[0] / out.scale[0]))
    inputs = np.arange(256, dtype=np.uint8).view(values.dtype)
    products = [[rescale((int(x) - zero_a) * (int(y) - zero_b), factor) + zero_out for y in values] for x in inputs]
    return np.clip(products, info.min, info.max).astype(values.dtype)


def _lower_table(graph: Graph, op: Op) -> LutWork:
    moved(graph, op.inputs[0], is_wide_ok=False)
    target = moved(graph, op.outputs[0], is_wide_ok=False)
    return LutWork(int(np.prod(target.shape)), op.options["table"])


ELEMENTWISE_LOWERINGS: dict[str, Lowering] = {
    **dict.fromkeys(_OPS, _lower_elementwise),
    **dict.fromkeys(LUT_KINDS, _lower_lut),
    "TABLE": _lower_table,
}
"""By kind of operator: (graph, operator) -> work. They raise `GraphError`."""
