"""What Yosys and nextpnr are told, for designs around an NPU: `python -m options map TOP`, or `place`."""

import argparse

from technologies import ECP5
from tools import PLACING


def main() -> None:
    """Print the commands or the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    step = parser.add_subparsers(dest="step", required=True)
    step.add_parser("map", help="Yosys commands").add_argument("top", help="name of the top module")
    step.add_parser("place", help="options of nextpnr")
    args = parser.parse_args()
    print(ECP5.script.format(top=args.top) if args.step == "map" else " ".join(PLACING))


if __name__ == "__main__":
    main()
