"""The classes with the largest outputs, by label."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import convoy.driver
from convoy.driver.cli import app
from convoy.driver.errors import GraphError
from convoy.driver.report.answers import answers, load_labels

DIGITS = Path(__file__).parents[3] / "examples" / "digits_int8.tflite"


def test_largest_first():
    found = answers(np.array([[0.1, 0.5, 0.5, 0.2]]), ["a", "b", "c", "d"], 3)
    assert [(answer.index, answer.label) for answer in found] == [(1, "b"), (2, "c"), (3, "d")]
    assert str(found[0]) == "b: 0.5"
    assert str(answers(np.array([1.0, 2.0]))[0]) == "class 1: 2"


@pytest.mark.parametrize("shape", [(), (1,), (2, 2), (1, 4, 4, 3)])
def test_what_is_no_vector_of_classes(shape):
    assert answers(np.zeros(shape)) is None


def test_labels_of_other_networks():
    with pytest.raises(GraphError, match="2 labels for 3 classes"):
        answers(np.zeros(3), ["a", "b"])


def test_files_of_labels(tmp_path):
    (tmp_path / "labels.txt").write_text("\ufeffone \ntwo\n\n", encoding="utf-8")
    assert load_labels(tmp_path / "labels.txt") == ["one", "two"]
    (tmp_path / "image").write_bytes(b"\x89PNG\xff")
    with pytest.raises(GraphError, match="image: is not a text of labels"):
        load_labels(tmp_path / "image")


def test_the_command_answers(tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("".join(f"digit {n}\n" for n in range(10)))
    command = ["run", str(DIGITS), "--device", "golden", "--labels", str(tmp_path / "labels.txt")]
    app([*command, "--json", str(tmp_path / "a.json")], standalone_mode=False)
    report = json.loads((tmp_path / "a.json").read_text())
    expected = convoy.driver.load(DIGITS).run(device="golden").top(labels=[f"digit {n}" for n in range(10)])
    assert [answer["label"] for answer in report["answers"]] == [answer.label for answer in expected]
    assert f"answer: {expected[0]}, " in capsys.readouterr().out


@pytest.mark.parametrize("head", [b"RIFF\x00\x00\x00\x00WAVEfmt ", b"fLaC", b"OggS", b"ID3\x04"])
def test_sounds_are_refused_with_a_word(head, tmp_path):
    (tmp_path / "sound").write_bytes(head + bytes(100))
    with pytest.raises(GraphError, match="sound: is a sound; the network takes int8"):
        app(["run", str(DIGITS), "--device", "golden", "--input", str(tmp_path / "sound")], standalone_mode=False)
