"""tools/release.py: a tag, the files that name a version or an address, and the notes."""

from __future__ import annotations

import subprocess
import sys

import pytest

import release
from release import CHANGES, CITATION, FILES, PLUGIN, VERSION_FILE, ReleaseError

ADDRESS = "https://github.com/Some-One/llama-export"
ADDRESSES = release.addresses_of(ADDRESS)
NOTES = "### Added\n\n- Everything.\n"
VERSION = release.read(VERSION_FILE).split('"')[-2]


@pytest.fixture
def texts() -> dict[str, str]:
    """The repository's own files as a release of them would be."""
    found = {path: release.read(path) for path in FILES}
    for path in release.PROJECTS:
        found[path] = release.with_table(found[path], ADDRESSES.table)
    found[CITATION] = release.with_citation(found[CITATION], ADDRESSES.citation)
    heading = "## [Unreleased]\n"
    dated = (
        f"{heading}\n## [{VERSION}] - 2026-12-01\n\n{NOTES}\n## [0.0.1] - 2026-01-01\n\n- Old.\n"
    )
    found[CHANGES] = found[CHANGES].replace(heading, dated, 1)
    return found


def test_files_that_agree_are_a_release(texts):
    assert release.faults(texts, f"v{VERSION}", ADDRESSES) == []


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (VERSION_FILE, f'"{VERSION}"', '"9.9.9"'),
        (PLUGIN, f'version = "{VERSION}"', 'version = "9.9.9"'),
        (PLUGIN, f"llama-export=={VERSION}", "llama-export==9.9.9"),
        (CITATION, f"version: {VERSION}", "version: 9.9.9"),
        (CITATION, "Some-One", "Somebody"),
        (CHANGES, f"[{VERSION}] - 2026-12-01", f"[{VERSION}]"),
        ("pyproject.toml", "Some-One", "Somebody"),
        (PLUGIN, "Some-One", "Somebody"),
    ],
)
def test_one_file_that_differs_is_named_alone(texts, path, old, new):
    texts[path] = texts[path].replace(old, new)
    (fault,) = release.faults(texts, f"v{VERSION}", ADDRESSES)
    assert path in fault


@pytest.mark.parametrize("tag", [VERSION, "v9.9.9", "latest"])
def test_another_tag_is_refused(texts, tag):
    assert release.faults(texts, tag, ADDRESSES)


def test_the_notes_are_the_versions_section_and_no_other(texts):
    assert release.notes_of(texts[CHANGES], VERSION) == NOTES
    assert release.notes_of(texts[CHANGES], "0.0") is None


def test_an_address_is_written_once_and_replaces_an_older_one(texts):
    other = release.addresses_of("https://github.com/another/home")
    for path in release.PROJECTS:
        again = release.with_table(release.with_table(texts[path], other.table), other.table)
        assert again.count("[project.urls]") == 1
        assert other.table in again
        assert "Some-One" not in again
        assert again.replace(other.table, ADDRESSES.table) == texts[path]
    citation = release.with_citation(texts[CITATION], other.citation)
    assert citation.replace(other.citation, ADDRESSES.citation) == texts[CITATION]


def test_the_table_is_toml_of_the_project(texts):
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    for path in release.PROJECTS:
        before, after = tomllib.loads(release.read(path)), tomllib.loads(texts[path])
        urls = after["project"].pop("urls")
        before["project"].pop("urls", None)
        assert before == after
        assert urls["Documentation"] == "https://some-one.github.io/llama-export/"
        assert urls["Repository"] == ADDRESS


@pytest.mark.parametrize(
    "address",
    [
        "",
        "llama-export",
        "http://github.com/a/b",
        f"{ADDRESS}/",
        f"{ADDRESS}\n",
        "https://github.com/a",
    ],
)
def test_an_address_that_is_no_repository_is_refused(address):
    with pytest.raises(ReleaseError, match=r"is not https://github\.com/OWNER/NAME"):
        release.addresses_of(address)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ([], 2, "RELEASING.md has the steps"),
        (["check", "v1"], 2, "RELEASING.md has the steps"),
        (["check", "v9.9.9", ADDRESS], 1, f"{VERSION_FILE} lacks"),
        (["notes", "v9.9.9"], 1, "has no section for v9.9.9"),
        (["address", "here"], 1, "here is not"),
    ],
)
def test_a_wrong_call_ends_with_its_reason(words, status, said):
    command = [sys.executable, release.__file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
