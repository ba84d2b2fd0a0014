"""Is there a person? Photographs on the visual-wake-words network of MLPerf Tiny, on the simulated NPU.

    pip install scikit-image
    python examples/photos.py mlperf_tiny_vww_int8.tflite [--output photos.png]

The photographs are those that scikit-image ships. The network is `vww_96_int8.tflite` of
https://github.com/mlcommons/tiny, or any classifier of images; `--labels` names its classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import convoy.driver
from convoy.driver.report.answers import load_labels

PHOTOS = "astronaut", "camera", "chelsea", "coffee", "rocket"
"""Functions of `skimage.data` that need no download."""
LABELS = "no person", "person"
SIDE, MARGIN = 240, 24
"""Pixels of a photograph in the picture, and of the line below it."""


def square(photo: np.ndarray, side: int) -> Image.Image:
    """The middle of a photograph, in colours, `side` pixels wide and high."""
    image = Image.fromarray(photo).convert("RGB")
    edge = min(image.size)
    left, top = ((size - edge) // 2 for size in image.size)
    return image.crop((left, top, left + edge, top + edge)).resize((side, side))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--labels", type=Path, help="names of the classes, one per line")
    parser.add_argument("--output", type=Path, help="picture of the photographs and answers")
    parser.add_argument("--device", default="native")
    args = parser.parse_args()
    from skimage import data

    labels = load_labels(args.labels) if args.labels else LABELS
    network = convoy.driver.load(args.model)
    _, rows, _, _ = network.inputs[0].shape
    sheet = Image.new("RGB", (SIDE * len(PHOTOS), SIDE + MARGIN), "white")
    with network.stream(device=args.device) as stream:
        for place, name in enumerate(PHOTOS):
            photo = getattr(data, name)()
            outputs = stream.run(np.asarray(square(photo, rows), np.float32)[None] / 255)
            best = outputs.top(1, labels)[0]
            print(f"{name}: {best} ({outputs.report.cycles or 0:,} cycles)")
            sheet.paste(square(photo, SIDE), (SIDE * place, 0))
            ImageDraw.Draw(sheet).text((SIDE * place + 6, SIDE + 6), str(best), fill="black")
    if args.output:
        sheet.save(args.output)


if __name__ == "__main__":
    main()
