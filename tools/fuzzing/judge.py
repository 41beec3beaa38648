"""What a run was: a named error, an input that was taken rightly, or one of the failures.

It compares with what the same command says of the input without a mutation.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzzing.cases import Case, surface_of
from fuzzing.child import Outcome
from fuzzing.lying_hub import LEAK, TOKEN
from fuzzing.surface import CHECKPOINT, PROVED, SEALED, UNSEALED, Surface
from llama_export.bundle.root_files import RECORD_NAME, read_record

CPU_GOAL_S = 5.0
# A whole export with its check, or a verification, takes a few seconds when all is right.
WHOLE_GOAL_S = 15.0
MOST_MESSAGE_BYTES = 2100
NAMED, RED, UNPROVED, UNCHANGED, SOUND = "named", "red", "unproved", "unchanged", "sound"
FINE = (NAMED, RED, UNPROVED, UNCHANGED, SOUND)
WRONG, TRACE, CRASH, SLOW, MEMORY = "wrong success", "traceback", "crash", "over 5 s", "memory"
ESCAPE, LONG, LEFT = "escape", "over 2 kB", "leftovers"
# A runtime died of an artifact that has its right hash: its own fault, but seen by our users.
RUNTIME = "runtime died"
FAILURES = (WRONG, TRACE, CRASH, RUNTIME, SLOW, MEMORY, ESCAPE, LONG, LEFT)
_VERIFIED_RED, _UNPROVED, _NO_MEMORY = 1, 17, 18
_NAMED_CODES = (*range(2, 17), 19)
# The one target whose runtime is known to die of some of them.
_DIES = "executorch"
NO_NUMBERS = "no numbers"
# Of a bundle, what a command reads that is given the bundle.
_OWN_JSON = ("manifest.json", "golden.json", "report.json")
_EXPECTED = {"out", "out-of-the-way"}
_CONTROLS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_EXPONENTS = {"BF16": ("<u2", 0x7F80), "F16": ("<u2", 0x7C00), "F32": ("<u4", 0x7F800000)}
# What the maker of a bundle writes down about its origin, and no artifact could prove.
_UNPROVABLE = {"created_with", "sqnr_db", "bits_per_weight"}


@dataclass(frozen=True)
class Verdict:
    """What a run was, and where or why."""

    kind: str
    detail: str = ""

    @property
    def failed(self) -> bool:
        """Whether the product did what it must not."""
        return self.kind in FAILURES


@dataclass(frozen=True)
class Seen:
    """What is judged.

    Args:
        case: the case.
        outcome: what became of it.
        folder: its folder after the run.
        baseline: what the same command wrote of the input without a mutation.
        original: the file without the mutation.
        mutated: the file.
        numbers: what the artifact computes, as a hash; asked only where it was taken.
        right_numbers: what it computed before.
    """

    case: Case
    outcome: Outcome
    folder: Path
    baseline: bytes
    original: bytes
    mutated: bytes
    numbers: Callable[[], bytes]
    right_numbers: Callable[[], bytes]


def judge(seen: Seen) -> Verdict:
    """Judge a run; the first thing that is wrong decides."""
    outcome = seen.outcome
    for look in (_died, _fault, _cost, _output, _left):
        if (found := look(seen)) is not None:
            return found
    if outcome.code == 0:
        return _taken(seen)
    if outcome.code == _VERIFIED_RED and _proves(seen.case):
        return Verdict(RED)
    if outcome.code == _UNPROVED:
        return Verdict(UNPROVED)
    # Without a single word, the program answers with its page.
    said = b"error:" in outcome.stderr or outcome.stdout.startswith(b"Usage:")
    if outcome.code in _NAMED_CODES and said:
        return Verdict(NAMED, f"exit {outcome.code}")
    return Verdict(TRACE, f"exit {outcome.code} without a name")


def _died(seen: Seen) -> Verdict | None:
    number = seen.outcome.signal
    if not number:
        return None
    name = signal.Signals(number).name
    if number in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL):
        return Verdict(SLOW, name)
    frames = re.findall(
        r'File "[^"]*/((?:llama_|coreml_)[^"]*)", line (\d+)', seen.outcome.stderr.decode("latin-1")
    )
    surface = surface_of(seen.case)
    sealed = surface.kind in (SEALED, PROVED) and surface.target == _DIES
    place = f"{name} at {':'.join(frames[0])}" if frames else name
    return Verdict(RUNTIME if sealed else CRASH, place)


def _fault(seen: Seen) -> Verdict | None:
    outcome = seen.outcome
    if outcome.fault or b"Traceback (most recent call last)" in outcome.stderr:
        return Verdict(TRACE, outcome.fault or "printed")
    return None


def _cost(seen: Seen) -> Verdict | None:
    surface, outcome = surface_of(seen.case), seen.outcome
    if outcome.code == _NO_MEMORY:
        return Verdict(MEMORY, "out of memory")
    if outcome.cpu_s > (WHOLE_GOAL_S if surface.is_slow else CPU_GOAL_S):
        return Verdict(SLOW, f"{outcome.cpu_s:.1f} s of processor time")
    return None


def _output(seen: Seen) -> Verdict | None:
    """Look for what must not reach a terminal; what a model writes goes to a pipe as it is."""
    said = seen.outcome.stdout + seen.outcome.stderr
    if TOKEN.encode() in said or (seen.folder / LEAK).exists():
        return Verdict(ESCAPE, "the hub's token")
    outcome, written = seen.outcome, seen.case.verb.startswith(("generate", "chat", "argv"))
    text = (outcome.stderr if written else outcome.stderr + outcome.stdout).decode(
        "utf-8", "replace"
    )
    if found := _CONTROLS.search(text):
        return Verdict(ESCAPE, repr(text[max(0, found.start() - 30) : found.end() + 10]))
    at = outcome.stderr.find(b"error:")
    if at >= 0:
        message, _, hint = outcome.stderr[at:].partition(b"what to do:")
        longest = max(len(message), len(hint))
        if longest > MOST_MESSAGE_BYTES:
            return Verdict(LONG, f"{longest} bytes: {message[:60]!r}")
    return None


def _left(seen: Seen) -> Verdict | None:
    surface = surface_of(seen.case)
    out = seen.folder / "out"
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    if seen.case.verb == "argv":
        found = [name for name in found if ".partial" in name or ".old" in name]
        return Verdict(LEFT, f"left in the output: {found}") if found else None
    due = ["onnx", "weights"] if surface.name != "weights" else ["onnx"]
    if seen.outcome.code == 0 and seen.case.verb.startswith("export"):
        record = read_record(out)
        due = due if record is None else sorted([*due, RECORD_NAME, *record])
        return None if found == due else Verdict(LEFT, f"expected {due}, found {found}")
    beside = sorted(path.name for path in seen.folder.iterdir() if path.name not in _EXPECTED)
    if found or beside != sorted(surface.folders):
        return Verdict(LEFT, f"left: {found or beside}")
    return None


def _taken(seen: Seen) -> Verdict:
    """Judge an input that was taken: exit code 0."""
    surface = surface_of(seen.case)
    if surface.kind == UNSEALED:
        return Verdict(WRONG, f"{seen.case.verb} took a file that has another hash")
    if surface.kind == PROVED:
        return _green(seen, surface)
    fault = json_fault(seen.mutated) if _reads_json(seen.case) else ""
    if fault:
        return Verdict(WRONG, f"{seen.case.verb} took {Path(seen.case.path).name}: {fault}")
    for path in (seen.folder / "out").rglob("*.json"):
        if fault := json_fault(path.read_bytes()):
            return Verdict(WRONG, f"wrote {path.name} with {fault}")
    for path in (seen.folder / "out").rglob("weights.safetensors"):
        if not_finite(path.read_bytes()):
            return Verdict(WRONG, "wrote weights that are no numbers")
    # A bundle of somebody else's may compute what it likes, as long as they are numbers.
    wrote = surface.name.startswith("art-") and seen.case.verb == "generate"
    if wrote and seen.numbers() == NO_NUMBERS.encode():
        return Verdict(WRONG, "wrote a text from what are no numbers")
    same = result_of(seen.outcome, seen.folder) == seen.baseline
    return Verdict(UNCHANGED if same else SOUND)


def result_of(outcome: Outcome, folder: Path) -> bytes:
    """Return what a command made: the files of an export as a hash, or what it wrote."""
    files = sorted(path for path in (folder / "out").rglob("*") if path.is_file())
    if not files:
        return outcome.stdout.replace(str(folder).encode(), b"CASE")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.digest()


def not_finite(content: bytes) -> bool:
    """Whether a safetensors file holds a float that is none, by its exponent."""
    start = 8 + int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__" and entry["dtype"] in _EXPONENTS:
            kind, exponent = _EXPONENTS[entry["dtype"]]
            begin, end = entry["data_offsets"]
            values = np.frombuffer(content[start + begin : start + end], kind)
            if bool(((values & exponent) == exponent).any()):
                return True
    return False


def _green(seen: Seen, surface: Surface) -> Verdict:
    """Judge a verification that passed: what it read must be what was there before."""
    if seen.case.path.endswith(".json") and _same_json(seen.original, seen.mutated):
        return Verdict(UNCHANGED)
    if "side" in surface.name or "manifest" in surface.name:
        return Verdict(WRONG, f"green with another {Path(seen.case.path).name}")
    if seen.numbers() == seen.right_numbers():
        return Verdict(UNCHANGED)
    return Verdict(WRONG, "green with other numbers")


def json_fault(content: bytes) -> str:
    """Return why a text is not JSON that every reader understands alike; empty: it is."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            message = "a key given twice"
            raise ValueError(message)
        return found

    def refuse(name: str) -> object:
        message = f"{name}, which is no JSON"
        raise ValueError(message)

    try:
        json.loads(content.decode("utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        return str(error)[:80] or type(error).__name__
    return ""


def _same_json(one: bytes, other: bytes) -> bool:
    """Whether two texts say the same, but for what nobody could prove."""
    if json_fault(other):
        return False
    return bool(_provable(json.loads(one)) == _provable(json.loads(other)))


def _provable(value: object) -> object:
    if isinstance(value, dict):
        return {key: _provable(each) for key, each in value.items() if key not in _UNPROVABLE}
    if isinstance(value, list):
        return [_provable(each) for each in value]
    # true and 1 are equal in Python, 1 and 1.0 too; to other readers they are not.
    return (type(value).__name__, value)


def _proves(case: Case) -> bool:
    surface = surface_of(case)
    return (
        surface.kind == PROVED
        or surface.name == "config-deep"
        or case.verb in ("argv", "verify-phone")
    )


def _reads_json(case: Case) -> bool:
    """Whether the file is JSON that the command has any business with."""
    name = Path(case.path).name
    # A plan has no business with what is only copied.
    if not name.endswith(".json") or (case.verb == "dry-run" and name != "config.json"):
        return False
    return surface_of(case).kind == CHECKPOINT or name in _OWN_JSON
