"""tools/apps/onnxruntime_library.py: the wheel's library under a linker's names."""

from __future__ import annotations

import ctypes
import sys

import pytest

import onnxruntime_library
from onnxruntime_library import find_library, main


@pytest.mark.skipif(find_library() is None, reason="no wheel of onnxruntime for Linux")
def test_both_names_are_the_wheels_library(tmp_path):
    for _ in range(2):
        assert main([str(tmp_path / "a")]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["libonnxruntime.so", "libonnxruntime.so.1"]
    library = ctypes.CDLL(str(tmp_path / "a" / "libonnxruntime.so"))
    assert library.OrtGetApiBase is not None


def test_without_a_wheel_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(onnxruntime_library, "find_library", lambda: None)
    assert main([str(tmp_path)]) == 1
    assert "there is no wheel" in capsys.readouterr().err
    assert main([]) == 2


def test_a_python_without_onnxruntime_has_no_library(monkeypatch):
    monkeypatch.setattr(sys.modules["importlib.util"], "find_spec", lambda _: None)
    assert find_library() is None
