"""The patches of `docs/recipes` apply to the sources as they are; `make recipes` runs their tests too."""

import shutil
import subprocess

import pytest

from convoy.verif.recipes import FOLDER, ROOT, commands, patches

MAX_PATCH_LINES = 150


@pytest.mark.parametrize("patch", patches(), ids=lambda path: path.stem)
def test_patches_apply(patch):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a checkout with git: git clone instead of an archive")
    done = subprocess.run(["git", "apply", "--check", patch], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"{patch.name} no longer applies; docs/recipes/README.md says how to mend it\n{done.stderr}"
    )


@pytest.mark.parametrize("patch", patches(), ids=lambda path: path.stem)
def test_every_patch_has_a_recipe_that_names_its_tests(patch):
    assert len(patch.read_text().splitlines()) <= MAX_PATCH_LINES
    assert f"]({patch.name})" in patch.with_suffix(".md").read_text()
    assert f"]({patch.stem}.md)" in (FOLDER / "README.md").read_text()
    assert commands(patch)
    for words in commands(patch):
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))


def test_there_are_recipes():
    assert {path.stem for path in patches()} == {"tp-operator", "descriptor-field", "config-knob", "test"}
