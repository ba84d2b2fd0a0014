"""ONNX files -> `Graph`. onnxruntime optimises the network first: what is read is what it executes, with quantised
operators in one piece, constants computed and shapes known. Both ways of writing quantised networks, QuantizeLinear
and DequantizeLinear around float operators (QDQ) and QLinear operators, become the same.

Operators get the names and layouts of TFLite. ONNX has channels first: images are transposed where they come in and go
out, and before what needs their order in the file, such as a reshape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from convoy.driver.files import read_file
from convoy.driver.ort.runtime import OrtModel, first_line, onnx_package, optimised
from convoy.driver.ort.unit import OnnxUnit, Port, from_image, to_image

from .check import check_graph, printable
from .graph import Graph, GraphError, Op, Quant, Runtime, Tensor

if TYPE_CHECKING:
    import onnx

__all__ = ["CORES", "ELEMENTWISE", "HANDLERS", "MOVES", "PAIRS", "OnnxModel", "load_float", "load_onnx"]

MAX_FILE_BYTES = (1 << 31) - 1
"""Files of protobuf are smaller."""
_UNKNOWN = (KeyError, IndexError, ValueError, TypeError, AttributeError)
"""What reading a network raises that uses more than tensors and operators on them."""
_DTYPES_8_BIT = np.dtype(np.int8), np.dtype(np.uint8)
_MICROSOFT = "com.microsoft"
_QUANTISED = "QuantizeLinear", "QLinear", "QGemm", "DynamicQuantize", "ConvInteger", "MatMulInteger"
"""How kinds of operators begin that take bytes, or make them."""
_RANDOM = "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file that has been read."""

    graph: Graph
    network: onnx.ModelProto
    """As onnxruntime executes it."""
    origins: Mapping[int, tuple[str, int | None]]
    """Of the graph's activations: the name in `network`, and if the graph has it as an image, its axes there; what
    is not here has no counterpart.
    """
    values: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    """Shape and dtype of every activation of `network`."""

    def in_file(self, index: int, values: np.ndarray) -> np.ndarray:
        """Values of a tensor of the graph in the layout of the file."""
        _, rank = self.origins[index]
        return values if rank is None else from_image(values, rank)


def load_onnx(source: str | Path | bytes, shapes: Mapping[str, tuple[int, ...]] | None = None) -> OnnxModel:
    """Read an ONNX file.

    Parameters
    ----------
    source
        The path of the file, or its bytes.
    shapes
        Of inputs whose sizes the file does not know, by name; the empty name is that of the only input. An unknown
        batch is 1 if it is not given.

    Raises
    ------
    GraphError
        When the package is missing, the file cannot be read, is not an ONNX file, has sizes that are not known, is not
        quantised, or onnxruntime does not run it. One line.
    """
    label, name = ("model", "model") if isinstance(source, bytes) else (str(source), Path(source).stem)
    try:
        model = _parse(source)
        if not _is_quantised(model):
            raise GraphError("the network is not quantised: convoy quantize MODEL --calibration FOLDER -o OUT does it")
        notes = _fix_shapes(model, shapes or {}) + _dynamic_scales(model)
        return _Reader(name, model, notes).read()
    except GraphError as error:
        raise GraphError(f"{label}: {error}") from None
    except _UNKNOWN as error:
        raise GraphError(
            f"{label}: holds what is not supported, as sequences and subgraphs are not "
            f"({type(error).__name__}: {first_line(error)})"
        ) from None


def _parse(source: str | Path | bytes) -> onnx.ModelProto:
    onnx = onnx_package()
    raw = source if isinstance(source, bytes) else read_file(Path(source), MAX_FILE_BYTES)
    try:
        model = onnx.load_model_from_string(raw)
        if not isinstance(source, bytes):
            onnx.external_data_helper.load_external_data_for_model(model, str(Path(source).parent))
    except Exception as error:  # whatever the parser makes of bytes that are no model
        raise GraphError(f"not an ONNX file, or damaged ({first_line(error)})") from None
    if not model.graph.node:
        raise GraphError("not an ONNX file, or one without operators")
    return model


def load_float(source: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> tuple[bytes, dict[str, Tensor]]:
    """A float ONNX file with known shapes, and its inputs by name.

    Raises
    ------
    GraphError
        As from `load_onnx`, or when it is quantised already.
    """
    try:
        model = _parse(source)
        if _is_quantised(model):
            raise GraphError("the network is quantised already")
        _fix_shapes(model, shapes or {})
    except GraphError as error:
        raise GraphError(f"{source}: {error}") from None
    helper, inputs = onnx_package().helper, {}
    for index, value in enumerate(_inputs(model)):
        kind = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in kind.shape.dim)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
        inputs[value.name] = Tensor(index, value.name, shape, dtype)
    return model.SerializeToString(), inputs


def _is_quantised(model: onnx.ModelProto) -> bool:
    constants = {constant.name for constant in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    return any(
        node.op_type.startswith(_QUANTISED) or (node.op_type == "DequantizeLinear" and node.input[0] not in constants)
        for node in model.graph.node
    )


def _dynamic_scales(model: onnx.ModelProto) -> tuple[str, ...]:
    """What to say of a network that chooses scales while it runs."""
    number = sum(node.op_type.startswith("DynamicQuantize") for node in model.graph.node)
    if not number:
        return ()
    return (
        f"{number} operators choose scales while the network runs, for which the NPU has no form; quantise the float "
        "network statically: convoy quantize",
    )


def _inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    constants = {constant.name for constant in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _fix_shapes(model: onnx.ModelProto, given: Mapping[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Give every input a shape; what was assumed, in sentences."""
    inputs = _inputs(model)
    unknown = set(given) - {value.name for value in inputs} - ({""} if len(inputs) == 1 else set())
    if unknown:
        raise GraphError(
            f"--shape {printable(min(unknown))}: no such input; the inputs are "
            f"{', '.join(printable(value.name) for value in inputs)}"
        )
    notes = []
    for value in inputs:
        dims = value.type.tensor_type.shape.dim
        shape = given.get(value.name, given.get("") if len(inputs) == 1 else None)
        if not value.type.tensor_type.HasField("shape"):
            if shape is None:
                raise GraphError(
                    f"input {printable(value.name)}: its shape is not known; give it by "
                    f"--shape {printable(value.name)}=1x..."
                )
            dims.extend(onnx_package().TensorShapeProto.Dimension(dim_value=size) for size in shape)
        if shape is not None and len(shape) != len(dims):
            raise GraphError(f"--shape of {printable(value.name)}: {len(shape)} sizes for {len(dims)} axes")
        for axis, dim in enumerate(dims):
            known = dim.dim_value if dim.HasField("dim_value") else 0
            if shape is not None:
                if known > 0 and known != shape[axis]:
                    raise GraphError(f"--shape of {printable(value.name)}: axis {axis} is {known} in the file")
                dim.dim_value = shape[axis]
            elif known <= 0:
                if axis or len(dims) < 2:
                    raise GraphError(
                        f"input {printable(value.name)}: the size of axis {axis} is not known; give the shape by "
                        f"--shape {printable(value.name)}=1x..."
                    )
                dim.dim_value = 1
                notes.append(f"the batch of input {printable(value.name)} is not known; 1 is taken")
    del model.graph.value_info[:]
    return tuple(notes)


class _Unsuited(Exception):
    """A node that no operator of the NPU stands for."""


def _suits(condition: bool) -> None:
    if not condition:
        raise _Unsuited


@dataclass(frozen=True)
class _Node:
    """One node of the optimised network."""

    kind: str
    """With `ms.` in front if it is onnxruntime's own."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: dict[str, Any]
    raw: bytes

    def name(self, place: int) -> str:
        """Of an input; empty if it is absent."""
        return self.inputs[place] if place < len(self.inputs) else ""


def _with_inputs(node: _Node, inputs: tuple[str, ...]) -> _Node:
    raw = onnx_package().NodeProto.FromString(node.raw)
    raw.input[:] = inputs
    return replace(node, inputs=inputs, raw=raw.SerializeToString())


_ON_REAL = "is_on_real"
"""Attribute of a node on bytes that the file has on real numbers."""


@dataclass
class _Island:
    """Float nodes between quantised activations and a QuantizeLinear."""

    nodes: list[_Node]
    """All, in order: DequantizeLinear first, QuantizeLinear last."""
    sources: list[str] = field(default_factory=list)
    """Quantised activations that they read."""

    @property
    def core(self) -> list[_Node]:
        """Without DequantizeLinear and QuantizeLinear."""
        return [node for node in self.nodes if node.kind not in ("DequantizeLinear", "QuantizeLinear")]


ELEMENTWISE = {
    "Abs", "Acos", "Asin", "Atan", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu",
    "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu",
    "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu", "ms.QuickGelu",
    "ms.Gelu", "ms.FastGelu", "ms.BiasGelu", "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu",
    "DequantizeLinear", "QuantizeLinear",
}  # fmt: skip
"""Functions of single elements when all but one of their operands are constants of one element."""
_TABLE_NAMES = {"Sigmoid": "LOGISTIC", "Tanh": "TANH", "HardSwish": "HARD_SWISH", "LeakyRelu": "LEAKY_RELU",
                "Relu": "RELU", "Elu": "ELU", "Gelu": "GELU"}  # fmt: skip

PAIRS = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL"}
"""Float nodes on two activations, and the operators that they become."""


def _fits_into(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Can a tensor be broadcast to a shape?"""
    return len(shape) <= len(target) and all(
        size in (1, extent) for size, extent in zip(shape[::-1], target[::-1], strict=False)
    )


class _Reader:
    """One network, from its nodes to a graph."""

    def __init__(self, name: str, model: onnx.ModelProto, notes: tuple[str, ...]):
        onnx = onnx_package()
        self.name, self.notes = name, notes
        self.model = optimised(model.SerializeToString())
        self.constants: dict[str, np.ndarray] = {
            constant.name: onnx.numpy_helper.to_array(constant) for constant in self.model.graph.initializer
        }
        self.inputs = [value.name for value in self.model.graph.input if value.name not in self.constants]
        self.nodes = [
            _Node(
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

    def read(self) -> OnnxModel:
        """The whole network, checked."""
        islands: dict[int, _Island] = {}
        needed = {output.name for output in self.model.graph.output}
        wanted = []
        for number in reversed(range(len(self.nodes))):
            node = self.nodes[number]
            if not needed.intersection(node.outputs) or node.kind == "Constant":
                continue
            wanted.append(number)
            if node.kind == "QuantizeLinear" and (island := self._island(node)) is not None:
                islands[number] = island
                needed.update(island.sources)
            else:
                needed.update(name for name in node.inputs if name and name not in self.constants)
        inputs = tuple(self._new(name, False) for name in self.inputs)
        for number in reversed(wanted):
            if number in islands:
                self._emit_island(islands[number])
            else:
                self._emit_node(self.nodes[number])
        outputs = tuple(self._act(output.name, False) for output in self.model.graph.output)
        graph = Graph(
            self.name, tuple(self.tensors), tuple(self.ops), inputs, outputs, (), self.notes, Runtime.ONNXRUNTIME
        )
        check_graph(graph)
        return OnnxModel(graph, self.model, self.origins, self.values)

    # Tensors of the graph

    def _new(self, name: str, is_image: bool, quant: Quant | None = None) -> int:
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

    def _constant(self, name: str, data: np.ndarray, quant: Quant | None = None) -> int:
        return self._tensor(name, data.shape, data.dtype, quant, data)

    def _is_image(self, name: str) -> bool:
        """Is it held as an image?"""
        return (name, True) in self.places

    def _act(self, name: str, is_image: bool, quant: Quant | None = None) -> int:
        """An activation in one of its layouts, brought into it if need be; seen with another quantisation than it was
        made with if that is what its reader says.
        """
        if (name, is_image) not in self.places:
            self._convert(name, is_image)
        index = self.places[name, is_image]
        known = self.tensors[index].quant
        if quant is None or (
            known is not None
            and np.array_equal(known.scale, quant.scale)
            and np.array_equal(known.zero_point, quant.zero_point)
        ):
            return index
        key = index, quant.scale.tobytes(), int(quant.zero_point[0])
        if key not in self.aliases:
            if known is None:
                self.tensors[index] = replace(self.tensors[index], quant=quant)
                return index
            tensor = self.tensors[index]
            target = self._tensor(f"{name} (seen with another scale)", tensor.shape, tensor.dtype, quant)
            self.origins[target] = self.origins[index]
            self._reshape(index, target)
            self.aliases[key] = target
        return self.aliases[key]

    def _convert(self, name: str, is_image: bool) -> None:
        """Emit what brings an activation into the other layout."""
        source = self.places[name, not is_image]
        shape, dtype = self.values[name]
        rank, quant = len(shape), self.tensors[source].quant
        if is_image and rank == 3:
            first = self._tensor(name, (*shape[:2], 1, shape[2]), dtype, quant)
            self._reshape(source, first)
            source = first
        target = self._new(name, is_image, quant)
        if not is_image and rank == 3:
            last, target = target, self._tensor(name, (*shape[:2], 1, shape[2]), dtype, quant)
        order = (0, 2, 3, 1) if is_image else (0, 3, 1, 2)
        moved = [axis for axis in order if self.tensors[source].shape[axis] > 1]
        if moved == sorted(moved):
            self._reshape(source, target)
        else:
            self._add(
                "TRANSPOSE",
                (source, self._constant("order", np.array(order, np.int32))),
                (target,),
                {},
                self._simple("Transpose", source, target, {"perm": order}),
            )
        if not is_image and rank == 3:
            self._reshape(target, last)

    def _reshape(self, source: int, target: int) -> None:
        shape = self.tensors[target].shape
        self._add(
            "RESHAPE",
            (source, self._constant("shape", np.array(shape, np.int32))),
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

    def _add(
        self, kind: str, inputs: Iterable[int], outputs: Iterable[int], options: dict[str, Any], unit: OnnxUnit
    ) -> None:
        self.ops.append(Op(len(self.ops), kind, tuple(inputs), tuple(outputs), options, unit))

    def _unit(self, nodes: list[_Node], inputs: list[int], outputs: list[int]) -> OnnxUnit:
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

    def _emit(
        self, kind: str, nodes: list[_Node], inputs: Iterable[int], outputs: Iterable[int], **options: Any
    ) -> None:
        """An operator that stands for nodes."""
        inputs, outputs = list(inputs), list(outputs)
        self._add(kind, inputs, outputs, options, self._unit(nodes, inputs, outputs))

    # Quantisation

    def _quant(self, scale: str, zero_point: str, axis: int = 0) -> Quant | None:
        """From the names of constants; None if they are none."""
        if scale not in self.constants or (zero_point and zero_point not in self.constants):
            return None
        scales = self.constants[scale].astype(np.float32).reshape(-1)
        zeros = self.constants[zero_point].astype(np.int64).reshape(-1) if zero_point else np.zeros(1, np.int64)
        return Quant(scales, np.broadcast_to(zeros, scales.shape).copy(), axis)

    def _quants(self, node: _Node, *places: int) -> list[Quant]:
        """Of one scale each, from the places of their scales; zero points follow them.

        Raises
        ------
        _Unsuited
            When one is no constant.
        """
        found = [self._per_tensor(node.name(place), node.name(place + 1)) for place in places]
        quants = [quant for quant in found if quant is not None]
        _suits(len(quants) == len(places))
        return quants

    def _channel_quant(self, node: _Node, place: int) -> Quant:
        """Of weights.

        Raises
        ------
        _Unsuited
            When it is no constant, or the zero points of channels differ.
        """
        quant = self._quant(node.name(place), node.name(place + 1))
        if quant is None or len(set(quant.zero_point.tolist())) != 1:
            raise _Unsuited
        return quant

    def _per_tensor(self, scale: str, zero_point: str) -> Quant | None:
        quant = self._quant(scale, zero_point)
        return quant if quant is not None and quant.scale.size == 1 else None

    def _is_byte(self, name: str) -> bool:
        """Is it an activation of 8 bits?"""
        return name in self.values and name not in self.constants and self.values[name][1] in _DTYPES_8_BIT

    # Nodes

    def _emit_node(self, node: _Node) -> None:
        if node.kind not in HANDLERS or not self._attempt(lambda: HANDLERS[node.kind](self, node)):
            self._emit_host(node)

    def _attempt(self, emit: Callable[[], None]) -> bool:
        """Emit something, or nothing at all if it turns out to be none for the NPU."""
        counts = len(self.ops), len(self.tensors)
        state = dict(self.places), dict(self.aliases), dict(self.origins), dict(self.values)
        try:
            emit()
        except _Unsuited:
            del self.ops[counts[0] :], self.tensors[counts[1] :]
            self.places, self.aliases, self.origins, self.values = state
            return False
        return True

    def _emit_host(self, node: _Node) -> None:
        """A node as it is, for the host."""
        is_image = (
            node.kind in ("QuantizeLinear", "DequantizeLinear")
            and self._per_tensor(node.name(1), node.name(2)) is not None
            and len(self.values[node.outputs[0]][0]) == 4
        )
        if node.kind == "DequantizeLinear":
            is_image = is_image and self._is_image(node.inputs[0])
        inputs = [
            self._act(name, is_image) if name in self.values and name not in self.constants else
            self._constant(name, self.constants[name]) if name in self.constants else -1
            for name in node.inputs
        ]  # fmt: skip
        quant = None
        if node.kind == "QuantizeLinear":
            quant = self._per_tensor(node.name(1), node.name(2))
        is_fixed = all(name in self.constants for name in node.inputs[1:] if name)
        if node.kind in ("QuantizeLinear", "DequantizeLinear") and is_fixed:
            kind, inputs = node.kind.upper()[:-6], inputs[:1]
        else:
            kind = node.kind.removeprefix("ms.")
        outputs = [self._new(name, is_image, quant) for name in node.outputs if name]
        self._emit(kind, [node], inputs, outputs)

    # Islands

    def _island(self, last: _Node) -> _Island | None:
        """The float nodes that a QuantizeLinear ends, if all that they read is quantised activations and
        constants.
        """
        found: dict[int, _Node] = {}
        sources: list[str] = []
        todo = [last]
        while todo:
            node = todo.pop()
            if id(node) in found:
                continue
            found[id(node)] = node
            for name in node.inputs:
                if not name or name in self.constants:
                    continue
                if node.kind == "DequantizeLinear" and node.inputs[0] not in self.constants:
                    if not self._is_byte(name) or self._per_tensor(node.name(1), node.name(2)) is None:
                        return None
                    sources.append(name)
                elif name in self.makers and len(found) < _MAX_ISLAND:
                    todo.append(self.makers[name])
                else:
                    return None
        nodes = [node for node in self.nodes if id(node) in found]
        return _Island(nodes, list(dict.fromkeys(sources)))

    def _is_elementwise(self, nodes: list[_Node], shape: tuple[int, ...]) -> bool:
        """Do nodes compute each element of a result of some shape from elements of operands?"""
        return all(
            node.kind in ELEMENTWISE
            and all(_fits_into(self.values[name][0], shape) for name in node.outputs)
            and all(self.constants[name].size == 1 for name in node.inputs if name in self.constants)
            for node in nodes
        )

    def _emit_island(self, island: _Island) -> None:
        for emit in (self._unary_island, self._chain_island, self._pair_island, self._core_island):
            if self._attempt(lambda emit=emit: emit(island)):  # type: ignore[misc]
                return
        for node in island.nodes:
            if not any((name, is_image) in self.places for name in node.outputs for is_image in (False, True)):
                self._emit_node(node)

    def _unary_island(self, island: _Island) -> None:
        """A function of each element of one activation."""
        last, names = island.nodes[-1], [node.kind for node in island.core]
        _suits(len(island.sources) == 1 and self._is_byte(last.outputs[0]))
        shape = self.values[island.sources[0]][0]
        _suits(self._is_elementwise(island.nodes, shape) and self.values[last.outputs[0]][0] == shape)
        kind = _TABLE_NAMES.get(names[0], "TABLE") if len(names) == 1 else "TABLE" if names else "QUANTIZE"
        self._emit_table(island.nodes, island.sources[0], kind)

    def _chain_island(self, island: _Island) -> None:
        """Nodes that move values, before or behind functions of each element: these become a table between moves of
        bytes.
        """
        first, last, core = island.nodes[0], island.nodes[-1], island.core
        _suits(len(island.sources) == 1 and self._is_byte(last.outputs[0]))
        source, target = self._quants(first, 1)[0], self._quants(last, 1)[0]
        previous = first.outputs[0]
        for node in core:
            _suits(node.inputs[0] == previous and sum(name not in self.constants for name in node.inputs if name) == 1)
            previous = last.inputs[0] if last.inputs[0] in node.outputs else node.outputs[0]
        is_move = [node.kind in MOVES for node in core]
        num_before = is_move.index(False) if False in is_move else len(core)
        num_behind = is_move[::-1].index(False) if False in is_move else 0
        middle = core[num_before : len(core) - num_behind]
        name, dtype = island.sources[0], self.values[island.sources[0]][1]
        for node in core[:num_before]:
            name = self._move(node, name, self._wanted(node, core, last), source, dtype)
        _suits(not any(node.kind in MOVES for node in middle))
        out_dtype = self.values[last.outputs[0]][1]
        is_same = np.array_equal(source.scale, target.scale) and np.array_equal(source.zero_point, target.zero_point)
        if middle or dtype != out_dtype or not is_same:
            shape = self.values[middle[-1].outputs[0] if middle else name][0]
            _suits(self._is_elementwise(middle, shape))
            renamed = [self._renamed(first, {first.inputs[0]: name})]
            renamed += [self._renamed(node, {middle[0].inputs[0]: first.outputs[0]}) for node in middle]
            end = middle[-1].outputs[0] if middle else first.outputs[0]
            output = last.outputs[0] if not num_behind else f"{name} (by a table)"
            self.values[output] = shape, out_dtype
            renamed.append(self._renamed(last, {last.inputs[0]: end, last.outputs[0]: output}))
            self._emit_table(renamed, name, "TABLE" if middle else "QUANTIZE")
            name = output
        for node in core[len(core) - num_behind :] if num_behind else ():
            name = self._move(node, name, self._wanted(node, core, last), target, out_dtype)
        if name != last.outputs[0]:
            self._same(name, last.outputs[0])

    def _wanted(self, node: _Node, core: list[_Node], last: _Node) -> str:
        """The output of a node of a chain that the chain goes on with."""
        place = core.index(node) + 1
        return last.inputs[0] if place == len(core) else core[place].inputs[0]

    def _move(self, node: _Node, name: str, output: str, quant: Quant, dtype: np.dtype) -> str:
        """Emit a float node on bytes; the name of its result that stands for `output`."""
        names = {n: f"{n} (bytes)" for n in node.outputs if n}
        for float_name, byte_name in names.items():
            self.values[byte_name] = self.values[float_name][0], dtype
        moved = self._renamed(node, {node.inputs[0]: name} | names)
        moved = replace(moved, attrs=moved.attrs | {_ON_REAL: True})
        self._act(name, self._is_image(name), quant)
        MOVES[node.kind](self, moved)
        return names[output]

    def _renamed(self, node: _Node, names: Mapping[str, str]) -> _Node:
        """A node with other names of inputs and outputs."""
        raw = onnx_package().NodeProto.FromString(node.raw)
        outputs = tuple(names.get(name, name) for name in node.outputs)
        raw.output[:] = outputs
        renamed = replace(node, outputs=outputs, raw=raw.SerializeToString())
        return _with_inputs(renamed, tuple(names.get(name, name) for name in node.inputs))

    def _same(self, name: str, output: str) -> None:
        """Emit a copy under another name."""
        is_image = self._is_image(name)
        source = self._act(name, is_image)
        self._reshape(source, self._new(output, is_image, self.tensors[source].quant))

    def _pair_island(self, island: _Island) -> None:
        """A sum, difference or product of two activations, perhaps with a function of each element before or
        behind.
        """
        last, kinds = island.nodes[-1], [PAIRS[node.kind] for node in island.core if node.kind in PAIRS]
        shapes = [self.values[name][0] for name in island.sources]
        _suits(len(island.sources) == 2 and len(kinds) == 1 and self._is_byte(last.outputs[0]))
        shape = self.values[last.outputs[0]][0]
        _suits(self._is_elementwise(island.nodes, shape) and all(len(other) == len(shape) for other in shapes))
        pair = next(node for node in island.core if node.kind in PAIRS)
        names = [self._source_of(name, island) for name in pair.inputs]
        quants = [self._source_quant(name, island) for name in names]
        is_image = len(shape) in (3, 4) and any(self._is_image(name) for name in names)
        inputs = [self._act(name, is_image, quant) for name, quant in zip(names, quants, strict=True)]
        outputs = [self._new(last.outputs[0], is_image, self._quants(last, 1)[0])]
        unit = self._unit(island.nodes, inputs, outputs)
        self._add(kinds[0], inputs, outputs, {"activation": "NONE", "pairs": unit.pairs()}, unit)

    def _source_of(self, name: str, island: _Island) -> str:
        """The only activation that a float tensor of an island is computed from."""
        todo, found = [name], set[str]()
        while todo:
            node = self.makers[todo.pop()]
            names = [other for other in node.inputs if other and other not in self.constants]
            (found.update if node.kind == "DequantizeLinear" else todo.extend)(names)
        _suits(len(found) == 1)
        return found.pop()

    def _source_quant(self, name: str, island: _Island) -> Quant:
        """How an island sees an activation."""
        return next(
            self._quants(node, 1)[0]
            for node in island.nodes
            if node.kind == "DequantizeLinear" and node.inputs[0] == name
        )

    def _core_island(self, island: _Island) -> None:
        """One operator with weights, perhaps with a Relu or Clip behind it, or an average."""
        core, *behind = island.core
        _suits(core.kind in CORES and len(island.sources) == 1)
        low, high, previous = -np.inf, np.inf, core.outputs[0]
        if (activation := core.attrs.get("activation", b"")) not in (b"", b"Relu"):
            _suits(activation == b"Clip")
            low, high = core.attrs["activation_params"]
        low = max(low, 0.0) if activation == b"Relu" else low
        for node in behind:
            _suits(node.kind in ("Relu", "Clip") and node.inputs[0] == previous)
            bounds = (0.0, np.inf) if node.kind == "Relu" else _clip(self, node)
            low, high, previous = max(low, bounds[0]), min(high, bounds[1]), node.outputs[0]
        CORES[core.kind](self, core, island, (low, high))

    def _float_constant(self, name: str) -> tuple[np.ndarray, Quant] | None:
        """Weights that a DequantizeLinear makes of constants: as they are stored, and their quantisation."""
        maker = self.makers.get(name)
        if maker is None or maker.kind != "DequantizeLinear" or maker.inputs[0] not in self.constants:
            return None
        quant = self._quant(maker.name(1), maker.name(2), maker.attrs.get("axis", 1))
        return None if quant is None else (self.constants[maker.inputs[0]], quant)

    def _emit_table(self, nodes: list[_Node], source: str, kind: str) -> None:
        first, last = nodes[0], nodes[-1]
        is_image = self._is_image(source)
        quant_in = self._per_tensor(first.name(1), first.name(2))
        place = 3 if last.kind.startswith("ms.QLinear") else 1
        quant_out = self._per_tensor(last.name(place), last.name(place + 1))
        inputs = [self._act(source, is_image, quant_in)]
        outputs = [self._new(last.outputs[0], is_image, quant_out)]
        unit = self._unit(nodes, inputs, outputs)
        self._add(kind, inputs, outputs, {"table": unit.table()}, unit)


_MAX_ISLAND = 64
"""Nodes of an island at most; larger ones are float networks."""

_Value = TypeVar("_Value")
_Handler = Callable[[_Reader, _Node], None]
"""Emits the operators of a node; raises `_Unsuited`, before anything else, if it is none for the NPU."""


def _pads_and_steps(node: _Node, sizes: tuple[int, ...], kernel: tuple[int, ...]) -> dict[str, Any]:
    """Strides, dilations and explicit pads of a window, along rows and columns."""
    rank = len(kernel)
    strides = list(node.attrs.get("strides", [1] * rank))
    dilations = list(node.attrs.get("dilations", [1] * rank))
    pads = list(node.attrs.get("pads", [0] * (2 * rank)))
    auto_pad = node.attrs.get("auto_pad", b"NOTSET").decode()
    if auto_pad == "VALID":
        pads = [0] * (2 * rank)
    elif auto_pad.startswith("SAME"):
        for axis in range(rank):
            extent = (kernel[axis] - 1) * dilations[axis] + 1
            total = max((-(-sizes[axis] // strides[axis]) - 1) * strides[axis] + extent - sizes[axis], 0)
            less, more = total // 2, total - total // 2
            pads[axis], pads[axis + rank] = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
    if rank == 1:
        strides, dilations, pads = [1, *strides], [1, *dilations], [0, pads[0], 0, pads[1]]
    top, left, bottom, right = pads
    return {
        "stride_h": strides[0],
        "stride_w": strides[1],
        "dilation_h": dilations[0],
        "dilation_w": dilations[1],
        "pads": (top, bottom, left, right),
        "activation": "NONE",
    }


def _weights(reader: _Reader, name: str, quant: Quant, values: np.ndarray) -> int:
    """Weights as a constant: int8 with a zero point becomes uint8, as the NPU has only one kind with a zero point."""
    if values.dtype == np.int8 and quant.zero_point.any():
        values, quant = (values.view(np.uint8) ^ 0x80), replace(quant, zero_point=quant.zero_point + 128)
    return reader._constant(name, np.ascontiguousarray(values), quant)


def _bias(reader: _Reader, name: str) -> list[int]:
    return [reader._constant(name, reader.constants[name].reshape(-1))] if name else []


def _qlinear_conv(reader: _Reader, node: _Node) -> None:
    x, w, bias = node.inputs[0], node.inputs[3], node.name(8)
    source, target = reader._quants(node, 1, 6)
    quant = reader._channel_quant(node, 4)
    _suits(reader._is_byte(x) and w in reader.constants and (not bias or bias in reader.constants))
    weights, shape = reader.constants[w], reader.values[x][0]
    _suits(len(shape) in (3, 4) and not node.attrs.get("channels_last", 0))
    kernel = weights.shape[2:]
    if weights.ndim == 3:
        weights = weights[:, :, None]
    options = _pads_and_steps(node, shape[2:], kernel)
    group = node.attrs.get("group", 1)
    is_depthwise = group == shape[1] and weights.shape[1] == 1
    order = (1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1)
    if is_depthwise:
        options["depth_multiplier"] = weights.shape[0] // group
    inputs = [
        reader._act(x, True, source),
        _weights(reader, w, replace(quant, axis=3 if is_depthwise else 0), weights.transpose(order)),
        *_bias(reader, bias),
    ]
    outputs = [reader._new(node.outputs[0], True, target)]
    reader._emit("DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D", [node], inputs, outputs, **options)


def _operand(reader: _Reader, name: str, quant: Quant, is_image: bool, rank: int) -> int:
    """An operand of an elementwise operator, constant or not."""
    if name not in reader.constants:
        return reader._act(name, is_image, quant)
    values = reader.constants[name]
    if is_image and values.ndim:
        values = to_image(values.reshape((1,) * (rank - values.ndim) + values.shape))
    return reader._constant(name, values, quant)


def _qlinear_binary(reader: _Reader, node: _Node) -> None:
    names = node.inputs[0], node.inputs[3]
    quants = reader._quants(node, 1, 4, 6)
    acts = {name: quant for name, quant in zip(names, quants, strict=False) if name not in reader.constants}
    if len(acts) == 1 and all(reader.constants[name].size == 1 for name in names if name in reader.constants):
        _qlinear_function(reader, node, *next(iter(acts.items())), quants[2])
        return
    _suits(bool(acts) and names[0] != names[1])
    rank = len(reader.values[node.outputs[0]][0])
    ranks = [reader.values[name][0] for name in names if name not in reader.constants]
    is_image = rank in (3, 4) and any(reader._is_image(name) for name in names) and all(len(r) == rank for r in ranks)
    inputs = [_operand(reader, name, quant, is_image, rank) for name, quant in zip(names, quants, strict=False)]
    outputs = [reader._new(node.outputs[0], is_image, quants[2])]
    kind = {"ms.QLinearAdd": "ADD", "ms.QLinearMul": "MUL"}[node.kind]
    unit = reader._unit([node], inputs, outputs)
    reader._add(kind, inputs, outputs, {"activation": "NONE", "pairs": _pairs(reader, unit, names)}, unit)


def _qlinear_function(reader: _Reader, node: _Node, name: str, source: Quant, target: Quant) -> None:
    """An operator on an activation and a constant of one element, or on an activation twice."""
    output, is_image = node.outputs[0], _form(reader, name)
    _suits(reader.values[name][0] == reader.values[output][0])
    inputs, outputs = [reader._act(name, is_image, source)], [reader._new(output, is_image, target)]
    unit = reader._unit([node], inputs, outputs)
    reader._add("TABLE", inputs, outputs, {"table": unit.table()}, unit)


def _pairs(reader: _Reader, unit: OnnxUnit, names: tuple[str, str]) -> np.ndarray:
    """All results of an operator on two tensors, of which one may be constant or both the same."""
    ports = []
    for place, name in enumerate(names):
        dtype = reader.constants[name].dtype if name in reader.constants else reader.values[name][1]
        ports.append(Port(name, place, (), dtype, False))
    constants = {name: values for name, values in unit.constants.items() if name not in names}
    return replace(unit, constants=constants, inputs=tuple(ports)).pairs()


def _qlinear_unary(reader: _Reader, node: _Node) -> None:
    reader._quants(node, 1, 3)
    _suits(reader._is_byte(node.inputs[0]))
    reader._emit_table([node], node.inputs[0], _TABLE_NAMES.get(node.kind.removeprefix("ms.QLinear"), "TABLE"))


def _global_average_pool(reader: _Reader, node: _Node) -> None:
    x, (source, target) = node.inputs[0], reader._quants(node, 1, 3)
    _suits(len(reader.values[x][0]) in (3, 4) and not node.attrs.get("channels_last", 0))
    inputs = [reader._act(x, True, source), reader._constant("axes", np.array([1, 2], np.int32))]
    outputs = [reader._new(node.outputs[0], True, target)]
    reader._emit("MEAN", [node], inputs, outputs, keep_dims=True)


def _qgemm(reader: _Reader, node: _Node) -> None:
    bias, alpha = node.name(6), node.attrs.get("alpha", 1.0)
    _suits(alpha > 0 and (not bias or bias in reader.constants))
    if node.attrs.get("transA", 0):
        (node,) = _turned(reader, [node], node.inputs[0], reader._quants(node, 1)[0])
    _fully_connected(reader, node, 7, bias, is_transposed=bool(node.attrs.get("transB", 0)), alpha=alpha)


def _turned(reader: _Reader, nodes: Sequence[_Node], name: str, quant: Quant) -> list[_Node]:
    """Nodes of a product whose first matrix is transposed, for the matrix that a TRANSPOSE makes."""
    _suits(reader._is_byte(name) and len(reader.values[name][0]) == 2)
    shape, dtype = reader.values[name]
    turned, perm = f"{name} (transposed)", [1, 0]
    reader.values[turned] = shape[::-1], dtype
    reader._act(name, False, quant)
    raw = onnx_package().helper.make_node("Transpose", [name], [turned], perm=perm)
    _transpose(reader, _Node("Transpose", (name,), (turned,), {"perm": perm}, raw.SerializeToString()))
    found = []
    for node in nodes:
        renamed = reader._renamed(node, {name: turned})
        raw = onnx_package().NodeProto.FromString(renamed.raw)
        for attr in raw.attribute:
            if attr.name == "transA":
                attr.i = 0
        found.append(replace(renamed, attrs=renamed.attrs | {"transA": 0}, raw=raw.SerializeToString()))
    return found


def _scaled(quant: Quant, factor: float) -> Quant:
    return replace(quant, scale=quant.scale * np.float32(factor))


def _qlinear_matmul(reader: _Reader, node: _Node) -> None:
    _fully_connected(reader, node, 6, "", is_transposed=False)


def _fully_connected(
    reader: _Reader, node: _Node, place: int, bias: str, *, is_transposed: bool, alpha: float = 1.0
) -> None:
    """`place` is that of the output's scale; `alpha` is a factor of the product."""
    a, b = node.inputs[0], node.inputs[3]
    source, target = reader._quants(node, 1, place)
    quant = reader._channel_quant(node, 4)
    _suits(reader._is_byte(a) and b in reader.constants and reader.constants[b].ndim == 2)
    weights = reader.constants[b] if is_transposed else reader.constants[b].T
    inputs = [reader._act(a, False, _scaled(source, alpha)), _weights(reader, b, replace(quant, axis=0), weights)]
    if bias:
        shape = reader.constants[bias].shape
        _suits(shape[-1:] in ((), (1,), weights.shape[:1]) and all(size == 1 for size in shape[:-1]))
        values = np.broadcast_to(reader.constants[bias].reshape(-1), weights.shape[:1])
        inputs.append(reader._constant(bias, np.ascontiguousarray(values)))
    outputs = [reader._new(node.outputs[0], False, target)]
    reader._emit("FULLY_CONNECTED", [node], inputs, outputs, activation="NONE", keep_num_dims=True)


def _form(reader: _Reader, name: str) -> bool:
    """Is a byte tensor held as an image? `_Unsuited` if it is no activation of bytes."""
    _suits(reader._is_byte(name))
    return reader._is_image(name)


def _in_graph(values: Sequence[_Value], is_image: bool, filler: _Value) -> list[_Value]:
    """Something for each axis in the file, in the order of the graph's axes."""
    if not is_image:
        return list(values)
    channels_first = list(values) if len(values) == 4 else [values[0], values[1], filler, values[2]]
    return [channels_first[axis] for axis in (0, 2, 3, 1)]


def _axis_in_graph(axis: int, rank: int, is_image: bool) -> int:
    return _in_graph([n == axis % rank for n in range(rank)], is_image, False).index(True)


def _shapes_only(reader: _Reader, node: _Node) -> None:
    """Flatten, Reshape, Squeeze, Unsqueeze: another shape for the same elements."""
    x, y = node.inputs[0], node.outputs[0]
    is_same = _form(reader, x) and reader.values[x][0] == reader.values[y][0]
    source = reader._act(x, is_same)
    target = reader._new(y, is_same, reader.tensors[source].quant)
    shape = reader.tensors[target].shape
    inputs = [source, reader._constant("shape", np.array(shape, np.int32))]
    reader._emit("RESHAPE", [node], inputs, [target], new_shape=list(shape))


def _transpose(reader: _Reader, node: _Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    shape = reader.values[x][0]
    perm = list(node.attrs.get("perm", range(len(shape))[::-1]))
    is_image = _form(reader, x) and len(shape) == 4
    stored = [0, 2, 3, 1] if is_image else list(range(len(shape)))
    order, is_image_out = [stored.index(axis) for axis in perm], False
    if len(shape) == 4 and [order[axis] for axis in (0, 2, 3, 1)] == [0, 1, 2, 3]:
        order, is_image_out = [0, 1, 2, 3], True
    source = reader._act(x, is_image)
    target = reader._new(y, is_image_out, reader.tensors[source].quant)
    if order == sorted(order):
        shape_constant = reader._constant("shape", np.array(reader.tensors[target].shape, np.int32))
        reader._emit("RESHAPE", [node], [source, shape_constant], [target])
    else:
        reader._emit("TRANSPOSE", [node], [source, reader._constant("order", np.array(order, np.int32))], [target])


def _max_pool(reader: _Reader, node: _Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    _form(reader, x)
    shape, out_shape = reader.values[x][0], reader.values[y][0]
    _suits(len(shape) in (3, 4) and len(node.outputs) == 1)
    options = _window(node, shape, out_shape)
    source = reader._act(x, True)
    reader._emit("MAX_POOL_2D", [node], [source], [reader._new(y, True, reader.tensors[source].quant)], **options)


def _window(node: _Node, shape: tuple[int, ...], out_shape: tuple[int, ...]) -> dict[str, Any]:
    """Options of a pool; its pads behind the image are those that its output needs."""
    kernel = tuple(node.attrs["kernel_shape"])
    options = _pads_and_steps(node, shape[2:], kernel)
    _suits(options.pop("dilation_h") == options.pop("dilation_w") == 1)
    kernel_h, kernel_w = (1, *kernel) if len(kernel) == 1 else kernel
    (height, width), (out_h, out_w) = (
        ((1, *sizes) if len(sizes) == 1 else sizes) for sizes in (shape[2:], out_shape[2:])
    )
    top, bottom, left, right = options["pads"]
    bottom = max(bottom, (out_h - 1) * options["stride_h"] + kernel_h - height - top)
    right = max(right, (out_w - 1) * options["stride_w"] + kernel_w - width - left)
    return options | {"filter_h": kernel_h, "filter_w": kernel_w, "pads": (top, bottom, left, right)}


def _global_max_pool(reader: _Reader, node: _Node) -> None:
    x = node.inputs[0]
    _form(reader, x)
    _suits(len(reader.values[x][0]) in (3, 4))
    source = reader._act(x, True)
    inputs = [source, reader._constant("axes", np.array([1, 2], np.int32))]
    outputs = [reader._new(node.outputs[0], True, reader.tensors[source].quant)]
    reader._emit("REDUCE_MAX", [node], inputs, outputs, keep_dims=True)


def _integers(reader: _Reader, node: _Node, place: int, attr: str) -> list[int] | None:
    """A constant input, or the attribute that older files have instead."""
    if name := node.name(place):
        _suits(name in reader.constants)
        return [int(value) for value in reader.constants[name].reshape(-1)]
    return [int(value) for value in node.attrs[attr]] if attr in node.attrs else None


def _slice(reader: _Reader, node: _Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    is_image, shape = _form(reader, x), reader.values[x][0]
    starts, ends = (_integers(reader, node, place, attr) for place, attr in ((1, "starts"), (2, "ends")))
    if starts is None or ends is None:
        raise _Unsuited
    axes = _integers(reader, node, 3, "axes") or list(range(len(starts)))
    steps = _integers(reader, node, 4, "steps") or [1] * len(starts)
    chosen = [range(size) for size in shape]
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        chosen[axis] = chosen[axis][start:end:step]
    _cut(reader, node, y, chosen, is_image)


def _cut(reader: _Reader, node: _Node, output: str, chosen: list[range], is_image: bool) -> None:
    """Emit the elements of a node's input at these places along each axis in the file."""
    _suits(all(len(part) > 0 and part.step > 0 for part in chosen))
    source = reader._act(node.inputs[0], is_image)
    parts = _in_graph(chosen, is_image, range(1))
    bounds = [[getattr(part, name) for part in parts] for name in ("start", "stop", "step")]
    inputs = [source, *(reader._constant("bounds", np.array(values, np.int32)) for values in bounds)]
    outputs = [reader._new(output, is_image, reader.tensors[source].quant)]
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    reader._emit("STRIDED_SLICE", [node], inputs, outputs, **dict.fromkeys(masks, 0))


def _split(reader: _Reader, node: _Node) -> None:
    x = node.inputs[0]
    is_image, shape = _form(reader, x), reader.values[x][0]
    axis, start = node.attrs.get("axis", 0) % len(shape), 0
    for output in node.outputs:
        size = reader.values[output][0][axis]
        chosen = [range(extent) for extent in shape]
        chosen[axis] = range(start, start + size)
        _cut(reader, node, output, chosen, is_image)
        start += size


def _pad(reader: _Reader, node: _Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    is_image, shape = _form(reader, x), reader.values[x][0]
    pads = _integers(reader, node, 1, "pads")
    if pads is None or node.attrs.get("mode", b"constant") != b"constant" or min(pads) < 0:
        raise _Unsuited
    axes = [axis % len(shape) for axis in _integers(reader, node, 3, "") or range(len(shape))]
    by_axis = [(0, 0)] * len(shape)
    for number, axis in enumerate(axes):
        by_axis[axis] = pads[number], pads[number + len(axes)]
    _suits(not node.name(2) or node.inputs[2] in reader.constants)
    is_image = is_image or (len(shape) in (3, 4) and by_axis[0] == by_axis[1] == (0, 0))
    source = reader._act(x, is_image)
    tensor = reader.tensors[source]
    fill = reader.constants[node.inputs[2]].reshape(-1)[0] if node.name(2) else 0
    if node.attrs.get(_ON_REAL, False):
        _suits(fill == 0 and len(node.inputs) > 1)
        fill = tensor.quantisation.zero_point[0]
        filler = f"{y} (filler)"
        reader.constants[filler] = np.array(fill, tensor.dtype)
        node = _with_inputs(node, (*node.inputs[:2], filler, *node.inputs[3:]))
    inputs = [
        source,
        reader._constant("pads", np.array(_in_graph(by_axis, is_image, (0, 0)), np.int32)),
        reader._constant("filler", np.array([fill], tensor.dtype)),
    ]
    reader._emit("PADV2", [node], inputs, [reader._new(y, is_image, tensor.quant)])


def _resize(reader: _Reader, node: _Node) -> None:
    """Nearest neighbours; which ones onnxruntime says."""
    x, y = node.inputs[0], node.outputs[0]
    _form(reader, x)
    shape, out_shape = reader.values[x][0], reader.values[y][0]
    _suits(node.attrs.get("mode", b"nearest") == b"nearest" and len(shape) == 4 and shape[:2] == out_shape[:2])
    _suits(node.attrs.get("coordinate_transformation_mode", b"half_pixel") != b"tf_crop_and_resize")
    port = Port(x, 0, shape, np.dtype(np.float32), False), Port(y, 0, out_shape, np.dtype(np.float32), False)
    unit = reader._unit([node], [], [])
    unit = replace(unit, inputs=port[:1], outputs=port[1:])
    pixels = []
    for axis in (2, 3):
        places = np.arange(shape[axis], dtype=np.float32).reshape([-1 if n == axis else 1 for n in range(4)])
        (found,) = unit.run(unit.load(), [np.broadcast_to(places, shape).copy()])
        line = np.moveaxis(found, axis, -1).reshape(-1, out_shape[axis])
        _suits(bool((line == line[0]).all()))
        pixels.append(line[0].astype(np.int64))
    source = reader._act(x, True)
    size = reader._constant("size", np.array(out_shape[2:], np.int32))
    outputs = [reader._new(y, True, reader.tensors[source].quant)]
    reader._emit("RESIZE_NEAREST_NEIGHBOR", [node], [source, size], outputs, pixels=tuple(pixels))


def _blocks(reader: _Reader, node: _Node) -> None:
    x, y = node.inputs[0], node.outputs[0]
    _form(reader, x)
    source = reader._act(x, True)
    kind = {"DepthToSpace": "DEPTH_TO_SPACE", "SpaceToDepth": "SPACE_TO_DEPTH"}[node.kind]
    outputs = [reader._new(y, True, reader.tensors[source].quant)]
    options = {"is_by_channel": True} if node.attrs.get("mode", b"DCR") == b"CRD" else {}
    reader._emit(kind, [node], [source], outputs, block_size=node.attrs["blocksize"], **options)


def _gather(reader: _Reader, node: _Node) -> None:
    """Elements at constant places that are evenly spaced."""
    x, y, name = node.inputs[0], node.outputs[0], node.inputs[1]
    is_image, shape = _form(reader, x), reader.values[x][0]
    _suits(name in reader.constants and reader.constants[name].ndim <= 1 and reader.constants[name].size > 0)
    axis, places = node.attrs.get("axis", 0) % len(shape), reader.constants[name]
    indices = places.reshape(-1) % shape[axis]
    step = int(indices[1] - indices[0]) if len(indices) > 1 else 1
    _suits(step > 0 and bool((np.diff(indices) == step).all()))
    chosen = [range(extent) for extent in shape]
    chosen[axis] = range(int(indices[0]), int(indices[-1]) + 1, step)
    if places.ndim:
        _cut(reader, node, y, chosen, is_image)
        return
    kept = f"{y} (with its axis)"
    reader.values[kept] = tuple(map(len, chosen)), reader.values[x][1]
    _cut(reader, node, kept, chosen, False)
    source = reader._act(kept, False)
    reader._reshape(source, reader._new(y, False, reader.tensors[source].quant))


def _concat(reader: _Reader, node: _Node) -> None:
    """Bytes of one quantisation."""
    _join(reader, node, node.inputs, [None] * len(node.inputs), None)


def _qlinear_concat(reader: _Reader, node: _Node) -> None:
    target = reader._quants(node, 0)[0]
    names, quants = node.inputs[2::3], reader._quants(node, *range(3, len(node.inputs), 3))
    made = []
    for place, (name, quant) in enumerate(zip(names, quants, strict=True)):
        is_same = np.array_equal(quant.scale, target.scale) and np.array_equal(quant.zero_point, target.zero_point)
        if name in reader.constants or is_same:
            _suits(is_same)
            made.append(name)
            continue
        output = f"{node.outputs[0]} (part {place})"
        reader.values[output] = reader.values[name]
        alone = reader._renamed(node, {node.outputs[0]: output})
        alone = _with_inputs(alone, (*node.inputs[:2], *node.inputs[2 + 3 * place : 5 + 3 * place]))
        raw = onnx_package().NodeProto.FromString(alone.raw)
        next(attr for attr in raw.attribute if attr.name == "axis").i = 0
        is_image = _form(reader, name)
        inputs, outputs = [reader._act(name, is_image, quant)], [reader._new(output, is_image, target)]
        unit = reader._unit([alone], inputs, outputs)
        flat = replace(unit, nodes=(raw.SerializeToString(),))
        reader._add("QUANTIZE", inputs, outputs, {"table": flat.table()}, unit)
        made.append(output)
    plain = onnx_package().helper.make_node("Concat", made, [node.outputs[0]], axis=node.attrs["axis"])
    joined = _Node("Concat", tuple(made), node.outputs, {"axis": node.attrs["axis"]}, plain.SerializeToString())
    _join(reader, joined, made, [target] * len(made), target)


def _join(
    reader: _Reader, node: _Node, names: Sequence[str], quants: Sequence[Quant | None], target: Quant | None
) -> None:
    acts = [name for name in names if name not in reader.constants]
    _suits(len(acts) == len(names))
    forms = [_form(reader, name) for name in acts]
    rank = len(reader.values[acts[0]][0])
    is_image = rank in (3, 4) and any(forms)
    inputs = [reader._act(name, is_image, quant) for name, quant in zip(names, quants, strict=True)]
    found = target or reader.tensors[inputs[0]].quant
    outputs = [reader._new(node.outputs[0], is_image, found)]
    axis = _axis_in_graph(node.attrs["axis"], rank, is_image)
    reader._emit("CONCATENATION", [node], inputs, outputs, axis=axis, activation="NONE")


def _average_pool(reader: _Reader, node: _Node) -> None:
    x, (source, target) = node.inputs[0], reader._quants(node, 1, 3)
    _suits(reader._is_byte(x) and len(reader.values[x][0]) in (3, 4) and not node.attrs.get("channels_last", 0))
    _emit_average(reader, [node], node, (x, source), (node.outputs[0], target))


def _emit_average(
    reader: _Reader, nodes: list[_Node], pool: _Node, source: tuple[str, Quant], target: tuple[str, Quant]
) -> None:
    shape, out_shape = reader.values[source[0]][0], reader.values[target[0]][0]
    options = _window(pool, shape, out_shape)
    _suits(not pool.attrs.get("ceil_mode", 0))
    options["is_pad_counted"] = bool(pool.attrs.get("count_include_pad", 0))
    inputs, outputs = [reader._act(source[0], True, source[1])], [reader._new(target[0], True, target[1])]
    reader._emit("AVERAGE_POOL_2D", nodes, inputs, outputs, **options)


def _clip(reader: _Reader, node: _Node) -> tuple[float, float]:
    """The limits of a Clip."""
    found = []
    for place, attr, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        name = node.name(place)
        _suits(not name or name in reader.constants)
        found.append(float(reader.constants[name].item() if name else node.attrs.get(attr, default)))
    return found[0], found[1]


_Limits = tuple[float, float]
_NO_LIMITS = -np.inf, np.inf


def _float_average_pool(reader: _Reader, node: _Node, island: _Island, limits: _Limits) -> None:
    _suits(limits == _NO_LIMITS)
    last, x = island.nodes[-1], island.sources[0]
    _suits(len(reader.values[x][0]) in (3, 4))
    quant = reader._source_quant(x, island)
    _emit_average(reader, island.nodes, node, (x, quant), (last.outputs[0], reader._quants(last, 1)[0]))


def _float_mean(reader: _Reader, node: _Node, island: _Island, limits: _Limits) -> None:
    """The mean of each channel over the whole image."""
    last, x = island.nodes[-1], island.sources[0]
    rank, y = len(reader.values[x][0]), last.outputs[0]
    _suits(limits == _NO_LIMITS and rank in (3, 4))
    if node.kind == "ReduceMean":
        axes = _integers(reader, node, 1, "axes")
        _suits(axes is not None and sorted(axis % rank for axis in axes) == list(range(2, rank)))
    keeps_axes = len(reader.values[y][0]) == rank
    inputs = [
        reader._act(x, True, reader._source_quant(x, island)),
        reader._constant("axes", np.array([1, 2], np.int32)),
    ]
    outputs = [reader._new(y, keeps_axes, reader._quants(last, 1)[0])]
    reader._emit("MEAN", island.nodes, inputs, outputs, keep_dims=keeps_axes, is_float=True)


def _float_weights(reader: _Reader, node: _Node, island: _Island, axis: int) -> tuple[np.ndarray, Quant, Quant, Quant]:
    """Stored weights with their quantisation, per tensor or along `axis`, and the activations' before and behind."""
    found = reader._float_constant(node.inputs[1])
    _suits(found is not None and node.inputs[0] in reader.makers)
    weights, quant = found or _NOTHING
    _suits(weights.dtype in _DTYPES_8_BIT and len(set(quant.zero_point.tolist())) == 1)
    _suits(quant.scale.size == 1 or quant.axis % weights.ndim == axis)
    source, target = reader._source_quant(island.sources[0], island), reader._quants(island.nodes[-1], 1)[0]
    return weights, quant, source, target


_NOTHING = np.zeros(0, np.int8), Quant(np.ones(1, np.float32), np.zeros(1, np.int64))


def _float_conv(reader: _Reader, node: _Node, island: _Island, limits: _Limits) -> None:
    """A convolution that onnxruntime computes in float32, because of what follows it."""
    x, y = island.sources[0], island.nodes[-1].outputs[0]
    weights, quant, source, target = _float_weights(reader, node, island, 0)
    shape, bias = reader.values[x][0], node.name(2)
    _suits(len(shape) in (3, 4) and len(node.inputs) <= 3)
    options = _pads_and_steps(node, shape[2:], weights.shape[2:])
    if weights.ndim == 3:
        weights = weights[:, :, None]
    group = node.attrs.get("group", 1)
    is_depthwise = group == shape[1] and weights.shape[1] == 1
    order = (1, 2, 3, 0) if is_depthwise else (0, 2, 3, 1)
    if is_depthwise:
        options["depth_multiplier"] = weights.shape[0] // group
    inputs = [
        reader._act(x, True, source),
        _weights(reader, node.inputs[1], replace(quant, axis=3 if is_depthwise else 0), weights.transpose(order)),
        *([_float_bias(reader, bias, source, quant, weights.shape[0])] if bias else []),
    ]
    outputs = [reader._new(y, True, target)]
    kind = "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D"
    reader._emit(kind, island.nodes, inputs, outputs, **options, is_float=True, clip=limits)


def _float_gemm(reader: _Reader, node: _Node, island: _Island, limits: _Limits) -> None:
    """A product with a matrix of weights that onnxruntime computes in float32."""
    if node.attrs.get("transA", 0):
        x = island.sources[0]
        nodes = _turned(reader, island.nodes, x, reader._source_quant(x, island))
        island = _Island(nodes, [next(made.inputs[0] for made in nodes if made.outputs[0] == node.inputs[0])])
        node = island.core[0]
    x, y, is_matmul = island.sources[0], island.nodes[-1].outputs[0], node.kind == "MatMul"
    is_transposed = bool(node.attrs.get("transB", 0))
    alpha, beta = node.attrs.get("alpha", 1.0), node.attrs.get("beta", 1.0)
    weights, quant, source, target = _float_weights(reader, node, island, 0 if is_transposed else 1)
    _suits(weights.ndim == 2 and alpha > 0)
    source = _scaled(source, alpha)
    weights, bias = weights if is_transposed else weights.T, "" if is_matmul or beta == 0 else node.name(2)
    inputs = [
        reader._act(x, False, source),
        _weights(reader, node.inputs[1], replace(quant, axis=0), weights),
        *([_float_bias(reader, bias, source, quant, weights.shape[0], beta)] if bias else []),
    ]
    outputs = [reader._new(y, False, target)]
    options = {"activation": "NONE", "keep_num_dims": True, "is_float": True, "clip": limits}
    reader._emit("FULLY_CONNECTED", island.nodes, inputs, outputs, **options)


def _transposed_conv(reader: _Reader, node: _Node, island: _Island, limits: _Limits) -> None:
    """Kernels with dilation get zeros between their taps, those of groups zeros for the other groups' channels."""
    x, y = island.sources[0], island.nodes[-1].outputs[0]
    shape, out_shape = reader.values[x][0], reader.values[y][0]
    group, rank = node.attrs.get("group", 1), len(shape) - 2
    weights, quant, source, target = _float_weights(reader, node, island, 1)
    _suits(rank in (1, 2))
    if quant.scale.size > 1:
        quant = replace(quant, scale=np.tile(quant.scale, group), zero_point=np.tile(quant.zero_point, group))
    dilations = node.attrs.get("dilations", [1] * rank)
    extents = [(size - 1) * step + 1 for size, step in zip(weights.shape[2:], dilations, strict=True)]
    num_ic, num_oc = weights.shape[:2]
    dense = np.full((num_ic, group, num_oc, *extents), quant.zero_point[0], weights.dtype)
    owners = np.arange(num_ic) // (num_ic // group)
    taps = tuple(slice(None, None, step) for step in dilations)
    dense[(np.arange(num_ic), owners, slice(None), *taps)] = weights
    dense = dense.reshape(num_ic, group * num_oc, *([1] * (2 - rank)), *extents)
    strides, pads = list(node.attrs.get("strides", [1] * rank)), list(node.attrs.get("pads", [0] * 2 * rank))
    auto_pad = node.attrs.get("auto_pad", b"NOTSET")
    if auto_pad != b"NOTSET" or "output_shape" in node.attrs:
        more = node.attrs.get("output_padding", [0] * rank)
        for axis in range(rank):
            whole = (shape[2 + axis] - 1) * strides[axis] + more[axis] + extents[axis]
            total = whole - out_shape[2 + axis]
            pads[axis] = total // 2 if auto_pad == b"SAME_UPPER" else total - total // 2
    _suits(min(pads[:rank]) >= 0)
    if rank == 1:
        strides, pads = [1, *strides], [0, pads[0], 0, 0]
    options = {"stride_h": strides[0], "stride_w": strides[1], "pads": (pads[0], 0, pads[1], 0), "activation": "NONE"}
    outputs = [reader._new(y, True, target)]
    inputs = [
        reader._constant("shape", np.array(reader.tensors[outputs[0]].shape, np.int32)),
        _weights(reader, node.inputs[1], replace(quant, axis=0), dense.transpose(1, 2, 3, 0)),
        reader._act(x, True, source),
    ]
    if name := node.name(2):
        inputs.append(_float_bias(reader, name, source, quant, group * num_oc))
    macs = int(np.prod(shape)) * int(np.prod(weights.shape[1:]))
    reader._emit("TRANSPOSE_CONV", island.nodes, inputs, outputs, **options, macs=macs, is_float=True, clip=limits)


def _float_bias(reader: _Reader, name: str, source: Quant, weights: Quant, num_oc: int, factor: float = 1.0) -> int:
    """A bias in float32, times a factor, as the sums of integers that it is nearest to."""
    constant = reader._float_constant(name)
    if constant is not None:
        values = (constant[0].astype(np.float64) - constant[1].zero_point) * constant[1].scale
    else:
        _suits(name in reader.constants)
        values = reader.constants[name].astype(np.float64)
    _suits(values.shape[-1:] in ((), (1,), (num_oc,)) and all(size == 1 for size in values.shape[:-1]))
    values = np.broadcast_to(values.reshape(-1) * factor, (num_oc,))
    scales = float(source.scale[0]) * np.broadcast_to(weights.scale.astype(np.float64), (num_oc,))
    limits = np.iinfo(np.int32)
    return reader._constant(name, np.clip(np.rint(values / scales), limits.min, limits.max).astype(np.int32))


MOVES: dict[str, _Handler] = {
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Dropout"), _shapes_only),
    "Transpose": _transpose,
    "MaxPool": _max_pool,
    "GlobalMaxPool": _global_max_pool,
    "Slice": _slice,
    "Split": _split,
    "Pad": _pad,
    "Resize": _resize,
    "DepthToSpace": _blocks,
    "SpaceToDepth": _blocks,
    "Gather": _gather,
}
"""Nodes that move or compare values, and so do the same to bytes as to real numbers of one scale."""
CORES: dict[str, Callable[[_Reader, _Node, _Island, _Limits], None]] = {
    **dict.fromkeys(("Conv", "ms.FusedConv"), _float_conv),
    **dict.fromkeys(("Gemm", "ms.FusedGemm", "MatMul"), _float_gemm),
    "AveragePool": _float_average_pool,
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean"), _float_mean),
    "ConvTranspose": _transposed_conv,
}
"""Float nodes that the NPU computes on bytes."""
HANDLERS: dict[str, _Handler] = {
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
