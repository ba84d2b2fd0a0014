"""Every command that a page shows in a fence: it runs on small inputs; or its target, options and files exist, and
another test, which is looked up, or CI runs it.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
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
CI = (ROOT / ".ci" / "run").read_text()
TESTS = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != Path(__file__).name)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DIGITS = ROOT / "examples" / "digits_int8.tflite"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"))
    if "build" not in path.parts
)
STRICT = ("README.md", "CONTRIBUTING.md", "docs/tutorial.md", "docs/users/")
"""Pages where a fence without a language holds commands and nothing else."""
OURS = ("convoy", "make", "pytest", "python")
STEPS = 49
SMALLER = {"--device pysim": "", "--waves layer.vcd": "--device golden", " --measure": ""}
"""Options, and in their place others with less to do."""
ELSEWHERE = {
    "bench contract": "tests/driver/bench/test_contract.py",
    "bench speed": "tests/driver/bench/test_speed.py",
    "--scheduler": "tests/driver/test_parallel.py",
    "verilog ": "tests/driver/ip/test_folder.py",
    ".onnx": "tests/driver/test_cli_onnx.py",
    "iverilog": "tests/driver/ip/test_verilog.py",
    "verilator": "tests/driver/ip/test_folder.py",
    "fusesoc": "tests/driver/ip/test_folder.py",
    "peakrdl": "tests/driver/ip/test_systemrdl.py",
}
"""Commands with one of these take minutes of RTL, other machines, or packages that not everyone has; and the test that
runs what they run.
"""
UNTESTED = {"git": "", "cd": "", "pip": ""}
"""Tools of others that are not run: `pip` would install, and its extras are looked up."""
LONG = {
    "bench/synth/run.py": "place and route: hours",
    "bench/synth/survey.py": "maps dozens of configurations: hours",
    "bench/zoo/run.py": "TensorFlow and PyTorch",
    "bench/speed.py": "simulates MLPerf Tiny networks, which are not part of this",
}
"""Scripts that no test runs, and why."""
DEVICES = {"run": "golden", "layer": "golden", "profile": "model"}
"""The device of a command that names none. Networks are the digits, or one of unknown size with --shape."""


def fences(page: str, language: str) -> list[str]:
    """The text in each fence of a page that is marked as of this language."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    found = re.findall(r"^ *```([^\n]*)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [inside for name, inside in found if name.strip() == language]


def lines_of(fence: str) -> list[str]:
    """Its commands, without comments and without `.venv/bin/`."""
    parts = [part for line in fence.splitlines() for part in re.sub(r"(^|\s+)#.*", "", line).split(" && ")]
    return [found for part in parts if (found := part.strip().removeprefix("$ ").removeprefix(".venv/bin/"))]


def is_tool(line: str) -> bool:
    """Does the line begin with a tool that pages may show?"""
    return line.split()[0] in (*OURS, *ELSEWHERE, *UNTESTED)


def commands() -> list[str]:
    """The commands of all pages, each once."""
    shown = [lines_of(fence) for page in PAGES for fence in fences(page, "")]
    return list(dict.fromkeys(line for lines in shown if lines and is_tool(lines[0]) for line in lines))


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
    return not command.startswith("-") and not any(text in f"{command} " for text in ELSEWHERE)


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
def test_targets_are_run(command):
    """By CI, or the module or the example behind the target by a test."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    words = shlex.split(command)
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    if words[0] == "-C":
        assert f'"{words[1].split("/")[1]}"' in TESTS
        assert done.returncode == 0 or "say which" in done.stdout + done.stderr
        return
    assert done.returncode == 0, done.stderr
    if f"make {words[0]}" not in CI:
        check_started(done.stdout)


def check_started(text: str) -> None:
    """The modules and scripts of Convoy that are started are there, and tests run them."""
    for module in re.findall(r"-m (convoy\.[\w.]+)", text):
        assert find_spec(module) is not None
        room, *names = module.split(".")[1:]
        test = ROOT / "tests" / room
        paths = (test / f"test_{names[0]}.py", test / names[0], ROOT / "tests" / f"test_{names[-1]}.py")
        assert any(path.exists() for path in paths) or f"make {names[-1]}" in CI, module
    for script in re.findall(r"(?:bench|examples)/[\w/]+\.py", text):
        assert (ROOT / script).exists()
        assert script in LONG or re.search(rf'"{Path(script).stem}(\.py)?"', TESTS), script


def test_long_scripts_are_there():
    assert all((ROOT / script).is_file() for script in LONG)


@pytest.mark.parametrize("command", named("pytest"))
def test_tests_exist(command):
    words = shlex.split(command)
    paths = [ROOT / word.split("::")[0] for word in words if "/" in word]
    files = [file for path in paths for file in (path.rglob("test_*.py") if path.is_dir() else [path])]
    text = "".join(file.read_text() for file in (*files, *(ROOT / "docs" / "recipes").glob("*.patch")))
    chosen = [after for word, after in pairwise(words) if word == "-k"] + re.findall(r"::(\w+)", command)
    assert [word for word in chosen if word not in text] == []


@pytest.mark.parametrize("command", named("python"))
def test_scripts_are_run(command):
    check_started(command)


def test_tools_of_others():
    """A test runs them; what `pip` installs are extras that exist."""
    for text, test in ELSEWHERE.items():
        assert text.split()[-1] in (ROOT / test).read_text(), text
    extras = re.findall(r"\[(\w+)\]", "".join(named("pip")))
    assert extras
    assert set(extras) <= PROJECT["project"]["optional-dependencies"].keys()


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith(STRICT)])
def test_no_command_is_left_out(page):
    """All lines are commands of known tools, or their fence says what else they are."""
    shown = [line for fence in fences(page, "") for line in lines_of(fence)]
    assert [line for line in shown if not is_tool(line)] == []


def test_pages_for_users_begin_with_a_command_and_end_with_a_result():
    pages = [page for page in PAGES if page.startswith("docs/users/")]
    assert len(pages) == 5
    for page in pages:
        text = (ROOT / page).read_text()
        assert is_tool(lines_of(fences(page, "")[0])[0])
        assert text.index("```") < text.index("\n## "), page
        assert text.rindex("\n## ") == text.index("\n## The result\n"), page
        assert page.removeprefix("docs/") in (ROOT / "mkdocs.yml").read_text()
        assert f"]({page})" in (ROOT / "README.md").read_text()


def test_python_runs(convoy, folder):
    """What the pages show of Python reads the report of a run."""
    assert convoy(["run", "model.tflite", "--device", "golden", "--json", "report.json"])[0] == 0
    report = json.loads((folder / "report.json").read_text())
    for layer in report["layers"]:  # the golden model has no times
        layer |= {"cycles": 1, "utilisation": 0.5}
    (folder / "report.json").write_text(json.dumps(report))
    texts = [fence for page in PAGES for fence in fences(page, "python") if fence.startswith("import ")]
    assert len(texts) > 1
    for text in texts:
        done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_there_are_commands_of_each_kind():
    assert len(named("convoy")) > 10
    assert named("make")
    assert named("pytest")
