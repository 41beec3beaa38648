"""Xcode's project of the iOS app, its words and its papers: no Xcode reads them here."""

from __future__ import annotations

import json
import plistlib
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from artifacts.openstep import read_openstep

ROOT = Path(__file__).resolve().parents[2]
IOS = ROOT / "apps" / "ios"
PROJECT = IOS / "Llama.xcodeproj"
LANGUAGES = {"en", "de", "es"}
IDENTIFIER = re.compile(r"[0-9A-F]{24}")
# What comes first in these is a key of the catalog where it is a literal.
WORDED = (
    "Text|Button|Label|Section|TextField|SecureField|LabeledContent|ProgressView|Toggle|Picker|Menu"
    "|ContentUnavailableView|navigationTitle|alert|confirmationDialog|accessibilityLabel|localized:"
)
NUMBER = "specifier: whole"
LITERAL = re.compile(r'"""\n(?P<lines>[\s\S]*?)\n\s*"""|"(?P<line>(?:\\.|[^"\\\n])*)"')


@pytest.fixture(scope="module")
def objects() -> dict[str, dict]:
    project = read_openstep((PROJECT / "project.pbxproj").read_text("utf-8"))
    assert isinstance(project, dict)
    assert project["objectVersion"] == "77"
    assert project["objects"][project["rootObject"]]["isa"] == "PBXProject"
    return project["objects"]


def texts(value) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in texts(part)]
    return [text for part in value for text in texts(part)]


def of_kind(objects, kind: str) -> list[dict]:
    return [item for item in objects.values() if item["isa"] == kind]


def settings(objects) -> list[dict]:
    return [item["buildSettings"] for item in of_kind(objects, "XCBuildConfiguration")]


def stray(objects) -> set[str]:
    """Ids that lead nowhere, and objects that nothing leads to."""
    named = {
        text for item in objects.values() for text in texts(item) if IDENTIFIER.fullmatch(text)
    }
    roots = {key for key, item in objects.items() if item["isa"] == "PBXProject"}
    return named ^ (set(objects) - roots)


def test_no_id_of_the_project_leads_nowhere_and_none_is_left_over(objects):
    assert all(IDENTIFIER.fullmatch(key) for key in objects)
    assert stray(objects) == set()
    for key, item in objects.items():
        if item["isa"] != "PBXProject":
            without = {other: value for other, value in objects.items() if other != key}
            assert key in stray(without)


def test_every_path_of_the_project_exists(objects):
    paths = [
        item["path"]
        for item in objects.values()
        if item.get("sourceTree") == "<group>" and "path" in item
    ]
    paths += [item["relativePath"] for item in of_kind(objects, "XCLocalSwiftPackageReference")]
    paths += [
        value
        for each in settings(objects)
        for key, value in each.items()
        if key.split("[")[0] in {"CODE_SIGN_ENTITLEMENTS", "INFOPLIST_FILE"}
    ]
    assert {"App", "DemoBundle", "LlamaKit", "Llama-Info.plist", "Llama.entitlements"} <= set(paths)
    assert [path for path in paths if not (IOS / path).exists()] == []


def test_the_target_takes_the_packages_products_and_each_configuration_is_whole(objects):
    (target,) = of_kind(objects, "PBXNativeTarget")
    products = {objects[key]["productName"] for key in target["packageProductDependencies"]}
    package = (IOS / "LlamaKit" / "Package.swift").read_text("utf-8")
    assert products == set(re.findall(r'\.library\(name: "(\w+)"', package))
    linked = {
        objects[objects[key]["productRef"]]["productName"]
        for phase in of_kind(objects, "PBXFrameworksBuildPhase")
        for key in phase["files"]
    }
    assert linked == products
    for owner in (*of_kind(objects, "PBXProject"), target):
        listed = objects[owner["buildConfigurationList"]]["buildConfigurations"]
        assert [objects[key]["name"] for key in listed] == ["Debug", "Release"]
    merged = {key: value for each in settings(objects) for key, value in each.items()}
    assert merged["SUPPORTED_PLATFORMS"] == "iphoneos iphonesimulator macosx"
    assert (merged["IPHONEOS_DEPLOYMENT_TARGET"], merged["MACOSX_DEPLOYMENT_TARGET"]) == (
        "18.0",
        "15.0",
    )
    assert ".iOS(.v18), .macOS(.v15)" in package
    # A release takes no demo along.
    assert [each.get("EXCLUDED_SOURCE_FILE_NAMES") for each in settings(objects)].count(
        "DemoBundle"
    ) == 1


def test_the_scheme_builds_the_target(objects):
    (target,) = (key for key, item in objects.items() if item["isa"] == "PBXNativeTarget")
    scheme = ElementTree.parse(PROJECT / "xcshareddata" / "xcschemes" / "Llama.xcscheme")
    found = {
        reference.get("BlueprintIdentifier") for reference in scheme.iter("BuildableReference")
    }
    assert found == {target}
    ElementTree.parse(PROJECT / "project.xcworkspace" / "contents.xcworkspacedata")


def plist(name: str) -> dict:
    return plistlib.loads((IOS / name).read_bytes())


def test_the_papers_say_what_the_app_does():
    assert plist("Llama.entitlements") == {
        "com.apple.developer.kernel.extended-virtual-addressing": True,
        "com.apple.developer.kernel.increased-memory-limit": True,
    }
    assert plist("Llama-macOS.entitlements") == {
        "com.apple.security.app-sandbox": True,
        "com.apple.security.files.user-selected.read-write": True,
        "com.apple.security.network.client": True,
    }
    info = plist("Llama-Info.plist")
    assert info["UIFileSharingEnabled"] is info["LSSupportsOpeningDocumentsInPlace"] is True
    assert info["NSLocalNetworkUsageDescription"]
    # Two windows would be active and inactive at once, and there is one model.
    assert info["UIApplicationSceneManifest"]["UIApplicationSupportsMultipleScenes"] is False
    privacy = plist("App/PrivacyInfo.xcprivacy")
    assert privacy["NSPrivacyTracking"] is False
    assert privacy["NSPrivacyCollectedDataTypes"] == privacy["NSPrivacyTrackingDomains"] == []
    kinds = {item["NSPrivacyAccessedAPIType"] for item in privacy["NSPrivacyAccessedAPITypes"]}
    # What LlamaKit calls of the APIs that want a reason.
    sources = "".join(
        path.read_text("utf-8") for path in sorted((IOS / "LlamaKit/Sources").rglob("*.swift"))
    )
    for call, kind in {
        "UserDefaults": "UserDefaults",
        "volumeAvailableCapacity": "DiskSpace",
        "uptimeNanoseconds": "SystemBootTime",
    }.items():
        assert (call in sources) == (f"NSPrivacyAccessedAPICategory{kind}" in kinds)


def catalog(name: str) -> dict[str, dict]:
    read = json.loads((IOS / "App" / name).read_text("utf-8"))
    assert read["sourceLanguage"] == "en"
    return read["strings"]


def units(localization) -> list[str]:
    """All texts of a key in one language."""
    if "stringUnit" in localization:
        assert localization["stringUnit"]["state"] == "translated"
        return [localization["stringUnit"]["value"]]
    plural = localization["variations"]["plural"]
    assert set(plural) == {"one", "other"}
    return [text for form in plural.values() for text in units(form)]


def specifiers(text: str) -> list[str]:
    """The values that a text shows, in their order of being given."""
    found = re.findall(r"%(?:(\d)\$)?(@|lld)", text)
    places = [int(place or number) for number, (place, _) in enumerate(found, 1)]
    assert sorted(places) == list(range(1, len(found) + 1)), text
    return [kind for _, (_, kind) in sorted(zip(places, found, strict=True))]


@pytest.mark.parametrize("name", ["Localizable.xcstrings", "InfoPlist.xcstrings"])
def test_every_key_is_translated_with_the_same_values(name):
    for key, entry in catalog(name).items():
        assert set(entry["localizations"]) == LANGUAGES, key
        for localization in entry["localizations"].values():
            for text in units(localization):
                assert text.strip(), key
                if name == "Localizable.xcstrings":
                    assert specifiers(text) == specifiers(key), key


def key_of(literal: re.Match[str]) -> str:
    """The key that a literal of Swift's becomes: a text is %@, and a number says its form."""
    body = literal["line"]
    if body is None:
        lines = literal["lines"].split("\n")
        inset = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
        body = re.sub(r"\\\n", "", "\n".join(line[inset:] for line in lines))
    key, at = "", 0
    while at < len(body):
        if body.startswith("\\(", at):
            depth, end = 1, at + 2
            while depth:
                depth += {"(": 1, ")": -1}.get(body[end], 0)
                end += 1
            key += "%lld" if NUMBER in body[at:end] else "%@"
            at = end
        else:
            key += body[at]
            at += 1
    return key


def without_inner_quotes(source: str) -> str:
    """Source whose interpolations hold no quotes, so that a literal ends at the next one."""
    return source.replace('specifier: "%lld"', NUMBER)


def keys_of(source: str) -> set[str]:
    found = set()
    flat = without_inner_quotes(source)
    for match in re.finditer(rf"\b(?:{WORDED})\(?\s*(?=\")", flat):
        literal = LITERAL.match(flat, match.end())
        assert literal is not None, flat[match.start() : match.start() + 80]
        found.add(key_of(literal))
    return found


def app_sources() -> list[Path]:
    return sorted((IOS / "App").glob("*.swift"))


def test_every_word_of_the_app_is_in_the_catalog_and_every_key_is_used():
    used = set().union(*(keys_of(path.read_text("utf-8")) for path in app_sources()))
    assert used == set(catalog("Localizable.xcstrings"))


def test_the_reader_of_words_finds_them():
    several = '"""\n        Two \\(name(1)) \\\n        three\n        """'
    source = f'Text("One")\nString(\n    localized:\n        {several})'
    assert keys_of(source) == {"One", "Two %@ three"}
    assert keys_of('String(localized: "\\(n, specifier: "%lld") of \\(text)")') == {"%lld of %@"}
    assert keys_of("Text(title)") == set()


def test_the_reader_of_projects_refuses_what_is_none():
    assert read_openstep('// !$*UTF8*$!\n{a = ("b c", {d = e; }); /* f */ g = "\\"";}') == {
        "a": ["b c", {"d": "e"}],
        "g": '"',
    }
    for wrong in ("{a = b}", "{a = b; a = c;}", "{} x", "{= b;}", "^"):
        with pytest.raises((ValueError, IndexError)):
            read_openstep(wrong)


@pytest.mark.parametrize(
    ("page", "example"),
    [
        ("apps/ios/README.md", "Ask.swift"),
        ("docs/swift-transformers.md", "StockLanguageModel.swift"),
    ],
)
def test_pages_show_what_the_type_check_reads(page, example):
    (shown,) = re.findall(r"```swift\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S)
    assert (IOS / "Examples" / example).read_text("utf-8") == shown
    assert len(shown.splitlines()) <= 32
