"""The layout rules of the Swift sources; the compiler and `swift format` know nothing of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IOS = ROOT / "apps" / "ios"
PACKAGE = IOS / "LlamaKit"
SOURCES = sorted(IOS.rglob("*.swift"))
MOST_LINES, MOST_COLUMNS = 350, 110
# What stands in quotes, on lines of its own or between number signs; and comments.
NO_CODE = re.compile(r'"""[\s\S]*?"""|#"[^\n]*?"#|"(?:\\.|[^"\\\n])*"|//[^\n]*')
# What ends the app instead of saying what is wrong.
CRASHES = {
    r"[\w)\]]!(?!=)": "a value taken by force",
    r"\bfatalError\(": "fatalError",
    r"\bpreconditionFailure\(": "preconditionFailure",
}
# What differs between versions of the system, or goes by whole clusters of characters.
TABLES = {
    r"\bNSRegularExpression\b": "its tables are the platform's",
    r"\bRegex\b": "its tables are the platform's",
    r"\bCharacterSet\b": "its tables are the platform's",
    r"\.properties\.": "its tables are the platform's",
    r"\.isLetter\b": "its tables are the platform's",
    r"\.isNumber\b": "its tables are the platform's",
    r"\.isWhitespace\b": "its tables are the platform's",
    r"\.whitespacesAndNewlines\b": "its tables are the platform's",
    r"\.enumerateSubstrings\b": "its tables are the platform's",
}
UNCHECKED = "@unchecked Sendable"


def faults(source: str, *, product: bool, core: bool) -> list[str]:
    lines = source.splitlines()
    found = [f"{len(lines)} lines"] if len(lines) > MOST_LINES else []
    found += [f"line {n} is long" for n, text in enumerate(lines, 1) if len(text) > MOST_COLUMNS]
    found += [f"line {n} has a tab" for n, text in enumerate(lines, 1) if "\t" in text]
    code = NO_CODE.sub('""', source)
    if product:
        found += [why for pattern, why in CRASHES.items() if re.search(pattern, code)]
        found += [
            f"line {n} does not say why threads may share it"
            for n, text in enumerate(lines, 1)
            if UNCHECKED in text and "//" not in "".join(lines[n - 2 : n])
        ]
    if core:
        found += [f"{name}: {why}" for name, why in TABLES.items() if re.search(name, code)]
    return found


def test_there_are_sources():
    assert PACKAGE / "Sources/LlamaKit/StepModel.swift" in SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(IOS).as_posix())
def test_a_source_keeps_the_rules(path):
    place = path.relative_to(IOS).parts
    # The bodies of declarations that a type check sees are never run.
    product = not {"Tests", "AppleDoubles"} & set(place)
    core = place[:3] == ("LlamaKit", "Sources", "LlamaKit")
    assert faults(path.read_text("utf-8"), product=product, core=core) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("a\n" * 351, "351 lines"),
        ("x" * 111, "line 1 is long"),
        ("\tx", "line 1 has a tab"),
        ("let size = found!.count", "a value taken by force"),
        ("let found = try! load()", "a value taken by force"),
        ("let found = values[0]!", "a value taken by force"),
        ("let model = found as! Model", "a value taken by force"),
        ('fatalError("a")', "fatalError"),
        ("if char.isLetter { 1 }", r"\.isLetter\b: its tables are the platform's"),
        ("let pattern: Regex<Substring>", r"\bRegex\b: its tables are the platform's"),
        (
            "let a = 1\nclass Shared: @unchecked Sendable {}",
            "line 2 does not say why threads may share it",
        ),
    ],
)
def test_a_source_that_breaks_one_is_found(source, fault):
    assert faults(source, product=True, core=True) == [fault]


@pytest.mark.parametrize(
    "source",
    [
        "if !a && b != c { d(!e) }",
        '"It is here!" // there!',
        '"""\nHere!\n"""',
        '#"a\\"!"#',
        "/// Nobody writes after it is made.\nclass Shared: @unchecked Sendable {}",
    ],
)
def test_what_looks_like_a_fault_is_none(source):
    assert faults(source, product=True, core=True) == []


def test_the_package_depends_on_nothing():
    manifest = (PACKAGE / "Package.swift").read_text("utf-8")
    assert manifest.startswith("// swift-tools-version: 6.0\n")
    assert ".package(" not in manifest
    # Whoever depends on a package with such flags is refused; these are for our own check alone.
    assert "unsafeFlags" not in manifest.split("if let runtime = Context.environment")[0]


def test_one_configuration_of_the_format_is_for_all_sources():
    assert [path.relative_to(IOS).as_posix() for path in IOS.rglob(".swift-format")] == [
        ".swift-format"
    ]
