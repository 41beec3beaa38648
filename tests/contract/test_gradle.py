"""The Gradle files of the Android app, which nothing here can run: what they name is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has none")
ROOT = Path(__file__).resolve().parents[2]
ANDROID = ROOT / "apps" / "android"


def catalogue_of_versions() -> dict[str, Any]:
    return tomllib.loads((ANDROID / "gradle/libs.versions.toml").read_text("utf-8"))


def test_the_modules_of_gradle_are_those_of_maven():
    settings = (ANDROID / "settings.gradle.kts").read_text("utf-8")
    modules = set(re.findall(r'":([\w-]+)"', settings))
    poms = {path.parent.name for path in (ROOT / "tools/apps/android").glob("*/pom.xml")}
    assert poms - {"executorch-double"} <= modules
    assert all((ANDROID / module / "build.gradle.kts").is_file() for module in modules)


def test_gradle_names_only_versions_that_are_there():
    catalogue = catalogue_of_versions()
    entries = [*catalogue["libraries"].values(), *catalogue["plugins"].values()]
    assert {entry["version"]["ref"] for entry in entries} <= set(catalogue["versions"])
    known = {f"libs.{name.replace('-', '.')}" for name in catalogue["libraries"]}
    known |= {f"libs.plugins.{name.replace('-', '.')}" for name in catalogue["plugins"]}
    known |= {f"libs.versions.{name}.get" for name in catalogue["versions"]}
    scripts = [path.read_text("utf-8") for path in ANDROID.rglob("*.gradle.kts")]
    lines = [line for text in scripts for line in text.splitlines() if not line.startswith("//")]
    used = {found for line in lines for found in re.findall(r"\blibs\.[\w.]+", line)}
    assert len(used) > 10
    assert used <= known


def test_the_runtime_is_the_exporters_or_the_next_minor_one():
    catalogue = catalogue_of_versions()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    (wanted,) = (
        each
        for each in project["project"]["optional-dependencies"]["executorch"]
        if each.startswith("executorch")
    )
    oldest = re.search(r">=1\.(\d+)", wanted)
    minor = int(catalogue["versions"]["executorch"].split(".")[1])
    assert 0 <= minor - int(oldest[1]) <= 1
