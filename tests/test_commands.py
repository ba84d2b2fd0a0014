"""Every command that README.md, the tutorial, the pages for users and CONTRIBUTING.md show in a fence: it runs on small
inputs, or at least its target, options and files exist.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoy.driver import cli
from convoy.verif.litert import ModelBuilder
from convoy.verif.operators import edited

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "examples" / "digits_int8.tflite"
USERS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs" / "users").glob("*.md"))
PAGES = ("README.md", "docs/tutorial.md", "docs/integration.md", "docs/c-runtime.md", *USERS, "CONTRIBUTING.md")
STEPS = 49
SMALLER = {"--device pysim --waves layer.vcd": "--device golden", " --measure": ""}
"""Options, and in their place others with less to do."""
TOO_LONG = ("bench ", "--scheduler ", "verilog ")
"""Commands with one of these are not run: minutes of RTL, other machines, or Yosys (`tests/hw/test_emit.py`)."""
DEVICES = {"run": "golden", "layer": "golden", "profile": "model"}
"""The device of a command that names none. Networks are the digits, or one of unknown size with --shape."""


def fences(page: str) -> list[str]:
    """The text in each fence of a page."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    return re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The commands of all pages, each once, without comments and without `.venv/bin/`."""
    lines = [line for page in PAGES for fence in fences(page) for line in fence.splitlines()]
    parts = [part for line in lines for part in re.sub(r"\s+#.*", "", line).split(" && ")]
    return list(dict.fromkeys(part.strip().removeprefix("$ ").removeprefix(".venv/bin/") for part in parts))


def named(tool: str) -> list[str]:
    """The commands of a tool, without its name."""
    return [command.removeprefix(f"{tool} ") for command in commands() if command.startswith(f"{tool} ")]


def open_sized() -> bytes:
    """A convolution on an image of unknown size."""
    builder, rng = ModelBuilder(), np.random.default_rng(1)
    image = builder.tensor((1, 1, 1, 3), np.int8, 0.05, 3, name="input")
    wgt = builder.tensor((2, 1, 1, 3), np.int8, 0.01, 0, data=rng.integers(-127, 128, (2, 1, 1, 3)))
    bias = builder.tensor((2,), np.int32, 0.0005, 0, data=np.zeros(2))
    result = builder.tensor((1, 1, 1, 2), np.int8, 0.2, -5)
    builder.op("CONV_2D", [image, wgt, bias], [result], strideH=1, strideW=1, padding=0)

    def sign(packed, subgraph):
        for index in (image, result):
            subgraph.tensors[index].shapeSignature = [1, -1, -1, subgraph.tensors[index].shape[3]]

    return edited(builder.finish([image], [result]), sign)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with all files that the commands name."""
    path = tmp_path_factory.mktemp("commands")
    shutil.copy(DIGITS, path / "model.tflite")
    (path / "open.tflite").write_bytes(open_sized())
    (path / "labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(path / "digit.png")
    np.save(path / "features.npy", np.zeros((STEPS, 1, 8, 8, 1), np.int8))
    return path


@pytest.fixture
def convoy(folder, monkeypatch, capsys):
    """Runs the command in that folder: (exit code, standard output and error)."""

    def call(words: list[str]) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["convoy", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return caught.value.code, "".join(capsys.readouterr())

    return call


def is_run(command: str) -> bool:
    return not command.startswith("-") and not any(text in f"{command} " for text in TOO_LONG)


@pytest.mark.parametrize("command", [command for command in named("convoy") if is_run(command)])
def test_commands_run(convoy, command):
    for shown, run in SMALLER.items():
        command = command.replace(shown, run)
    words = shlex.split(command)
    network = "open.tflite" if "--shape" in words else "model.tflite"
    words = [
        network if word.endswith(".tflite") and before not in ("-o", "--output") else word
        for before, word in pairwise(["convoy", *words])
    ]
    if words[0] in DEVICES and "--device" not in words:
        words += ["--device", DEVICES[words[0]]]
    code, text = convoy(words)
    assert code == 0, text


@pytest.mark.parametrize("command", [command for command in named("convoy") if not is_run(command)])
def test_options_exist(convoy, command):
    words = shlex.split(command)
    options = [word for word in words if word.startswith("-")]
    subcommand = [] if command.startswith("-") else words[: 2 if words[0] == "bench" else 1]
    code, text = convoy([*subcommand, "--help"])
    assert (code, [option for option in options if option not in text]) == (0, [])


@pytest.mark.parametrize("command", named("make"))
def test_targets_exist(command):
    if shutil.which("make") is None:
        pytest.skip("needs make")
    done = subprocess.run(["make", "-n", *shlex.split(command)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [*named("pytest"), *named("python")])
def test_files_and_modules_exist(command):
    words = shlex.split(command)
    paths = [word.split("::")[0] for word in words if "/" in word]
    modules = [after for word, after in pairwise(words) if word == "-m" and "." in after]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [module for module in modules if find_spec(module) is None] == []


def test_python_runs(convoy, folder):
    """What the pages show of Python reads the report of a run."""
    assert convoy(["run", "model.tflite", "--device", "golden", "--json", "report.json"])[0] == 0
    report = json.loads((folder / "report.json").read_text())
    for layer in report["layers"]:  # the golden model has no times
        layer |= {"cycles": 1, "utilisation": 0.5}
    (folder / "report.json").write_text(json.dumps(report))
    texts = [fence for page in PAGES for fence in fences(page) if fence.startswith("import ")]
    for text in texts:
        done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_there_are_commands_of_each_kind():
    assert len(named("convoy")) > 10
    assert named("make")
    assert named("pytest")
