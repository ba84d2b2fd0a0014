"""Nodes of ONNX on bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from convoy.driver.ort.runtime import onnx_package
from convoy.driver.ort.unit import OnnxUnit, Port, to_image

from .graph import Quant
from .onnx_builder import TABLE_NAMES, Handler, Node, OnnxBuilder, is_same_quant, suits
from .onnx_layers import convolution, emit_average, scaled, turned, weights_constant
from .onnx_moves import MOVES, axis_in_graph, emit_over_image

__all__ = ["HANDLERS"]


def _qlinear_conv(builder: OnnxBuilder, node: Node) -> None:
    x, w, bias = node.inputs[0], node.inputs[3], node.name(8)
    source, target = builder.quants(node, 1, 6)
    quant = builder.channel_quant(node, 4)
    suits(builder.is_byte(x) and w in builder.constants and (not bias or bias in builder.constants))
    suits(not node.attrs.get("channels_last", 0))
    kind, options, weights, quant = convolution(node, builder.values[x][0], builder.constants[w], quant)
    inputs = [builder.act(x, True, source), weights_constant(builder, w, quant, weights)]
    if bias:
        inputs.append(builder.constant(bias, builder.constants[bias].reshape(-1)))
    builder.emit(kind, [node], inputs, [builder.new(node.outputs[0], True, target)], **options)


def _qlinear_binary(builder: OnnxBuilder, node: Node) -> None:
    names = node.inputs[0], node.inputs[3]
    quants = builder.quants(node, 1, 4, 6)
    acts = {name: quant for name, quant in zip(names, quants, strict=False) if name not in builder.constants}
    if len(acts) == 1 and all(builder.constants[name].size == 1 for name in names if name in builder.constants):
        _qlinear_function(builder, node, *next(iter(acts.items())), quants[2])
        return
    suits(bool(acts) and names[0] != names[1])
    rank = len(builder.values[node.outputs[0]][0])
    ranks = [builder.values[name][0] for name in names if name not in builder.constants]
    is_image = rank in (3, 4) and any(builder.is_image(name) for name in names) and all(len(r) == rank for r in ranks)
    inputs = [_operand(builder, name, quant, is_image, rank) for name, quant in zip(names, quants, strict=False)]
    outputs = [builder.new(node.outputs[0], is_image, quants[2])]
    kind = {"ms.QLinearAdd": "ADD", "ms.QLinearMul": "MUL"}[node.kind]
    unit = builder.unit([node], inputs, outputs)
    builder.add(kind, inputs, outputs, {"activation": "NONE", "pairs": _pairs(builder, unit, names)}, unit)


def _operand(builder: OnnxBuilder, name: str, quant: Quant, is_image: bool, rank: int) -> int:
    """An operand of an elementwise operator, constant or not."""
    if name not in builder.constants:
        return builder.act(name, is_image, quant)
    values = builder.constants[name]
    if is_image and values.ndim:
        values = to_image(values.reshape((1,) * (rank - values.ndim) + values.shape))
    return builder.constant(name, values, quant)


def _qlinear_function(builder: OnnxBuilder, node: Node, name: str, source: Quant, target: Quant) -> None:
    """An operator on an activation and a constant of one element, or on an activation twice."""
    output = node.outputs[0]
    suits(builder.is_byte(name) and builder.values[name][0] == builder.values[output][0])
    builder.emit_table("TABLE", [node], (name, source), (output, target))


def _pairs(builder: OnnxBuilder, unit: OnnxUnit, names: tuple[str, str]) -> np.ndarray:
    """All results of an operator on two tensors, of which one may be constant or both the same."""
    ports = []
    for place, name in enumerate(names):
        dtype = builder.constants[name].dtype if name in builder.constants else builder.values[name][1]
        ports.append(Port(name, place, (), dtype, False))
    constants = {name: values for name, values in unit.constants.items() if name not in names}
    return replace(unit, constants=constants, inputs=tuple(ports)).pairs()


def _qlinear_unary(builder: OnnxBuilder, node: Node) -> None:
    x, (source, target) = node.inputs[0], builder.quants(node, 1, 3)
    suits(builder.is_byte(x))
    kind = TABLE_NAMES.get(node.kind.removeprefix("ms.QLinear"), "TABLE")
    builder.emit_table(kind, [node], (x, source), (node.outputs[0], target))


def _global_average_pool(builder: OnnxBuilder, node: Node) -> None:
    x, (source, target) = node.inputs[0], builder.quants(node, 1, 3)
    suits(len(builder.values[x][0]) in (3, 4) and not node.attrs.get("channels_last", 0))
    emit_over_image(builder, "MEAN", [node], (x, source), (node.outputs[0], target))


def _average_pool(builder: OnnxBuilder, node: Node) -> None:
    x, (source, target) = node.inputs[0], builder.quants(node, 1, 3)
    suits(builder.is_byte(x) and len(builder.values[x][0]) in (3, 4) and not node.attrs.get("channels_last", 0))
    emit_average(builder, [node], node, (x, source), (node.outputs[0], target))


def _qgemm(builder: OnnxBuilder, node: Node) -> None:
    bias, alpha = node.name(6), node.attrs.get("alpha", 1.0)
    suits(alpha > 0 and (not bias or bias in builder.constants))
    if node.attrs.get("transA", 0):
        (node,) = turned(builder, [node], node.inputs[0], builder.quants(node, 1)[0])
    _fully_connected(builder, node, 7, bias, is_transposed=bool(node.attrs.get("transB", 0)), alpha=alpha)


def _qlinear_matmul(builder: OnnxBuilder, node: Node) -> None:
    _fully_connected(builder, node, 6, "", is_transposed=False)


def _fully_connected(
    builder: OnnxBuilder, node: Node, place: int, bias: str, *, is_transposed: bool, alpha: float = 1.0
) -> None:
    """`place` is that of the output's scale; `alpha` is a factor of the product."""
    a, b = node.inputs[0], node.inputs[3]
    source, target = builder.quants(node, 1, place)
    quant = builder.channel_quant(node, 4)
    suits(builder.is_byte(a) and b in builder.constants and builder.constants[b].ndim == 2)
    weights = builder.constants[b] if is_transposed else builder.constants[b].T
    inputs = [
        builder.act(a, False, scaled(source, alpha)),
        weights_constant(builder, b, replace(quant, axis=0), weights),
    ]
    if bias:
        shape = builder.constants[bias].shape
        suits(shape[-1:] in ((), (1,), weights.shape[:1]) and all(size == 1 for size in shape[:-1]))
        values = np.broadcast_to(builder.constants[bias].reshape(-1), weights.shape[:1])
        inputs.append(builder.constant(bias, np.ascontiguousarray(values)))
    outputs = [builder.new(node.outputs[0], False, target)]
    builder.emit("FULLY_CONNECTED", [node], inputs, outputs, activation="NONE", keep_num_dims=True)


def _concat(builder: OnnxBuilder, node: Node) -> None:
    """Bytes of one quantisation."""
    _join(builder, node, node.inputs, [None] * len(node.inputs), None)


def _qlinear_concat(builder: OnnxBuilder, node: Node) -> None:
    target = builder.quants(node, 0)[0]
    names, quants = node.inputs[2::3], builder.quants(node, *range(3, len(node.inputs), 3))
    made = []
    for place, (name, quant) in enumerate(zip(names, quants, strict=True)):
        is_same = is_same_quant(quant, target)
        if name in builder.constants or is_same:
            suits(is_same)
            made.append(name)
            continue
        output = f"{node.outputs[0]} (part {place})"
        builder.values[output] = builder.values[name]
        alone = node.changed((*node.inputs[:2], *node.inputs[2 + 3 * place : 5 + 3 * place]), (output,))
        is_image = builder.form(name)
        inputs, outputs = [builder.act(name, is_image, quant)], [builder.new(output, is_image, target)]
        unit = builder.unit([alone], inputs, outputs)
        flat = replace(unit, nodes=(alone.renamed({}, axis=0).raw,))
        builder.add("QUANTIZE", inputs, outputs, {"table": flat.table()}, unit)
        made.append(output)
    plain = onnx_package().helper.make_node("Concat", made, [node.outputs[0]], axis=node.attrs["axis"])
    joined = Node("Concat", tuple(made), node.outputs, {"axis": node.attrs["axis"]}, plain.SerializeToString())
    _join(builder, joined, made, [target] * len(made), target)


def _join(
    builder: OnnxBuilder, node: Node, names: Sequence[str], quants: Sequence[Quant | None], target: Quant | None
) -> None:
    acts = [name for name in names if name not in builder.constants]
    suits(len(acts) == len(names))
    forms = [builder.form(name) for name in acts]
    rank = len(builder.values[acts[0]][0])
    is_image = rank in (3, 4) and any(forms)
    inputs = [builder.act(name, is_image, quant) for name, quant in zip(names, quants, strict=True)]
    found = target or builder.tensors[inputs[0]].quant
    outputs = [builder.new(node.outputs[0], is_image, found)]
    axis = axis_in_graph(node.attrs["axis"], rank, is_image)
    builder.emit("CONCATENATION", [node], inputs, outputs, axis=axis, activation="NONE")


HANDLERS: dict[str, Handler] = {
    "QLinearConv": _qlinear_conv,
    "ms.QLinearConv": _qlinear_conv,
    "ms.QLinearAdd": _qlinear_binary,
    "ms.QLinearMul": _qlinear_binary,
    "ms.QLinearSigmoid": _qlinear_unary,
    "ms.QLinearLeakyRelu": _qlinear_unary,
    "ms.QLinearGlobalAveragePool": _global_average_pool,
    "ms.QLinearAveragePool": _average_pool,
    "ms.QLinearConcat": _qlinear_concat,
    "ms.QGemm": _qgemm,
    "QLinearMatMul": _qlinear_matmul,
    "Concat": _concat,
    **MOVES,
}
"""By kind of node; the others go to the host."""
