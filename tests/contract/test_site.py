"""The site of the pages: complete, sorted as its overview says, and red where a link is lost."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="needs PyYAML, which huggingface_hub brings")

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ROOT / "mkdocs.yml"
OVERVIEW = ROOT / "docs" / "README.md"
# Heading of the overview -> section of the site.
SECTIONS = {
    "To learn it": "Tutorial",
    "To get something done": "How-to",
    "To look something up": "Reference",
    "To understand it": "Explanation",
}

pytestmark = pytest.mark.skipif(
    not SETTINGS.is_file(), reason="the source distribution has no mkdocs.yml"
)
needs_mkdocs = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mkdocs", "material")),
    reason="needs mkdocs and mkdocs-material, of the group docs",
)


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, whose own tags stand for values that are not looked at here."""


Loader.add_multi_constructor("", lambda loader, suffix, node: None)


def pages_of(entry) -> Iterator[str]:
    """List the pages of a part of the navigation, in its order."""
    if isinstance(entry, str):
        yield entry
    else:
        for child in entry.values() if isinstance(entry, dict) else entry:
            yield from pages_of(child)


def navigation() -> dict[str, list[str]]:
    """Return the pages below docs/ of each section of the site."""
    settings = yaml.load(SETTINGS.read_text(encoding="utf-8"), Loader)
    sections = [entry for entry in settings["nav"] if isinstance(entry, dict)]
    return {
        name: [page for page in pages_of(entry) if page.startswith("docs/")]
        for section in sections
        for name, entry in section.items()
    }


def overview() -> dict[str, list[str]]:
    """Return the pages that the overview links to, by the site's name of its section."""
    parts = re.split(r"^## (.+)\n", OVERVIEW.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        SECTIONS[heading]: [f"docs/{page}" for page in re.findall(r"\]\(([^)#]+)", text)]
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def build(tree: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a tree, strictly."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=tree,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of what the site is made of."""
    site_files = pytest.importorskip("site_files")
    made_of = ["mkdocs.yml", "tools/site_files.py", *site_files.shown_files(ROOT)]
    for path in made_of:
        copy = tmp_path / "tree" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy)
    return tmp_path / "tree"


def test_the_overview_and_the_site_sort_every_page_alike():
    shown = navigation()
    assert shown["Tutorial"].pop(0) == "docs/README.md"
    assert {name: sorted(shown[name]) for name in SECTIONS.values()} == {
        name: sorted(pages) for name, pages in overview().items()
    }
    pages = sorted(page for section in shown.values() for page in section)
    there = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
    assert [page for page in there if page != "docs/README.md"] == pages


@needs_mkdocs
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(tmp_path):
    done = build(ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link)[^>]*(?:src|href)=\"?(\w+:)?//", text)
        assert loaded == [], page
    assert (tmp_path / "docs/performance/index.html").is_file()
    assert (tmp_path / "benchmarks/results/peers.png").is_file()
    assert list(tmp_path.glob("assets/stylesheets/main.*.css"))


@needs_mkdocs
def test_each_lost_link_and_page_fails_the_build(tree, tmp_path):
    lost = {
        "[a page](no-such-page.md)": "no-such-page.md",
        "[an anchor](chat.md#no-such-heading)": "no-such-heading",
        "[a file outside](../tools/no-such-file.py)": "no-such-file.py",
        "![a picture](../benchmarks/results/no-such-picture.png)": "no-such-picture.png",
    }
    with (tree / "docs" / "bench.md").open("a", encoding="utf-8") as page:
        page.writelines(f"\n{link}\n" for link in lost)
    (tree / "docs" / "forgotten.md").write_text("# Forgotten\n")
    done = build(tree, tmp_path / "site")
    assert done.returncode != 0
    for said in (*lost.values(), "docs/forgotten.md"):
        assert said in done.stderr
    assert done.stderr.count("WARNING") == 5
