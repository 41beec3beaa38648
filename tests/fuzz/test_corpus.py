"""Inputs that once went wrong, and two minutes of new ones, through `tools/fuzz.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fuzzing.judge import FINE, RUNTIME
from fuzzing.surfaces import SURFACES

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
CASES = [case for path in sorted(CORPUS.glob("*.json")) for case in json.loads(path.read_bytes())]
# The page says how many, and on how many surfaces.
COUNT = 1500

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and limits its children"),
    pytest.mark.onnx,
]


def is_fast(case: dict) -> bool:
    surface = SURFACES[case["surface"]]
    return not surface.is_slow and surface.target in ("", "onnx")


def expected(case: dict) -> list[str]:
    """Return the verdicts that are right: those of the case, or all that are no failure."""
    return case.get("expect", [*FINE, RUNTIME])


def fuzz(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "fuzz.py"), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def replay(cases: list[dict], folder: Path) -> list[str]:
    """Run cases again and name those that do not end as they should."""
    path = folder / "cases.json"
    path.write_text(json.dumps(cases))
    done = fuzz("--replay", path, "--verdicts", folder / "verdicts.json")
    verdicts = json.loads((folder / "verdicts.json").read_bytes())
    assert len(verdicts) == len(cases), done.stderr
    return [
        f"{case['surface']} {case['verb']}: {found} ({case['why']})"
        for case, found in zip(cases, verdicts, strict=True)
        if found[0] not in expected(case)
    ]


def test_the_corpus_expects_nothing_that_is_a_failure():
    assert {kind for case in CASES for kind in expected(case)} <= {*FINE, RUNTIME}
    assert sum(map(is_fast, CASES)) > 30
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < 200_000


def test_the_page_says_what_is_run():
    page = " ".join((ROOT / "SECURITY.md").read_text(encoding="utf-8").split())
    assert f"{COUNT:,} new ones over {len(SURFACES)} surfaces" in page


def test_what_went_wrong_once_does_not_again(tmp_path):
    assert replay([case for case in CASES if is_fast(case)], tmp_path) == []


@pytest.mark.slow
@pytest.mark.executorch
@pytest.mark.coreml
def test_what_went_wrong_in_slower_places_does_not_again(tmp_path):
    assert replay([case for case in CASES if not is_fast(case)], tmp_path) == []


@pytest.mark.slow
@pytest.mark.executorch
@pytest.mark.coreml
def test_two_minutes_of_new_inputs(tmp_path):
    done = fuzz("--seed", 12, "--count", COUNT, "--keep", tmp_path, "--tolerate", RUNTIME)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| **all** |" in done.stdout
