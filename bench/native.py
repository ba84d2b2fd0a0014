"""How fast compiled models of `native` are against one another: `python bench/native.py OLD.so NEW.so`.

The models are those that `convoy` keeps in its cache folder, of one configuration. They take turns, since the speed of
a shared machine changes from minute to minute; each figure is the best of several rounds, in processor time. All must
take the same cycles.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.devices.native import NativeDevice
from convoy.driver.graph.reader import load_network
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import load_config

LAYERS = {
    "3x3 convolution": LayerSpec("conv", (32, 32, 32), 64, (3, 3), pads=(1, 1, 1, 1)),
    "depthwise": LayerSpec("depthwise", (48, 48, 32), 32, (3, 3), pads=(1, 1, 1, 1)),
}


class TimedDevice(NativeDevice):
    """A device that adds up the processor time of its simulation, without that of the driver."""

    seconds = 0.0

    def wait(self, max_cycles, progress=None):
        begin = time.thread_time()
        try:
            return super().wait(max_cycles, progress)
        finally:
            self.seconds += time.thread_time() - begin


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("libraries", nargs="+", type=Path, help="compiled models")
    parser.add_argument("--config", default="Q", help="a preset or a TOML file")
    parser.add_argument("--model", nargs="*", default=[], type=Path, help="networks to run beside the two layers")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    config = load_config(args.config)
    graphs = {name: make_layer(spec, 0).graph for name, spec in LAYERS.items()}
    graphs |= {path.stem: load_network(path).graph for path in args.model}
    plans = {name: compile_graph(graph, config) for name, graph in graphs.items()}
    inputs = {
        name: random_inputs([graph.tensors[index] for index in graph.inputs], 0) for name, graph in graphs.items()
    }
    best: dict[tuple[str, Path], float] = {}
    cycles: dict[str, int] = {}
    for _ in range(args.rounds):
        for name, plan in plans.items():
            for library in args.libraries:
                device = TimedDevice(config, library=library.resolve())
                found = Session(plan, device).run(inputs[name]).cycles
                device.close()
                if cycles.setdefault(name, found) != found:
                    sys.exit(f"{library} takes {found} cycles for {name}, not {cycles[name]}")
                best[name, library] = max(best.get((name, library), 0), found / device.seconds)
    print("| layer or network | cycles |", *(f"{library.stem} |" for library in args.libraries))
    print("| -- | -: |", "-: | " * len(args.libraries))
    for name in plans:
        rates = [best[name, library] for library in args.libraries]
        print(f"| {name} | {cycles[name]:,} |", *(f"{rate:,.0f} ({rate / rates[0]:.2f}) |" for rate in rates))


if __name__ == "__main__":
    main()
