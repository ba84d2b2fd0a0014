"""The choice of the C++ compiler, with compilers that are shell scripts."""

import os
import shutil

import pytest

from convoy.driver.devices import compiler
from convoy.driver.devices.compiler import find_compiler, run_tool
from convoy.driver.errors import DeviceError


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a program into an otherwise empty PATH: what it prints for `--version`, and for a question after a tool."""
    monkeypatch.delenv("CXX", raising=False)
    shell = shutil.which("sh")
    monkeypatch.setenv("PATH", str(tmp_path))

    def install(name, version, tool="llvm-profdata"):
        path = tmp_path / name
        path.write_text(f'#!{shell}\ncase "$*" in *--version) echo "{version}" ;; -print*) echo {tool} ;; esac\n')
        path.chmod(0o755)
        compiler._ask.cache_clear()

    return install


def test_gcc_without_clang(install):
    install("g++", "g++ 12.2.0")
    found = find_compiler()
    assert (found.command, found.version, found.can_profile) == (("g++",), "g++ 12.2.0", True)


def test_clang_needs_its_tool(install):
    install("g++", "g++ 12.2.0")
    install("clang++", "clang version 14.0.6")
    assert find_compiler().command == ("g++",)
    install("llvm-profdata", "LLVM")
    assert find_compiler().command == ("clang++",)


def test_the_newest_versioned_clang(install):
    for version in (9, 14):
        install(f"clang++-{version}", f"clang version {version}", f"llvm-profdata-{version}")
        install(f"llvm-profdata-{version}", "LLVM")
    install("clang++-cl", "clang version 99")
    found = find_compiler()
    assert found.command == ("clang++-14",)
    assert os.path.basename(found.profile_tool) == "llvm-profdata-14"


def test_cxx_decides(install, monkeypatch):
    install("clang++", "clang version 14")
    install("llvm-profdata", "LLVM")
    install("mine", "mine 1.0")
    monkeypatch.setenv("CXX", "mine -O9")
    assert find_compiler().command == ("mine", "-O9")
    monkeypatch.setenv("CXX", "clang++")
    os.remove(shutil.which("llvm-profdata"))
    compiler._ask.cache_clear()
    assert not find_compiler().can_profile


def test_none(install):
    with pytest.raises(DeviceError, match=r"'g\+\+' is not in PATH; run: apt-get install g\+\+"):
        find_compiler()


def test_a_run_without_a_profile(install, tmp_path):
    install("clang++", "clang version 14")
    install("llvm-profdata", "LLVM")
    with pytest.raises(DeviceError, match="left no profile"):
        find_compiler().use_flags(tmp_path)


def test_a_tool_that_fails():
    with pytest.raises(DeviceError, match="false failed"):
        run_tool([shutil.which("false")])
