"""One network of the zoo, in a process of its own: `examine.py MODEL ROW.json --config Q --rtl-cycles N`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from convoy.driver.bench.network import examine
from convoy.spec.config import load_config


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("row", type=Path)
    parser.add_argument("--config", default="Q")
    parser.add_argument("--rtl-cycles", type=int, default=0)
    args = parser.parse_args()
    row = examine(args.model, load_config(args.config), args.rtl_cycles)
    args.row.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
