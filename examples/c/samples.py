"""Write images of handwritten digits, and what LiteRT's reference kernels make of them, as C: `python samples.py Q -o
samples.h`.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

import convoy.driver
from convoy.driver.c.offload import find_offload
from convoy.driver.workload.reference import run_reference

sys.path.insert(0, str(Path(__file__).parents[1]))
from digits import MODEL_PATH, NUM_TRAIN, load_digits

COUNT = 10


def array(declaration: str, rows: np.ndarray) -> str:
    """A constant array of C of two dimensions."""
    lines = ",\n".join("    {" + ", ".join(map(str, row)) + "}" for row in rows.reshape(len(rows), -1).tolist())
    return f"static const {declaration} = {{\n{lines},\n}};\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    network = convoy.driver.load(MODEL_PATH, given.config)
    (image,) = network.inputs
    (scores,) = find_offload(network.plan).outputs
    real, labels = (values[NUM_TRAIN : NUM_TRAIN + COUNT] for values in load_digits())
    images = np.clip(np.rint(real / image.scale) + image.zero_point, -128, 127).astype(np.int8)
    expected = [run_reference(MODEL_PATH.read_bytes(), [each[np.newaxis]])[scores] for each in images]
    texts = [
        "/* Written by samples.py. */",
        f"#define NUM_SAMPLES {COUNT}",
        array(f"int8_t images[NUM_SAMPLES][{images[0].size}]", images),
        array(f"int8_t expected[NUM_SAMPLES][{expected[0].size}]", np.array(expected)),
        f"static const int labels[NUM_SAMPLES] = {{{', '.join(map(str, labels))}}};",
    ]
    given.output.write_text("\n".join(texts) + "\n")


if __name__ == "__main__":
    main()
