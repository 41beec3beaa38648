"""tools/apps/check_ios.py without Swift: what it calls, skips and fails for."""

from __future__ import annotations

from pathlib import Path

import pytest

import check_ios
import swift_root
from check_ios import (
    DOUBLED,
    DOUBLES,
    PARTS,
    REAL_TESTS,
    ROOT,
    SCREENS_DOUBLE,
    Toolchain,
    find_toolchain,
    has_swift,
    main,
    swift_version,
)

SCRIPTS = ROOT / "tools" / "apps"


class Calls:
    """A runner that keeps what it is asked to run."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.commands: list[list[str]] = []

    def __call__(self, command) -> int:
        self.commands.append(list(command))
        return self.statuses.pop(0) if self.statuses else 0


def found(root: Path | None = None):
    return lambda *_: Toolchain(root)


def test_it_checks_everything_unless_told_otherwise(capsys):
    calls = Calls()
    assert main([], calls, found()) == 0
    fixtures, runtime = ROOT / "build/apps/fixtures", ROOT / "build/ios/onnxruntime"
    bundles, vocabularies, library, core, real, *adapters, lint = calls.commands
    assert bundles[1:] == [str(SCRIPTS / "engine_fixtures.py"), str(fixtures)]
    assert vocabularies[1:] == [
        str(SCRIPTS / "tokenizer_fixtures.py"),
        str(fixtures / "tokenizers"),
    ]
    assert library[1:] == [str(SCRIPTS / "onnxruntime_library.py"), str(runtime)]
    tests = [
        "env",
        f"LLAMA_FIXTURES={fixtures}",
        f"LLAMA_ONNXRUNTIME={runtime}",
        "swift",
        "test",
        "--package-path",
        str(ROOT / "apps/ios/LlamaKit"),
        "--scratch-path",
        str(ROOT / "build/ios/swift"),
    ]
    # Each test is run once.
    assert core == [*tests, "--skip", REAL_TESTS]
    server = [str(SCRIPTS / "bundle_server.py"), str(fixtures)]
    assert real[1:] == [*server, *tests, "--filter", REAL_TESTS]
    assert adapters
    assert lint[1:5] == ["swift", "format", "lint", "--strict"]
    assert lint[-1] == str(ROOT / "apps/ios")
    assert f"ios: passed {', '.join(PARTS)} in 0 s" in capsys.readouterr().out


def test_the_adapters_are_checked_after_what_they_import():
    calls = Calls()
    assert main(["adapters"], calls, found()) == 0
    build, folder, *modules, coreml, executorch = [" ".join(each) for each in calls.commands]
    assert build.startswith("env swift build --package-path")
    assert folder == f"mkdir -p {ROOT / 'build/ios/doubles'}"
    made = [word for each in modules for word in each.split() if word.endswith(".swiftmodule")]
    assert [Path(path).stem for path in made] == list(DOUBLED)
    assert sorted((*DOUBLED, SCREENS_DOUBLE)) == sorted(
        path.name for path in (ROOT / DOUBLES).iterdir() if path.is_dir()
    )
    for adapter, source in ((coreml, "CoreMLStepModel"), (executorch, "ExecuTorchStepModel")):
        assert f"-swift-version 6 -warnings-as-errors -I {ROOT}" in adapter
        assert f"/{source}.swift" in adapter


def test_the_app_is_checked_as_each_system_compiles_it():
    calls = Calls()
    assert main(["app"], calls, found()) == 0
    texts = [" ".join(each) for each in calls.commands]
    coreml, executorch, ask, stock, *screens = texts[-10:]
    assert "build/ios/doubles/LlamaKitCoreML.swiftmodule" in coreml
    assert "build/ios/doubles/executorch/LlamaKitExecuTorch.swiftmodule" in executorch
    assert ask.endswith("apps/ios/Examples/Ask.swift")
    assert stock.endswith("apps/ios/Examples/StockLanguageModel.swift")
    for system, (swiftui, project, strict) in (("iOS", screens[:3]), ("macOS", screens[3:])):
        folder = ROOT / "build/ios/app" / system
        assert f"-o {folder}/SwiftUI.swiftmodule {folder}/SwiftUI/" in swiftui
        # The declarations of this system, and not the package's empty adapters.
        seen = f"-I {folder} -I {ROOT}/build/ios/doubles -I {ROOT}/build/ios/swift/debug/Modules"
        mode = "-swift-version 5 -strict-concurrency=complete -warnings-as-errors"
        assert f"{mode} {seen} {folder}/App/" in project
        added = f"-I {ROOT}/build/ios/doubles/executorch"
        assert f"-swift-version 6 -warnings-as-errors {added} {seen} {folder}/App/" in strict
        for check in (project, strict):
            assert "swiftc -typecheck" in check
            assert check.count(".swift ") == len(list((ROOT / "apps/ios/App").glob("*.swift"))) - 1
    assert "#if os(" not in (ROOT / "build/ios/app/iOS/App/RootView.swift").read_text("utf-8")


def test_it_checks_the_named_part_with_the_named_test():
    calls = Calls()
    assert main(["core", "--test", "JsonTests"], calls, found()) == 0
    (command,) = calls.commands
    assert command[-2:] == ["--filter", "JsonTests"]
    assert not any(word.startswith("LLAMA_") for word in command)


def test_the_tests_that_are_run_apart_are_there():
    tests = ROOT / "apps/ios/LlamaKit/Tests"
    names = {path.stem for path in [*tests.iterdir(), *tests.rglob("*.swift")]}
    assert set(REAL_TESTS.split("|")) <= names
    # What reads those fixtures is run apart, and nothing else is.
    gated = {path for path in tests.rglob("*.swift") if "Turns.of" in path.read_text("utf-8")}
    assert {path.parent.name for path in gated} == {"BundleChecksTests"}


def test_in_a_root_the_repository_stands_elsewhere(tmp_path):
    calls = Calls()
    assert main(["bundles"], calls, found(tmp_path)) == 0
    command = calls.commands[-1]
    inside = command[3:]
    assert inside[0] == "unshare"
    assert "LLAMA_FIXTURES=/repo/build/apps/fixtures" in inside
    assert "LLAMA_ONNXRUNTIME=/repo/build/ios/onnxruntime" in inside
    assert "/repo/apps/ios/LlamaKit" in inside
    begin = inside.index("PATH=/usr/bin:/bin")
    assert inside[begin - 2 : begin] == [str(tmp_path), str(ROOT)]


def test_without_its_bundles_no_test_is_run():
    calls = Calls(1)
    assert main(["bundles"], calls, found()) == 1
    assert len(calls.commands) == 1


def test_a_failure_of_swift_is_one_of_its_own(capsys):
    calls = Calls(7)
    assert main(["core", "format"], calls, found()) == 1
    assert len(calls.commands) == 1
    assert "ios: failed core, format" in capsys.readouterr().out


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["cores"], Calls(), found())
    assert ended.value.code == 2
    assert "there is no part cores: expected one of core" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--require"], 1)])
def test_what_cannot_be_checked_is_said(arguments, status, capsys):
    calls = Calls()
    assert main(["core", *arguments], calls, lambda *_: "there is no Swift.") == status
    assert calls.commands == []
    said = "failed" if status else "skipped"
    assert capsys.readouterr().out == f"ios: {said} core: there is no Swift.\n"


def test_the_folder_of_the_root_can_be_named(tmp_path):
    asked = []
    main(["--root", str(tmp_path)], Calls(), lambda root, _: asked.append(root) or Toolchain(None))
    assert asked == [tmp_path]


def test_a_swift_of_the_machines_own_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(check_ios, "has_swift", lambda: True)
    assert find_toolchain(tmp_path, Calls()) == Toolchain(None)


def test_without_one_a_root_is_made(monkeypatch, tmp_path):
    monkeypatch.setattr(check_ios, "has_swift", lambda: False)
    monkeypatch.setattr(swift_root, "find_lack", lambda _: None)
    monkeypatch.setattr(swift_root, "make", lambda root, run: run([str(root)]))
    calls = Calls()
    assert find_toolchain(tmp_path, calls) == Toolchain(tmp_path)
    assert calls.commands == [[str(tmp_path)]]
    assert "could not be put into" in find_toolchain(tmp_path, Calls(1))


def test_what_a_root_lacks_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(check_ios, "has_swift", lambda: False)
    monkeypatch.setattr(swift_root, "find_lack", lambda _: "only root may.")
    said = find_toolchain(tmp_path, Calls())
    assert said == "there is no Swift 6 on the PATH, and only root may."


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Swift version 6.0.3 (swift-6.0.3-RELEASE)", 6),
        ("Apple Swift version 5.10 (swiftlang-5.10.0.13)", 5),
        ("nothing", None),
    ],
)
def test_swift_says_its_version(text, version):
    assert swift_version(text) == version


@pytest.mark.parametrize(("text", "is_enough"), [("Swift version 6.1", True), ("?", False)])
def test_an_old_swift_is_none(monkeypatch, text, is_enough):
    monkeypatch.setattr(check_ios.shutil, "which", str)
    done = check_ios.subprocess.CompletedProcess([], 0, text, "")
    monkeypatch.setattr(check_ios.subprocess, "run", lambda *_, **__: done)
    assert has_swift() is is_enough
    monkeypatch.setattr(check_ios.shutil, "which", lambda _: None)
    assert not has_swift()
