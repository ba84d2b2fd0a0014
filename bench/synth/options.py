"""What Yosys and nextpnr are told, for designs around an NPU: `python -m options map TOP`, or `place`; `names` copies
Verilog with names that Yosys takes.
"""

import argparse
import sys

from technologies import ECP5
from tools import PLACING, plain_names


def main() -> None:
    """Print the commands or the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    step = parser.add_subparsers(dest="step", required=True)
    step.add_parser("map", help="Yosys commands").add_argument("top", help="name of the top module")
    step.add_parser("place", help="options of nextpnr")
    step.add_parser("names", help="Verilog, from standard input to standard output")
    args = parser.parse_args()
    if args.step == "names":
        sys.stdout.write(plain_names(sys.stdin.read()))
        return
    print(ECP5.script.format(top=args.top) if args.step == "map" else " ".join(PLACING))


if __name__ == "__main__":
    main()
