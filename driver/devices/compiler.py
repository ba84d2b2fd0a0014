"""The C++ compiler of the simulation, and how it compiles with the profile of a run."""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from convoy.driver.errors import DeviceError

__all__ = ["Compiler", "find_compiler", "run_tool"]


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Parameters
    ----------
    command : tuple[str, ...]
    version : str
        What it calls itself.
    profile_tool : str | None
        `llvm-profdata`, when the compiler is Clang and it is there.
    """

    command: tuple[str, ...]
    version: str
    profile_tool: str | None = None

    @property
    def is_clang(self) -> bool:
        return "clang" in self.version

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags that only this kind of compiler knows: libraries are to be unloaded when they are closed."""
        return () if self.is_clang else ("-fno-gnu-unique",)

    @property
    def libraries(self) -> tuple[str, ...]:
        """Libraries for linking: Clang does not add GCC's for atomic operations by itself."""
        return ("-pthread", "-latomic") if self.is_clang else ("-pthread",)

    @property
    def can_profile(self) -> bool:
        """Whether it can compile with a profile."""
        return not self.is_clang or self.profile_tool is not None

    def collect_flags(self, folder: Path) -> tuple[str, ...]:
        """Flags for a program that leaves its profile in the folder."""
        if self.is_clang:
            return (f"-fprofile-generate={folder}",)
        return ("-fprofile-generate", "-fprofile-update=single")

    def use_flags(self, folder: Path) -> tuple[str, ...]:
        """Flags for compiling with that profile, which is there.

        Raises
        ------
        DeviceError
            When there is none, or the tool fails.
        """
        if not self.is_clang:
            return ("-fprofile-use", "-fprofile-partial-training", "-Wno-missing-profile")
        profiles = [str(path) for path in folder.glob("*.profraw")]
        if not profiles:
            raise DeviceError("the run left no profile")
        merged = folder / "model.profdata"
        run_tool([str(self.profile_tool), "merge", "-o", str(merged), *profiles])
        return (f"-fprofile-use={merged}",)


def find_compiler() -> Compiler:
    """The compiler in `CXX`; without it Clang, whose model is faster, if it is installed with its tool for profiles,
    otherwise `g++`.

    Raises
    ------
    DeviceError
        When there is none.
    """
    chosen = shlex.split(os.environ.get("CXX", ""))
    if not chosen:
        for name in _installed_clangs():
            compiler = _compiler((name,))
            if compiler.can_profile:
                return compiler
        chosen = ["g++"]
    if shutil.which(chosen[0]) is None:
        raise DeviceError(
            f"device native needs a C++ compiler and {chosen[0]!r} is not in PATH; run: apt-get install g++"
        )
    return _compiler(tuple(chosen))


def run_tool(command: list[str], env: dict[str, str] | None = None) -> str:
    """What a command prints. Raises `DeviceError` with the end of its messages when it fails."""
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if result.returncode:
        raise DeviceError(f"{Path(command[0]).name} failed:\n{(result.stderr or result.stdout)[-2000:]}")
    return result.stdout


def _installed_clangs() -> list[str]:
    """`clang++` and versioned names like `clang++-14` in PATH, the plain one first, then the newest."""
    versions = {
        int(path.name.removeprefix("clang++-"))
        for folder in os.get_exec_path()
        for path in Path(folder).glob("clang++-*")
        if re.fullmatch(r"clang\+\+-\d+", path.name)
    }
    names = ["clang++", *(f"clang++-{version}" for version in sorted(versions, reverse=True))]
    return [name for name in names if shutil.which(name)]


def _compiler(command: tuple[str, ...]) -> Compiler:
    return _ask(command, os.environ.get("PATH"))


@functools.cache
def _ask(command: tuple[str, ...], _path: str | None) -> Compiler:
    """What a command in this PATH is; asked once, as devices are opened often."""
    version = run_tool([*command, "--version"]).partition("\n")[0]
    if "clang" not in version:
        return Compiler(command, version)
    tool = shutil.which(run_tool([*command, "-print-prog-name=llvm-profdata"]).strip())
    return Compiler(command, version, tool)
