"""Write random inputs of a network and what it makes of them as C, step after step: `python vectors.py MODEL --config Q
-o vectors.h`. The outputs are the golden model's; each is compared with the network's own runtime first.
"""

import argparse
import sys
from pathlib import Path

import convoy.driver
from convoy.driver.c.offload import find_offload
from convoy.driver.errors import GraphError

BYTES_PER_LINE = 24


def array(data: bytes) -> str:
    """The elements of an array of bytes."""
    rows = (data[start : start + BYTES_PER_LINE] for start in range(0, len(data), BYTES_PER_LINE))
    return ",\n".join("    " + ", ".join(map(str, row)) for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--config", default="Q")
    parser.add_argument("--shape", action="append", default=[])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    network = convoy.driver.load(given.model, given.config, shapes=given.shape)
    found = find_offload(network.plan)
    data, longest = bytearray(), 1
    with network.stream(device="golden", reference=True) as stream:
        for _ in range(given.steps):
            if stream.run().report["bit_exact"] is False:
                raise GraphError(f"{given.model}: results differ from the network's own runtime")
            for index in (*found.inputs, *found.outputs):
                values = stream.last.tensors[index]
                data += values.tobytes()
                longest = max(longest, values.nbytes)
    given.output.write_text(
        "/* Written by vectors.py: of each step the inputs, then the outputs. */\n"
        f"#define NUM_STEPS {given.steps}\n"
        f"#define VECTOR_BYTES {longest}\n"
        f"static const uint8_t vectors[] = {{\n{array(bytes(data))},\n}};\n"
    )


if __name__ == "__main__":
    try:
        main()
    except GraphError as error:
        sys.exit(f"vectors: {error}")
