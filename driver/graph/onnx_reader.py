"""ONNX files -> `Graph`. onnxruntime optimises the network first: what is read is what it executes, with quantised
operators in one piece, constants computed and shapes known. Both ways of writing quantised networks, QuantizeLinear
and DequantizeLinear around float operators (QDQ) and QLinear operators, become the same.

Operators get the names and layouts of TFLite. ONNX has channels first: images are transposed where they come in and go
out, and before what needs their order in the file, such as a reshape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from convoy.driver.ort.runtime import first_line, optimised
from convoy.driver.ort.unit import from_image

from .check import check_graph
from .graph import Graph, GraphError, Quant, Runtime
from .onnx_builder import TABLE_NAMES, Node, OnnxBuilder, is_same_quant, suits
from .onnx_bytes import HANDLERS
from .onnx_file import dynamic_scales, fix_shapes, is_quantised, parse_file
from .onnx_float import CORES, ELEMENTWISE, PAIRS, Island, clip_limits, source_quant
from .onnx_moves import MOVES

if TYPE_CHECKING:
    import onnx

__all__ = ["OnnxModel", "load_onnx"]

_UNKNOWN = (KeyError, IndexError, ValueError, TypeError, AttributeError)
"""What reading a network raises that uses more than tensors and operators on them."""
_MAX_ISLAND = 64
"""Nodes of an island at most; larger ones are float networks."""


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
        As for `load_tflite`.

    Raises
    ------
    GraphError
        When the package is missing, the file cannot be read, is not an ONNX file, has sizes that are not known, is not
        quantised, or onnxruntime does not run it. One line.
    """
    label, name = ("model", "model") if isinstance(source, bytes) else (str(source), Path(source).stem)
    try:
        model = parse_file(source)
        if not is_quantised(model):
            raise GraphError("the network is not quantised: convoy quantize MODEL --calibration FOLDER -o OUT does it")
        notes = fix_shapes(model, shapes or {}) + dynamic_scales(model)
        return _Reader(optimised(model.SerializeToString())).read(name, notes)
    except GraphError as error:
        raise GraphError(f"{label}: {error}") from None
    except _UNKNOWN as error:
        raise GraphError(
            f"{label}: holds what is not supported, as sequences and subgraphs are not "
            f"({type(error).__name__}: {first_line(error)})"
        ) from None


class _Reader(OnnxBuilder):
    """Goes through the nodes, and through islands of float ones as a whole."""

    def read(self, name: str, notes: tuple[str, ...]) -> OnnxModel:
        """The whole network, checked."""
        islands: dict[int, Island] = {}
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
        inputs = tuple(self.new(name, False) for name in self.inputs)
        for number in reversed(wanted):
            if number in islands:
                self._emit_island(islands[number])
            else:
                self._emit_node(self.nodes[number])
        outputs = tuple(self.act(output.name, False) for output in self.model.graph.output)
        graph = Graph(name, tuple(self.tensors), tuple(self.ops), inputs, outputs, (), notes, Runtime.ONNXRUNTIME)
        check_graph(graph)
        return OnnxModel(graph, self.model, self.origins, self.values)

    def _emit_node(self, node: Node) -> None:
        if node.kind not in HANDLERS or not self.attempt(lambda: HANDLERS[node.kind](self, node)):
            self._emit_host(node)

    def _emit_host(self, node: Node) -> None:
        """A node as it is, for the host."""
        is_image = (
            node.kind in ("QuantizeLinear", "DequantizeLinear")
            and self.per_tensor(node.name(1), node.name(2)) is not None
            and len(self.values[node.outputs[0]][0]) == 4
        )
        if node.kind == "DequantizeLinear":
            is_image = is_image and self.is_image(node.inputs[0])
        inputs = [
            self.act(name, is_image) if name in self.values and name not in self.constants else
            self.constant(name, self.constants[name]) if name in self.constants else -1
            for name in node.inputs
        ]  # fmt: skip
        quant = None
        if node.kind == "QuantizeLinear":
            quant = self.per_tensor(node.name(1), node.name(2))
        is_fixed = all(name in self.constants for name in node.inputs[1:] if name)
        if node.kind in ("QuantizeLinear", "DequantizeLinear") and is_fixed:
            kind, inputs = node.kind.upper()[:-6], inputs[:1]
        else:
            kind = node.kind.removeprefix("ms.")
        outputs = [self.new(name, is_image, quant) for name in node.outputs if name]
        self.emit(kind, [node], inputs, outputs)

    def _island(self, last: Node) -> Island | None:
        """The float nodes that a QuantizeLinear ends, if all that they read is quantised activations and
        constants.
        """
        found: dict[int, Node] = {}
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
                    if not self.is_byte(name) or self.per_tensor(node.name(1), node.name(2)) is None:
                        return None
                    sources.append(name)
                elif name in self.makers and len(found) < _MAX_ISLAND:
                    todo.append(self.makers[name])
                else:
                    return None
        nodes = [node for node in self.nodes if id(node) in found]
        return Island(nodes, list(dict.fromkeys(sources)))

    def _is_elementwise(self, nodes: list[Node], shape: tuple[int, ...]) -> bool:
        """Do nodes compute each element of a result of some shape from elements of operands?"""
        return all(
            node.kind in ELEMENTWISE
            and all(_fits_into(self.values[name][0], shape) for name in node.outputs)
            and all(self.constants[name].size == 1 for name in node.inputs if name in self.constants)
            for node in nodes
        )

    def _emit_island(self, island: Island) -> None:
        for emit in (self._unary_island, self._chain_island, self._pair_island, self._core_island):
            if self.attempt(lambda emit=emit: emit(island)):  # type: ignore[misc]
                return
        for node in island.nodes:
            if not any((name, is_image) in self.places for name in node.outputs for is_image in (False, True)):
                self._emit_node(node)

    def _unary_island(self, island: Island) -> None:
        """A function of each element of one activation."""
        last, names = island.nodes[-1], [node.kind for node in island.core]
        suits(len(island.sources) == 1 and self.is_byte(last.outputs[0]))
        shape = self.values[island.sources[0]][0]
        suits(self._is_elementwise(island.nodes, shape) and self.values[last.outputs[0]][0] == shape)
        kind = TABLE_NAMES.get(names[0], "TABLE") if len(names) == 1 else "TABLE" if names else "QUANTIZE"
        source, target = source_quant(self, island.sources[0], island), self.per_tensor(last.name(1), last.name(2))
        self.emit_table(kind, island.nodes, (island.sources[0], source), (last.outputs[0], target))

    def _chain_island(self, island: Island) -> None:
        """Nodes that move values, before or behind functions of each element: these become a table between moves of
        bytes.
        """
        first, last, core = island.nodes[0], island.nodes[-1], island.core
        suits(len(island.sources) == 1 and self.is_byte(last.outputs[0]))
        source, target = self.quants(first, 1)[0], self.quants(last, 1)[0]
        previous = first.outputs[0]
        for node in core:
            suits(node.inputs[0] == previous and sum(name not in self.constants for name in node.inputs if name) == 1)
            previous = last.inputs[0] if last.inputs[0] in node.outputs else node.outputs[0]
        is_move = [node.kind in MOVES for node in core]
        num_before = is_move.index(False) if False in is_move else len(core)
        num_behind = is_move[::-1].index(False) if False in is_move else 0
        middle = core[num_before : len(core) - num_behind]
        name, dtype = island.sources[0], self.values[island.sources[0]][1]
        for node in core[:num_before]:
            name = self._move(node, name, self._wanted(node, core, last), source, dtype)
        suits(not any(node.kind in MOVES for node in middle))
        out_dtype = self.values[last.outputs[0]][1]
        if middle or dtype != out_dtype or not is_same_quant(source, target):
            shape = self.values[middle[-1].outputs[0] if middle else name][0]
            suits(self._is_elementwise(middle, shape))
            renamed = [first.renamed({first.inputs[0]: name})]
            renamed += [node.renamed({middle[0].inputs[0]: first.outputs[0]}) for node in middle]
            end = middle[-1].outputs[0] if middle else first.outputs[0]
            output = last.outputs[0] if not num_behind else f"{name} (by a table)"
            self.values[output] = shape, out_dtype
            renamed.append(last.renamed({last.inputs[0]: end, last.outputs[0]: output}))
            self.emit_table("TABLE" if middle else "QUANTIZE", renamed, (name, source), (output, target))
            name = output
        for node in core[len(core) - num_behind :] if num_behind else ():
            name = self._move(node, name, self._wanted(node, core, last), target, out_dtype)
        if name != last.outputs[0]:
            self._same(name, last.outputs[0])

    def _wanted(self, node: Node, core: list[Node], last: Node) -> str:
        """The output of a node of a chain that the chain goes on with."""
        place = core.index(node) + 1
        return last.inputs[0] if place == len(core) else core[place].inputs[0]

    def _move(self, node: Node, name: str, output: str, quant: Quant, dtype: np.dtype) -> str:
        """Emit a float node on bytes; the name of its result that stands for `output`."""
        names = {n: f"{n} (bytes)" for n in node.outputs if n}
        for float_name, byte_name in names.items():
            self.values[byte_name] = self.values[float_name][0], dtype
        moved = replace(node.renamed({node.inputs[0]: name} | names), is_on_real=True)
        self.act(name, self.is_image(name), quant)
        MOVES[node.kind](self, moved)
        return names[output]

    def _same(self, name: str, output: str) -> None:
        """Emit a copy under another name."""
        is_image = self.is_image(name)
        source = self.act(name, is_image)
        self.reshape(source, self.new(output, is_image, self.tensors[source].quant))

    def _pair_island(self, island: Island) -> None:
        """A sum, difference or product of two activations, perhaps with a function of each element before or
        behind.
        """
        last, kinds = island.nodes[-1], [PAIRS[node.kind] for node in island.core if node.kind in PAIRS]
        shapes = [self.values[name][0] for name in island.sources]
        suits(len(island.sources) == 2 and len(kinds) == 1 and self.is_byte(last.outputs[0]))
        shape = self.values[last.outputs[0]][0]
        suits(self._is_elementwise(island.nodes, shape) and all(len(other) == len(shape) for other in shapes))
        pair = next(node for node in island.core if node.kind in PAIRS)
        names = [self._source_of(name, island) for name in pair.inputs]
        quants = [source_quant(self, name, island) for name in names]
        is_image = len(shape) in (3, 4) and any(self.is_image(name) for name in names)
        inputs = [self.act(name, is_image, quant) for name, quant in zip(names, quants, strict=True)]
        outputs = [self.new(last.outputs[0], is_image, self.quants(last, 1)[0])]
        unit = self.unit(island.nodes, inputs, outputs)
        self.add(kinds[0], inputs, outputs, {"activation": "NONE", "pairs": unit.pairs()}, unit)

    def _source_of(self, name: str, island: Island) -> str:
        """The only activation that a float tensor of an island is computed from."""
        todo, found = [name], set[str]()
        while todo:
            node = self.makers[todo.pop()]
            names = [other for other in node.inputs if other and other not in self.constants]
            (found.update if node.kind == "DequantizeLinear" else todo.extend)(names)
        suits(len(found) == 1)
        return found.pop()

    def _core_island(self, island: Island) -> None:
        """One operator with weights, perhaps with a Relu or Clip behind it, or an average."""
        core, *behind = island.core
        suits(core.kind in CORES and len(island.sources) == 1)
        low, high, previous = -np.inf, np.inf, core.outputs[0]
        if (activation := core.attrs.get("activation", b"")) not in (b"", b"Relu"):
            suits(activation == b"Clip")
            low, high = core.attrs["activation_params"]
        low = max(low, 0.0) if activation == b"Relu" else low
        for node in behind:
            suits(node.kind in ("Relu", "Clip") and node.inputs[0] == previous)
            bounds = (0.0, np.inf) if node.kind == "Relu" else clip_limits(self, node)
            low, high, previous = max(low, bounds[0]), min(high, bounds[1]), node.outputs[0]
        CORES[core.kind](self, core, island, (low, high))


def _fits_into(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Can a tensor be broadcast to a shape?"""
    return len(shape) <= len(target) and all(
        size in (1, extent) for size, extent in zip(shape[::-1], target[::-1], strict=False)
    )
