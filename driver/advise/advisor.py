"""Advice on a network: what breaks a rule, each change tried in the whole network by the timing model, ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.errors import GraphError
from convoy.driver.graph.graph import Graph, Runtime
from convoy.driver.network import Network
from convoy.driver.runtime.device import MemoryModel
from convoy.driver.timing.estimate import estimate, estimated_cycles
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import NpuConfig

from .edits import prune_weights
from .rules import Change, Finding, find

__all__ = ["Advice", "Advised", "Option", "advise", "apply"]

MOST_TRIED = 60
"""Findings whose changes are tried, those of the largest costs first; each compiles the network again."""
SHARES = 0.5, 0.75, 0.9
"""Of weights that are zero."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Option:
    """A change, and what it wins in the whole network."""

    change: Change
    gain: float | None
    """Cycles; None where it was not tried or cannot be made here."""
    refusal: str | None = None
    """Why it cannot be made."""


@dataclass(frozen=True)
class Advice:
    """A finding with its options, the best first."""

    finding: Finding
    options: tuple[Option, ...]

    @property
    def gain(self) -> float:
        """Of the best option, at least 0."""
        return max((option.gain or 0 for option in self.options), default=0)

    @property
    def best(self) -> Option | None:
        """What wins most; None where nothing wins."""
        return self.options[0] if self.gain > 0 else None


@dataclass(frozen=True)
class Advised:
    """All advice on a network, the largest gain first."""

    cycles: int
    """Of the network as it is, estimated."""
    advice: tuple[Advice, ...]
    sparsity: dict[float, int | None]
    """Cycles by share of zero weights; None where the compiler refuses it."""


def advise(network: Network, progress: Progress = lambda text, done, total: None) -> Advised:
    """Ask the rules of each operator of a TFLite network, and try each change.

    `progress` is called with a text, what is done, and how much there is to do.

    Raises
    ------
    GraphError
        When the network is one of onnxruntime's.
    """
    graph, config, memory = network.graph, network.config, network.memory
    if graph.runtime != Runtime.LITERT:
        raise GraphError("advice is for TFLite networks; convert the network to TFLite")
    report = network.estimate()
    base = report["cycles"]
    known: dict[LayerSpec, float | None] = {}

    def twin(spec: LayerSpec) -> float | None:
        if spec not in known:
            known[spec] = _layer_cycles(spec, config, memory)
        return known[spec]

    findings: list[Finding] = []
    for finding in find(graph, report, config, twin):
        findings.append(finding)
        progress("asking the rules", len(findings), len(findings))
    findings.sort(key=lambda finding: -(finding.cost or 0))
    advice = []
    for number, finding in enumerate(findings):
        progress("trying changes", number, len(findings))
        tried = [_tried(change, graph, base, config, memory, number < MOST_TRIED) for change in finding.changes]
        options = sorted(tried, key=lambda option: -(option.gain if option.gain is not None else float("-inf")))
        advice.append(Advice(finding, tuple(options)))
    progress("trying changes", len(findings), len(findings))
    sparsity: dict[float, int | None] = {0.0: base}
    for share in SHARES:
        try:
            sparsity[share] = estimated_cycles(prune_weights(share)(graph), config, memory)
        except GraphError:
            sparsity[share] = None
    return Advised(base, tuple(sorted(advice, key=lambda one: (-one.gain, -(one.finding.cost or 0)))), sparsity)


def apply(graph: Graph, advice: Sequence[Advice], number: int) -> tuple[Graph, list[tuple[Advice, Option]]]:
    """The network with the best change of the first `number` findings that have one which wins, and those; a change
    that an earlier one has made impossible is left out.
    """
    done: list[tuple[Advice, Option]] = []
    for one in advice:
        if len(done) == number:
            break
        if one.best is None or one.best.change.edit is None:
            continue
        try:
            graph = one.best.change.edit(graph)
        except GraphError:
            continue
        done.append((one, one.best))
    return graph, done


def _tried(change: Change, graph: Graph, base: int, config: NpuConfig, memory: MemoryModel, is_tried: bool) -> Option:
    """A change with its gain."""
    if change.edit is None or not is_tried:
        return Option(change, None)
    try:
        return Option(change, base - estimated_cycles(change.edit(graph), config, memory))
    except GraphError as error:
        return Option(change, None, str(error))


def _layer_cycles(spec: LayerSpec, config: NpuConfig, memory: MemoryModel) -> float | None:
    """Of a layer in the middle of a network; None if it is refused."""
    try:
        graph = make_layer(spec).graph
        inside = replace(graph, inputs=())
        plan = compile_graph(inside, config, keep_tensors=True, layers=range(len(graph.ops)), is_strict=True)
    except GraphError:
        return None
    return estimate(plan, memory).cycles
