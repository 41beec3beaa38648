"""tools/apps/apple_sources.py: conditions on Apple's systems, decided for a compiler on Linux."""

from __future__ import annotations

import pytest

from apple_sources import copy_sources, resolve_conditions

SOURCE = """\
#if os(iOS)
    one // os(iOS)
#elseif os(macOS) && canImport(AppKit)
    two
#endif
    #if !os(iOS) || DEBUG
    #endif
"""


def test_conditions_on_the_system_are_decided():
    assert (
        resolve_conditions(SOURCE, "macOS")
        == """\
#if false
    one // os(iOS)
#elseif true && canImport(AppKit)
    two
#endif
    #if !false || DEBUG
    #endif
"""
    )
    assert resolve_conditions(SOURCE, "iOS").startswith("#if true\n")


def test_another_system_is_refused():
    with pytest.raises(ValueError, match=r"os\(visionOS\): expected one of iOS, macOS"):
        resolve_conditions("#if os(visionOS)", "iOS")


def test_copies_are_made_anew(tmp_path):
    folder, target = tmp_path / "App", tmp_path / "copies" / "App"
    folder.mkdir()
    (folder / "B.swift").write_text("#if os(iOS)\n#endif\n")
    (folder / "A.swift").write_text("a\n")
    (folder / "words.txt").write_text("no source")
    assert copy_sources(folder, target, "iOS") == [target / "A.swift", target / "B.swift"]
    assert (target / "B.swift").read_text() == "#if true\n#endif\n"
    (folder / "A.swift").unlink()
    assert copy_sources(folder, target, "macOS") == [target / "B.swift"]
    assert [path.name for path in target.iterdir()] == ["B.swift"]
