"""The layout rules of the Kotlin sources; the compiler knows nothing of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ANDROID = ROOT / "apps" / "android"
SOURCES = sorted(ANDROID.rglob("*.kt"))
MOST_LINES, MOST_COLUMNS = 350, 110
# What Android 28 has not, and what differs between Android's versions.
BANNED = {
    "java.nio.file": "Android 28 has no Files.readString, and File is enough",
    "java.net.http": "Android has no such package",
    "kotlin.text.Regex": "its tables are the platform's",
    "Regex(": "its tables are the platform's",
    ".toRegex(": "its tables are the platform's",
    "java.util.regex": "its tables are the platform's",
    "Character.": "its tables are the platform's",
    ".isLetter()": "its tables are the platform's",
    ".isDigit()": "its tables are the platform's",
    ".isWhitespace()": "its tables are the platform's",
}
NO_ANDROID = re.compile(r"^import (android|androidx|com\.google)\.", re.MULTILINE)


def faults(source: str, *, product: bool, core: bool) -> list[str]:
    lines = source.splitlines()
    found = [f"{len(lines)} lines"] if len(lines) > MOST_LINES else []
    found += [f"line {n} is long" for n, text in enumerate(lines, 1) if len(text) > MOST_COLUMNS]
    found += [f"line {n} has a tab" for n, text in enumerate(lines, 1) if "\t" in text]
    if product and re.search(r"\w!!", source):
        found.append("!! without a message")
    if core:
        found += [f"{name}: {why}" for name, why in BANNED.items() if name in source]
        found += ["an import of Android"] if NO_ANDROID.search(source) else []
    return found


def test_the_readme_shows_what_a_test_runs():
    (shown,) = re.findall(r"```kotlin\n(.*?)```", (ANDROID / "README.md").read_text("utf-8"), re.S)
    source = ANDROID / "engine-onnx/src/test/kotlin/org/llamaexport/engine/onnx/Ask.kt"
    assert source.read_text("utf-8").endswith(shown)
    assert len(shown[shown.index("/**") :].splitlines()) <= 30


def test_there_are_sources():
    assert ANDROID / "core/src/main/kotlin/org/llamaexport/core/StepModel.kt" in SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ANDROID).as_posix())
def test_a_source_keeps_the_rules(path):
    place = path.relative_to(ANDROID).parts
    product = "test" not in place
    found = faults(path.read_text("utf-8"), product=product, core=product and place[0] == "core")
    assert found == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("a\n" * 351, "351 lines"),
        ("x" * 111, "line 1 is long"),
        ("\tx", "line 1 has a tab"),
        ("found!!.size", "!! without a message"),
        ("if (char.isLetter()) 1", ".isLetter(): its tables are the platform's"),
        ("import android.os.Build", "an import of Android"),
    ],
)
def test_a_source_that_breaks_one_is_found(source, fault):
    assert faults(source, product=True, core=True) == [fault]
