"""Modules that have moved: scripts that import them by a former name go on working."""

import importlib
import sys

import pytest

import convoy.driver


@pytest.mark.parametrize("name", sorted(convoy.driver._FORMER_NAMES))
def test_a_former_name_is_the_same_module(name, monkeypatch):
    for former in convoy.driver._FORMER_NAMES:
        monkeypatch.delitem(sys.modules, f"convoy.driver.{former}", raising=False)
    with pytest.warns(DeprecationWarning, match="now") as caught:
        former = importlib.import_module(f"convoy.driver.{name}")
    assert f"convoy.driver.{name} is convoy.driver.{convoy.driver._FORMER_NAMES[name]} now" in [
        str(warning.message) for warning in caught
    ]
    new = importlib.import_module(f"convoy.driver.{convoy.driver._FORMER_NAMES[name]}")
    assert {export: getattr(former, export) for export in new.__all__} == {
        export: getattr(new, export) for export in new.__all__
    }


def test_other_names_do_not_exist():
    with pytest.raises(ModuleNotFoundError, match=r"convoy\.driver\.nothing"):
        importlib.import_module("convoy.driver.nothing")
