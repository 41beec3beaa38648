"""The Gradle files of the Android app, which nothing here can run: what they name is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import app_resources

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


def test_both_builds_take_the_same_language_and_the_same_phones():
    versions = catalogue_of_versions()["versions"]
    pom = (ROOT / "tools/apps/android/pom.xml").read_text("utf-8")
    language = re.search(r"<kotlin.compiler.languageVersion>([\d.]+)<", pom)
    assert versions["kotlin"].startswith(f"{language[1]}.")
    assert int(versions["minSdk"]) == app_resources.OLDEST_API


def test_the_wrapper_is_of_the_version_that_its_file_names():
    script = (ANDROID / "build.gradle.kts").read_text("utf-8")
    properties = (ANDROID / "gradle/wrapper/gradle-wrapper.properties").read_text("utf-8")
    named = re.search(r'gradleVersion = "([\d.]+)"', script)
    assert f"/gradle-{named[1]}-bin.zip" in properties


@pytest.mark.parametrize(
    ("engine", "package"),
    [("engine-onnx", "ai.onnxruntime"), ("engine-executorch", "org.pytorch.executorch")],
)
def test_a_minified_build_keeps_what_native_code_looks_up(engine, package):
    script = (ANDROID / engine / "build.gradle.kts").read_text("utf-8")
    (rules,) = re.findall(r'consumerProguardFiles\("([\w.-]+)"\)', script)
    assert f"-keep class {package}.** {{ *; }}" in (ANDROID / engine / rules).read_text("utf-8")


def test_the_core_finds_its_table_wherever_it_is_included_from():
    script = (ANDROID / "core/build.gradle.kts").read_text("utf-8")
    (up,) = re.findall(r'projectDir\.resolve\("([./]+)"\)', script)
    (tables,) = re.findall(r'repository\.resolve\("([\w/]+/tables)"\)', script)
    assert (ANDROID / "core" / up / tables / "unicode.json").is_file()
    assert "rootDir" not in script
