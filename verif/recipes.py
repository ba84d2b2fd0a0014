"""Follows the recipes of `docs/recipes`: each patch is applied to a copy of the last commit, where its tests must pass.

`python -m convoy.verif.recipes [NAME ...]`
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["FOLDER", "ROOT", "commands", "follow", "patches"]

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "recipes"
PYTEST = ".venv/bin/pytest"


def patches() -> list[Path]:
    """The patch of each recipe."""
    return sorted(FOLDER.glob("*.patch"))


def commands(patch: Path) -> list[list[str]]:
    """The arguments of each pytest command that the recipe shows."""
    lines = patch.with_suffix(".md").read_text().splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(PYTEST)]


def follow(patch: Path, folder: Path) -> bool:
    """Apply a patch to a copy of the last commit in `folder`; whether the tests of its recipe pass there.

    Raises
    ------
    subprocess.CalledProcessError
        When there is no repository or the patch does not apply.
    """
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    subprocess.run(["git", "apply", patch], cwd=folder, check=True)
    names = folder / "build" / "typing"
    names.mkdir(parents=True)
    (names / "convoy").symlink_to("../..")
    env = os.environ | {"PYTHONPATH": str(names)}
    return all(
        subprocess.run([sys.executable, "-m", "pytest", *words], cwd=folder, env=env).returncode == 0
        for words in commands(patch)
    )


def main() -> int:
    names = [patch.stem for patch in patches()]
    parser = argparse.ArgumentParser(description="Follow the recipes of docs/recipes on copies of the last commit.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"recipes: {', '.join(names)}; all if none is named")
    given = parser.parse_args().names
    if unknown := sorted(set(given) - set(names)):
        parser.error(f"{unknown[0]!r} is no recipe; use {', '.join(names)}")
    failed = []
    for patch in patches():
        if not given or patch.stem in given:
            print(f"{patch.stem}:", flush=True)
            if not follow(patch, ROOT / "build" / "recipes" / patch.stem):
                failed.append(patch.stem)
    print(f"failed: {', '.join(failed)}" if failed else "all recipes can be followed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
