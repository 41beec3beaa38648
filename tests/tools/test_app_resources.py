"""The Android app's resources: what is linked for its tests, and its languages."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

import app_resources
from app_resources import APP, prepare, whole_manifest

ANDROID = "{http://schemas.android.com/apk/res/android}"
LANGUAGES = ("de", "es")


def texts_of(folder: str) -> dict[tuple[str, str], str]:
    """Return each text of a folder of values by its name and, in a plural or a list, its place."""
    found = {}
    for element in ElementTree.parse(APP / "res" / folder / "strings.xml").getroot():
        if element.tag == "string":
            found[element.attrib["name"], ""] = element.text or ""
        for place, item in enumerate(element):
            key = item.get("quantity", str(place))
            found[element.attrib["name"], key] = item.text or ""
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_says_everything_with_the_same_places(language):
    english, other = texts_of("values"), texts_of(f"values-{language}")
    assert sorted(other) == sorted(key for key in english if key[0] != "app_name")
    for key, text in other.items():
        places = [re.findall(r"%\d\$[.\d]*[sdf]", each) for each in (text, english[key])]
        assert sorted(places[0]) == sorted(places[1]), key


def test_no_layout_knows_left_from_right():
    for path in (APP / "res" / "layout").glob("*.xml"):
        for element in ElementTree.parse(path).iter():
            sided = [name for name in element.attrib if re.search(r"(Left|Right)$", name)]
            assert not sided, (path.name, sided)


def test_no_word_of_a_layout_is_out_of_the_languages_reach():
    for path in [*(APP / "res" / "layout").glob("*.xml"), *(APP / "res" / "menu").glob("*.xml")]:
        for element in ElementTree.parse(path).iter():
            for name in ("text", "hint", "contentDescription", "title"):
                assert element.get(ANDROID + name, "@string/").startswith("@string/"), path.name


def test_the_whole_manifest_has_package_and_levels():
    root = ElementTree.fromstring(whole_manifest((APP / "AndroidManifest.xml").read_text()))
    levels = root.find("uses-sdk")
    assert root.get("package") == "org.llamaexport.app"
    assert levels is not None
    assert levels.get(ANDROID + "minSdkVersion") == "28"
    assert not list(root.iter("property"))


def test_a_manifest_of_another_form_is_refused():
    with pytest.raises(ValueError, match="one <manifest>"):
        whole_manifest("<manifest/>")


def fill(folder) -> None:
    """Make what Maven would fetch."""
    for name in ("monitor-1.8.0.aar", "espresso-idling-resource-3.7.0.aar"):
        (folder / "fetched").mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / "fetched" / name, "w") as packed:
            packed.writestr("classes.jar", name)
    for place in ("fetched/android-all-14-robolectric-10818077.jar",):
        with zipfile.ZipFile(folder / place, "w") as packed:
            packed.writestr("resources.arsc", "table")
            packed.writestr("AndroidManifest.xml", "manifest")
    (folder / "sdk").mkdir()
    (folder / "sdk" / "android-all-instrumented-15-robolectric-13954326-i7.jar").write_text("sdk")


def test_resources_are_linked_against_the_framework_and_found_by_the_tests(tmp_path):
    fill(tmp_path)
    commands = []
    prepare(APP, tmp_path, lambda command: commands.append(list(command)) or 0, offline=True)
    assert [command[0] for command in commands] == ["aapt2", "aapt2", "javac"]
    assert (tmp_path / "monitor.jar").read_text() == "monitor-1.8.0.aar"
    table = Path(commands[1][commands[1].index("-I") + 1])
    assert table.stem == "android-all-14-robolectric-10818077"
    with zipfile.ZipFile(table) as packed:
        assert packed.read("resources.arsc") == b"table"
    settings = (tmp_path / "test/com/android/tools/test_config.properties").read_text()
    assert f"android_resource_apk={tmp_path / 'app.apk'}" in settings


def test_what_aapt2_refuses_is_a_failure(tmp_path):
    fill(tmp_path)
    with pytest.raises(RuntimeError, match="aapt2 compile refuses"):
        prepare(APP, tmp_path, lambda command: 1, offline=True)


def test_what_maven_lacks_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(app_resources, "FOLDER", tmp_path)
    assert app_resources.main(["--offline"], lambda command: 1) == 1
    assert "Maven does not give org.robolectric:android-all-instrumented" in capsys.readouterr().err
