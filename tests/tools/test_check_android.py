"""tools/apps/check_android.py without Maven: what it calls, skips and fails for."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

import check_android
from check_android import FIXTURES, PARTS, POM, ROOT, find_lack, java_version, main

SCRIPTS = ROOT / "tools" / "apps"
NAMESPACE = {"m": "http://maven.apache.org/POM/4.0.0"}


class Calls:
    """A runner that keeps what it is asked to run."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.commands: list[list[str]] = []

    def __call__(self, command) -> int:
        self.commands.append(list(command))
        return self.status


@pytest.fixture(autouse=True)
def build(tmp_path, monkeypatch):
    """Let no test touch what a check of this repository has compiled."""
    monkeypatch.setattr(check_android, "BUILD", tmp_path)
    return tmp_path


def test_what_was_compiled_before_is_gone_and_nothing_else(build):
    for place in (
        "core/classes",
        "core/test-classes/org",
        "core/surefire-reports",
        "app-resources",
    ):
        (build / place).mkdir(parents=True)
    assert main(["core"], Calls(), nothing) == 0
    left = sorted(path.relative_to(build).as_posix() for path in build.rglob("*"))
    assert left == ["app-resources", "core", "core/surefire-reports"]


def modules_of(command: list[str]) -> list[str]:
    return command[command.index("-pl") + 1].split(",")


def nothing() -> None:
    return None


def test_every_module_of_maven_is_in_a_part():
    declared = ElementTree.parse(POM).findall("m:modules/m:module", NAMESPACE)
    assert sorted(each.text for each in declared) == sorted(sum(PARTS.values(), ()))


def test_it_checks_everything_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(check_android, "find_lack_of_app", nothing)
    calls = Calls()
    assert main([], calls, nothing) == 0
    bundles, tokenizers, resources, command = calls.commands
    assert resources[1:] == [str(SCRIPTS / "app_resources.py")]
    assert bundles[1:] == [str(SCRIPTS / "engine_fixtures.py"), str(FIXTURES)]
    assert tokenizers[1:] == [str(SCRIPTS / "tokenizer_fixtures.py"), str(FIXTURES / "tokenizers")]
    assert modules_of(command) == list(sum(PARTS.values(), ()))
    assert command[-1] == "test"
    assert not {"-o", "-DexcludedGroups=bundles"} & set(command)


def test_it_checks_the_named_part_with_the_named_test_offline():
    calls = Calls()
    assert main(["core", "--offline", "--test", "JsonTest"], calls, nothing) == 0
    (command,) = calls.commands
    assert modules_of(command) == ["core"]
    assert {"-o", "-Dtest=JsonTest", "-DexcludedGroups=bundles"} <= set(command)


def test_without_its_bundles_no_engine_is_run():
    calls = Calls(status=1)
    assert main(["engines"], calls, nothing) == 1
    assert len(calls.commands) == 1


def test_without_aapt2_the_app_alone_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(check_android, "find_lack_of_app", lambda: "there is no program aapt2.")
    calls = Calls()
    assert main(["core", "app"], calls, nothing) == 0
    assert modules_of(calls.commands[-1]) == ["core"]
    assert "android: skipped app: there is no program aapt2." in capsys.readouterr().out
    assert main(["app"], Calls(status=1), nothing) == 0
    assert main(["app", "--require"], calls, nothing) == 1


def test_a_failure_of_maven_is_one_of_its_own(capsys):
    assert main(["core"], Calls(status=7), nothing) == 1
    assert "android: failed core" in capsys.readouterr().out


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["cores"], Calls(), nothing)
    assert ended.value.code == 2
    assert "there is no part cores: expected one of core" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--require"], 1)])
def test_what_cannot_be_checked_is_said(arguments, status, capsys):
    calls = Calls()
    assert main(["core", *arguments], calls, lambda: "there is no program mvn.") == status
    assert calls.commands == []
    said = "failed" if status else "skipped"
    assert capsys.readouterr().out == f"android: {said} core: there is no program mvn.\n"


def test_a_machine_without_maven_lacks_it(monkeypatch):
    there = {"java": "/bin/java", "javac": "/bin/javac"}
    monkeypatch.setattr(check_android.shutil, "which", there.get)
    assert find_lack() == f"there is no program mvn. {check_android.INSTALL_HINT}"
    del there["java"]
    assert find_lack() == f"there is no program java. {check_android.INSTALL_HINT}"


def test_an_old_java_is_refused(monkeypatch):
    monkeypatch.setattr(check_android.shutil, "which", str)
    done = check_android.subprocess.CompletedProcess([], 0, "", 'openjdk version "11.0.2" 2019')
    monkeypatch.setattr(check_android.subprocess, "run", lambda *_, **__: done)
    assert "expected Java 17 or newer, found Java 11" in find_lack()


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025', 17),
        ('java version "1.8.0_1"', 8),
        ("nothing", None),
    ],
)
def test_java_says_its_version(text, version):
    assert java_version(text) == version
