"""Exports that are killed or interrupted: every output is the old one or the new one, and whole."""

from __future__ import annotations

import os
import signal

import pytest
from artifacts.folders import folders_in
from artifacts.struck import NEW, OLD, Exports, Outcome, Strike, random_strikes

from llama_export.bundle.journal import unfinished
from llama_export.bundle.output_lock import LOCK_NAME

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs fork and POSIX signals"),
    pytest.mark.usefixtures("one_thread"),
]

TARGETS = ("onnx", "executorch", "coreml")


@pytest.fixture(scope="module")
def small_exports(tmp_path_factory) -> Exports:
    pytest.importorskip("onnx", reason="needs the onnx extra")
    return Exports(tmp_path_factory.mktemp("struck"), ("onnx",))


@pytest.fixture(scope="module")
def exports(tmp_path_factory) -> Exports:
    for toolkit in ("onnx", "executorch", "coremltools"):
        pytest.importorskip(toolkit, reason="needs all three extras")
    return Exports(tmp_path_factory.mktemp("struck"), TARGETS)


def check(exports: Exports, strike: Strike, *, over_old: bool, real: bool = False) -> str:
    """Strike an export, look at what it left, and export again; return what was found."""
    found = exports.struck(strike, over_old=over_old, real=real)
    output, before = exports.folder / "out", OLD if over_old else "absent"
    words, told = set(found.states.values()), (strike, found)
    assert words <= {before, NEW}, told
    if strike.number == signal.SIGKILL:
        if len(words) > 1:
            # Between two renames. Each place says so, and any next export ends it first.
            assert all("finishes it" in unfinished(output / name) for name in exports.places), told
            assert exports.run(exports.arguments(output, NEW), NEW)[0] == 11
            assert set(exports.states(output).values()) == {NEW}, told
    else:
        assert len(words) == 1, told
        assert found.code in (0, 128 + strike.number), told
        assert found.hidden == (), told
        assert "Traceback" not in found.said, told
        if found.code and "interrupted" in found.said:
            in_place = "the new output is in place" in found.said
            assert in_place or "nothing was left half written" in found.said, told
            assert words == {NEW} or not in_place, told
    force = ["--force"] if output.exists() else []
    code, said = exports.run([*exports.arguments(output, NEW), *force], NEW)
    assert code == 0, said
    assert set(exports.states(output).values()) == {NEW}, said
    assert folders_in(output) == sorted(exports.places)
    return " ".join(sorted(words))


def test_a_struck_export_leaves_old_or_new(small_exports):
    """A sample of the next test's, of one target; the renames are among the last 60 events."""
    found = [
        check(small_exports, Strike(number, event_from_end=at), over_old=over_old)
        for number, at, over_old in (
            (signal.SIGKILL, 200, True),
            (signal.SIGINT, 60, True),
            (signal.SIGTERM, 5, True),
            (signal.SIGKILL, 20, False),
        )
    ]
    assert OLD in found


@pytest.mark.slow
def test_sixty_struck_exports_of_three_targets_leave_old_or_new(exports):
    whole_s = 1.5
    found = [
        check(exports, strike, over_old=over_old)
        for strike, over_old in random_strikes(1, 58, whole_s)
    ]
    for number, at in ((signal.SIGKILL, 150), (signal.SIGTERM, 3)):
        found.append(check(exports, Strike(number, at), over_old=True, real=True))
    assert {OLD, NEW, "absent"} <= set(found)


def is_old_or_new(outcome: Outcome) -> None:
    """A full disk is named, or did no harm; either way nothing is left."""
    expected = NEW if outcome.code == 0 else OLD
    assert outcome.code in (0, 11), outcome
    assert set(outcome.states.values()) == {expected}, outcome
    # A lock that the disk did not let us remove stays, and nobody holds it.
    assert set(outcome.hidden) <= {LOCK_NAME}, outcome
    assert "Traceback" not in outcome.said, outcome
    if outcome.code:
        assert "what to do" in outcome.said, outcome


def events_of(exports: Exports) -> int:
    whole = exports.with_full_disk(0)
    assert whole.code == 0, whole
    return int(whole.said.rsplit("events: ", 1)[1])


def test_a_full_disk_leaves_old_or_new(small_exports):
    """A sample of the next test's."""
    events = events_of(small_exports)
    assert events > 40
    found = [small_exports.with_full_disk(at) for at in (3, events // 2, events - 9)]
    found.append(small_exports.with_small_files(60_000))
    for outcome in found:
        is_old_or_new(outcome)
    assert 11 in {outcome.code for outcome in found}


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_step_leaves_old_or_new(small_exports):
    events = events_of(small_exports)
    found = [small_exports.with_full_disk(at) for at in range(1, events + 1)]
    found += [small_exports.with_small_files(size) for size in (20_000, 300_000)]
    for outcome in found:
        is_old_or_new(outcome)
    assert {outcome.code for outcome in found} == {0, 11}
