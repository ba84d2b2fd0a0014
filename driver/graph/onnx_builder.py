"""The graph of an ONNX network while it is made: its tensors in their layouts, their quantisation, and operators that
stand for nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.driver.ort.runtime import OrtModel, onnx_package
from convoy.driver.ort.unit import OnnxUnit, Port, to_image

from .check import printable
from .graph import GraphError, Op, Quant, Tensor

if TYPE_CHECKING:
    import onnx

__all__ = [
    "DTYPES_8_BIT", "TABLE_NAMES", "Activation", "Handler", "Node", "OnnxBuilder", "Unsuited", "is_same_quant", "suits",
]  # fmt: skip

Activation = tuple[str, Quant | None]
"""The name of one, and its quantisation as a node has it; None if no node says it."""
DTYPES_8_BIT = np.dtype(np.int8), np.dtype(np.uint8)
_MICROSOFT = "com.microsoft"
_RANDOM = "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"
TABLE_NAMES = {"Sigmoid": "LOGISTIC", "Tanh": "TANH", "HardSwish": "HARD_SWISH", "LeakyRelu": "LEAKY_RELU",
                "Relu": "RELU", "Elu": "ELU", "Gelu": "GELU"}  # fmt: skip
"""Functions of single elements that the graph has a name for; the others are TABLE."""


class Unsuited(Exception):
    """A node that no operator of the NPU stands for."""


def suits(condition: bool) -> None:
    """Go on only if this holds.

    Raises
    ------
    Unsuited
        When it does not.
    """
    if not condition:
        raise Unsuited


@dataclass(frozen=True)
class Node:
    """One node of the optimised network."""

    kind: str
    """With `ms.` in front if it is onnxruntime's own."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any]
    raw: bytes
    is_on_real: bool = False
    """It is on bytes here, and on real numbers in the file."""

    def name(self, place: int) -> str:
        """Of an input; empty if it is absent."""
        return self.inputs[place] if place < len(self.inputs) else ""

    def changed(self, inputs: Iterable[str], outputs: Iterable[str], **attrs: int) -> Node:
        """It with these inputs, outputs, and values of such attributes as it has."""
        inputs, outputs = tuple(inputs), tuple(outputs)
        raw = onnx_package().NodeProto.FromString(self.raw)
        raw.input[:], raw.output[:] = inputs, outputs
        for attr in raw.attribute:
            if attr.name in attrs:
                attr.i = attrs[attr.name]
        known = {name: value for name, value in attrs.items() if name in self.attrs}
        return replace(self, inputs=inputs, outputs=outputs, attrs=self.attrs | known, raw=raw.SerializeToString())

    def renamed(self, names: Mapping[str, str], **attrs: int) -> Node:
        """It with other names of inputs and outputs; `attrs` as for `changed`."""
        inputs, outputs = ((names.get(name, name) for name in side) for side in (self.inputs, self.outputs))
        return self.changed(inputs, outputs, **attrs)


def is_same_quant(one: Quant, other: Quant) -> bool:
    """Are scales and zero points equal?"""
    return np.array_equal(one.scale, other.scale) and np.array_equal(one.zero_point, other.zero_point)


class OnnxBuilder:
    """One network, from its nodes to tensors and operators.

    Parameters
    ----------
    model : as onnxruntime executes it

    Raises
    ------
    GraphError
        When an operator has random results, or onnxruntime does not run the network.
    """

    def __init__(self, model: onnx.ModelProto):
        onnx = onnx_package()
        self.model = model
        self.constants: dict[str, np.ndarray] = {
            constant.name: onnx.numpy_helper.to_array(constant) for constant in self.model.graph.initializer
        }
        self.inputs = [value.name for value in self.model.graph.input if value.name not in self.constants]
        self.nodes = [
            Node(
                f"ms.{node.op_type}" if node.domain == _MICROSOFT else node.op_type,
                tuple(node.input),
                tuple(node.output),
                {
                    attr.name: onnx.helper.get_attribute_value(attr)
                    for attr in node.attribute
                    if attr.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
                },
                node.SerializeToString(),
            )
            for node in self.model.graph.node
        ]
        for node in self.nodes:
            if node.kind in _RANDOM or (node.kind == "Dropout" and node.name(2)):
                raise GraphError(
                    f"operator {printable(node.outputs[0])} ({node.kind}) has random results, with which nothing could "
                    "be compared; export the network for inference"
                )
            if node.kind == "Constant" and isinstance(node.attrs.get("value"), onnx.TensorProto):
                self.constants[node.outputs[0]] = onnx.numpy_helper.to_array(node.attrs["value"])
        self.opsets = tuple((opset.domain, opset.version) for opset in self.model.opset_import)
        self.makers = {name: node for node in self.nodes for name in node.outputs}
        self.tensors: list[Tensor] = []
        self.ops: list[Op] = []
        self.places: dict[tuple[str, bool], int] = {}
        """Activations by name, and whether as images."""
        self.aliases: dict[tuple[int, bytes, int], int] = {}
        self.origins: dict[int, tuple[str, int | None]] = {}
        self.values = self._probe()

    def _probe(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of every activation, from a run on zeros."""
        onnx = onnx_package()
        inputs = {}
        for value in self.model.graph.input:
            if value.name in self.constants:
                continue
            kind = value.type.tensor_type
            shape = tuple(dim.dim_value for dim in kind.shape.dim)
            inputs[value.name] = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        found = OrtModel(self.model, keeps_tensors=True).run(inputs) | inputs
        return {name: (value.shape, value.dtype) for name, value in found.items() if isinstance(value, np.ndarray)}

    def new(self, name: str, is_image: bool, quant: Quant | None = None) -> int:
        """An activation that an operator is about to write, or an input."""
        shape, dtype = self.values[name]
        if is_image:
            shape = to_image(np.empty(shape, np.int8)).shape
        index = self._tensor(name, shape, dtype, quant)
        self.places[name, is_image] = index
        self.origins[index] = name, len(self.values[name][0]) if is_image else None
        return index

    def _tensor(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype, quant: Quant | None = None,
        data: np.ndarray | None = None,
    ) -> int:  # fmt: skip
        index = len(self.tensors)
        self.tensors.append(Tensor(index, name, tuple(shape), np.dtype(dtype), quant, data))
        return index

    def constant(self, name: str, data: np.ndarray, quant: Quant | None = None) -> int:
        """A constant with these values."""
        return self._tensor(name, data.shape, data.dtype, quant, data)

    def is_image(self, name: str) -> bool:
        """Is it held as an image?"""
        return (name, True) in self.places

    def act(self, name: str, is_image: bool, quant: Quant | None = None) -> int:
        """An activation in one of its layouts, brought into it if need be; seen with another quantisation than it was
        made with if that is what its reader says.
        """
        if (name, is_image) not in self.places:
            self._convert(name, is_image)
        index = self.places[name, is_image]
        known = self.tensors[index].quant
        if quant is None or (known is not None and is_same_quant(known, quant)):
            return index
        key = index, quant.scale.tobytes(), int(quant.zero_point[0])
        if key not in self.aliases:
            if known is None:
                self.tensors[index] = replace(self.tensors[index], quant=quant)
                return index
            tensor = self.tensors[index]
            target = self._tensor(f"{name} (seen with another scale)", tensor.shape, tensor.dtype, quant)
            self.origins[target] = self.origins[index]
            self.reshape(index, target)
            self.aliases[key] = target
        return self.aliases[key]

    def _convert(self, name: str, is_image: bool) -> None:
        """Emit what brings an activation into the other layout."""
        source = self.places[name, not is_image]
        shape, dtype = self.values[name]
        rank, quant = len(shape), self.tensors[source].quant
        if is_image and rank == 3:
            first = self._tensor(name, (*shape[:2], 1, shape[2]), dtype, quant)
            self.reshape(source, first)
            source = first
        target = self.new(name, is_image, quant)
        if not is_image and rank == 3:
            last, target = target, self._tensor(name, (*shape[:2], 1, shape[2]), dtype, quant)
        order = (0, 2, 3, 1) if is_image else (0, 3, 1, 2)
        moved = [axis for axis in order if self.tensors[source].shape[axis] > 1]
        if moved == sorted(moved):
            self.reshape(source, target)
        else:
            self.add(
                "TRANSPOSE",
                (source, self.constant("order", np.array(order, np.int32))),
                (target,),
                {},
                self._simple("Transpose", source, target, {"perm": order}),
            )
        if not is_image and rank == 3:
            self.reshape(target, last)

    def reshape(self, source: int, target: int) -> None:
        """Emit another shape for the same elements."""
        shape = self.tensors[target].shape
        self.add(
            "RESHAPE",
            (source, self.constant("shape", np.array(shape, np.int32))),
            (target,),
            {"new_shape": list(shape)},
            self._simple("Reshape", source, target, {}, np.array(shape, np.int64)),
        )

    def _simple(
        self, kind: str, source: int, target: int, attrs: dict[str, Any], constant: np.ndarray | None = None
    ) -> OnnxUnit:
        """A node on tensors as the graph has them."""
        node = onnx_package().helper.make_node(kind, ["x"] if constant is None else ["x", "c"], ["y"], **attrs)
        x, y = self.tensors[source], self.tensors[target]
        return OnnxUnit(
            (node.SerializeToString(),),
            {} if constant is None else {"c": constant},
            (Port("x", 0, x.shape, x.dtype, False),),
            (Port("y", 0, y.shape, y.dtype, False),),
            self.opsets,
        )

    def add(
        self, kind: str, inputs: Iterable[int], outputs: Iterable[int], options: dict[str, Any], unit: OnnxUnit
    ) -> None:
        """An operator as it is given."""
        self.ops.append(Op(len(self.ops), kind, tuple(inputs), tuple(outputs), options, unit))

    def unit(self, nodes: list[Node], inputs: list[int], outputs: list[int]) -> OnnxUnit:
        """Nodes as a network that reads and writes these tensors of the graph; constants among them are not read."""
        constants = {name: self.constants[name] for node in nodes for name in node.inputs if name in self.constants}

        def ports(indices: list[int], names: set[str]) -> tuple[Port, ...]:
            found = {}
            for place, index in enumerate(indices):
                name, rank = self.origins.get(index, ("", None)) if index >= 0 else ("", None)
                if name and name in names and name not in found:
                    shape, dtype = self.values[name]
                    found[name] = Port(name, place, shape, dtype, rank is not None)
            return tuple(found.values())

        return OnnxUnit(
            tuple(node.raw for node in nodes),
            constants,
            ports(inputs, {name for node in nodes for name in node.inputs}),
            ports(outputs, {name for node in nodes for name in node.outputs}),
            self.opsets,
        )

    def emit(self, kind: str, nodes: list[Node], inputs: Iterable[int], outputs: Iterable[int], **options: Any) -> None:
        """An operator that stands for nodes."""
        inputs, outputs = list(inputs), list(outputs)
        self.add(kind, inputs, outputs, options, self.unit(nodes, inputs, outputs))

    def emit_table(self, kind: str, nodes: list[Node], source: Activation, target: Activation) -> None:
        """An operator that stands for nodes that compute each element of bytes from one of others."""
        is_image = self.is_image(source[0])
        inputs = [self.act(source[0], is_image, source[1])]
        outputs = [self.new(target[0], is_image, target[1])]
        unit = self.unit(nodes, inputs, outputs)
        self.add(kind, inputs, outputs, {"table": unit.table()}, unit)

    def quant(self, scale: str, zero_point: str, axis: int = 0) -> Quant | None:
        """From the names of constants; None if they are none."""
        if scale not in self.constants or (zero_point and zero_point not in self.constants):
            return None
        scales = self.constants[scale].astype(np.float32).reshape(-1)
        zeros = self.constants[zero_point].astype(np.int64).reshape(-1) if zero_point else np.zeros(1, np.int64)
        return Quant(scales, np.broadcast_to(zeros, scales.shape).copy(), axis)

    def quants(self, node: Node, *places: int) -> list[Quant]:
        """Of one scale each, from the places of their scales; zero points follow them.

        Raises
        ------
        Unsuited
            When one is no constant.
        """
        found = [self.per_tensor(node.name(place), node.name(place + 1)) for place in places]
        quants = [quant for quant in found if quant is not None]
        suits(len(quants) == len(places))
        return quants

    def channel_quant(self, node: Node, place: int) -> Quant:
        """Of weights.

        Raises
        ------
        Unsuited
            When it is no constant, or the zero points of channels differ.
        """
        quant = self.quant(node.name(place), node.name(place + 1))
        if quant is None or len(set(quant.zero_point.tolist())) != 1:
            raise Unsuited
        return quant

    def per_tensor(self, scale: str, zero_point: str) -> Quant | None:
        """As `quant`; None also if there are several scales."""
        quant = self.quant(scale, zero_point)
        return quant if quant is not None and quant.scale.size == 1 else None

    def is_byte(self, name: str) -> bool:
        """Is it an activation of 8 bits?"""
        return name in self.values and name not in self.constants and self.values[name][1] in DTYPES_8_BIT

    def attempt(self, emit: Callable[[], None]) -> bool:
        """Emit something, or nothing at all if it turns out to be none for the NPU."""
        counts = len(self.ops), len(self.tensors)
        state = dict(self.places), dict(self.aliases), dict(self.origins), dict(self.values)
        try:
            emit()
        except Unsuited:
            del self.ops[counts[0] :], self.tensors[counts[1] :]
            self.places, self.aliases, self.origins, self.values = state
            return False
        return True

    def form(self, name: str) -> bool:
        """Is a byte tensor held as an image?

        Raises
        ------
        Unsuited
            When it is no activation of bytes.
        """
        suits(self.is_byte(name))
        return self.is_image(name)

    def integers(self, node: Node, place: int, attr: str) -> list[int] | None:
        """A constant input, or the attribute that older files have instead; None without either.

        Raises
        ------
        Unsuited
            When the input is no constant.
        """
        if name := node.name(place):
            suits(name in self.constants)
            return [int(value) for value in self.constants[name].reshape(-1)]
        return [int(value) for value in node.attrs[attr]] if attr in node.attrs else None


Handler = Callable[[OnnxBuilder, Node], None]
"""Emits the operators of a node; raises `Unsuited` if it is none for the NPU."""
