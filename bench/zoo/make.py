"""Makes one network of the zoo with a real converter. Runs in the environment of `requirements.txt`.

python make.py --list             names by source, as JSON
python make.py SOURCE NAME FILE   write that network
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0", CUDA_VISIBLE_DEVICES="")
SOURCES = {
    "keras.applications": ("keras_apps", "keras_export"),
    "keras": ("keras_nets", "keras_export"),
    "litert-torch": ("torch_nets", "torch_export"),
    "onnxruntime": ("torch_nets", "onnx_export"),
}
"""Source -> module that has its networks, module that writes them."""
SEED = 1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("source", nargs="?", choices=SOURCES)
    parser.add_argument("name", nargs="?")
    parser.add_argument("path", nargs="?", type=Path)
    args = parser.parse_args()
    if args.list:
        print(json.dumps({source: list(_recipes(source)) for source in SOURCES}))
        return
    _, exporter = SOURCES[args.source]
    part = args.path.with_name(f".{args.path.name}")
    importlib.import_module(exporter).export(_recipes(args.source)[args.name], part, SEED)
    part.rename(args.path)


def _recipes(source: str) -> dict:
    nets, _ = SOURCES[source]
    return importlib.import_module(nets).recipes()


if __name__ == "__main__":
    main()
