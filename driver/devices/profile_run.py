"""The workload that the profile-guided compilation of the native model learns from.

python -m convoy.driver.devices.profile_run LIBRARY CONFIG_AS_JSON
"""

import json
import sys
from pathlib import Path

from convoy.driver.compile.pipeline import compile_graph
from convoy.driver.runtime.session import Session
from convoy.driver.workload.inputs import random_inputs
from convoy.driver.workload.synthetic import LayerSpec, make_layer
from convoy.spec.config import NpuConfig

from .native import NativeDevice

LAYERS = (
    LayerSpec("conv", (16, 16, 16), 32, (3, 3), (1, 1), (1, 1, 1, 1), 1.0, "relu"),
    LayerSpec("conv", (12, 12, 32), 32, (1, 1), (1, 1), (0, 0, 0, 0), 0.5, "relu"),
    LayerSpec("conv", (17, 17, 8), 16, (3, 3), (2, 2), (0, 0, 0, 0), 1.0, "none"),
    LayerSpec("depthwise", (24, 24, 16), 16, (3, 3), (1, 1), (1, 1, 1, 1), 1.0, "relu6"),
)
"""A little of everything: dense, sparse, strided, depthwise; the conversion from NHWC exercises the tensor
processor.
"""


def main() -> None:
    """Run the layers on the library."""
    library, config = Path(sys.argv[1]), NpuConfig(**json.loads(sys.argv[2]))
    for spec in LAYERS:
        graph = make_layer(spec, 0).graph
        device = NativeDevice(config, library=library)
        try:
            Session(compile_graph(graph, config, keep_tensors=True, layers=None), device).run(
                random_inputs([graph.tensors[i] for i in graph.inputs], 0)
            )
        finally:
            device.close()


if __name__ == "__main__":
    main()
