"""Try mutated inputs on every surface of the product, and say what became of each.

    .venv/bin/python tools/fuzz.py --seed 7 --count 2000 --surface all --jobs 2
    .venv/bin/python tools/fuzz.py --replay FOLDER/CASE.json

It needs the environment with every toolkit, and Linux. The commands run in this process's children
through the command line's own `main`. The same seed gives the same cases. Every case that fails is
made smaller and kept with the command that shows it again; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / root) for root in ("export", "quantize", "tools", "tests")]

from fuzzing.campaign import Failure, Tally, run, targets_of  # noqa: E402 - the paths come first
from fuzzing.cases import replayed, surface_of  # noqa: E402
from fuzzing.execution import Runner, set_up_process, warm_up  # noqa: E402
from fuzzing.fixtures import prepare  # noqa: E402
from fuzzing.judge import FAILURES  # noqa: E402
from fuzzing.minimise import minimise  # noqa: E402
from fuzzing.surface import TEXT, Surface  # noqa: E402
from fuzzing.surfaces import SURFACES  # noqa: E402
from fuzzing.table import table  # noqa: E402

_MOST_MINIMISED = 60


def main() -> int:
    """Run a campaign, or the cases of a file."""
    asked = _parser().parse_args()
    chosen = _chosen(asked.surface)
    with tempfile.TemporaryDirectory(prefix="llama-fuzz-base-") as scratch:
        base = (asked.base or Path(scratch)).resolve()
        if asked.replay is not None:
            return _replay(base, asked.replay, asked.verdicts)
        prepare(base, sorted(targets_of(chosen)))
        tallies: dict[str, Tally] = {}
        for surface, tally in run(base, chosen, asked.seed, asked.count, jobs=asked.jobs):
            tallies.setdefault(surface, Tally()).add(tally)
            for failure in tally.failures:
                print(*failure.signature, sep=" | ", file=sys.stderr, flush=True)
        print(table(tallies))
        failures = [
            failure
            for tally in tallies.values()
            for failure in tally.failures
            if failure.verdict.kind not in asked.tolerate
        ]
        if failures:
            _keep(base, failures, asked.keep or Path(tempfile.mkdtemp(prefix="llama-fuzz-kept-")))
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="seed of the cases (default 1)")
    parser.add_argument("--count", type=int, default=1000, help="cases in all (default 1000)")
    parser.add_argument(
        "--surface",
        action="append",
        help=f"all (the default) or a pattern, may be repeated: {', '.join(SURFACES)}",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument(
        "--tolerate", action="append", default=[], choices=FAILURES, help="count, but do not fail"
    )
    parser.add_argument("--keep", type=Path, help="folder that gets the failing cases")
    parser.add_argument("--base", type=Path, help="folder of the fixtures, kept for the next time")
    parser.add_argument("--replay", type=Path, help="file with cases to run again")
    parser.add_argument("--verdicts", type=Path, help="file that gets the verdicts of a replay")
    return parser


def _chosen(names: Sequence[str] | None) -> list[Surface]:
    import fnmatch

    if not names or "all" in names:
        return list(SURFACES.values())
    found = [name for name in SURFACES if any(fnmatch.fnmatch(name, each) for each in names)]
    unmatched = [each for each in names if not fnmatch.filter(SURFACES, each)]
    if unmatched:
        sys.exit(f"no such surface: {', '.join(unmatched)}; there are {', '.join(SURFACES)}")
    return [SURFACES[name] for name in found]


def _replay(base: Path, path: Path, written: Path | None) -> int:
    """Run the cases of a file, and print what each of them said and was."""
    cases = replayed(path.read_text(encoding="utf-8"))
    surfaces = [surface_of(case) for case in cases]
    prepare(base, sorted(targets_of(surfaces)))
    verdicts = []
    with tempfile.TemporaryDirectory(prefix="llama-fuzz-") as work:
        set_up_process(Path(work) / "home")
        warm_up(targets_of(surfaces))
        runner = Runner(base, Path(work))
        for case in cases:
            verdict, outcome = runner.run(case)
            verdicts.append(verdict)
            said = outcome.stderr.decode("utf-8", "backslashreplace").strip()
            print(f"{case.surface} {case.verb} {case.path}: {verdict.kind} ({verdict.detail})")
            print(f"  exit {outcome.code}, {outcome.cpu_s:.1f} s: {said[-600:]!a}")
            if outcome.trace:
                print(outcome.trace)
    if written is not None:
        found = [[verdict.kind, verdict.detail] for verdict in verdicts]
        written.write_text(json.dumps(found), encoding="utf-8")
    return 1 if any(verdict.failed for verdict in verdicts) else 0


def _keep(base: Path, failures: Sequence[Failure], folder: Path) -> None:
    """Write one case of each cause, made smaller, and print how to see it again."""
    folder.mkdir(parents=True, exist_ok=True)
    causes: dict[tuple[str, str, str], list[Failure]] = {}
    for failure in failures:
        causes.setdefault(failure.signature, []).append(failure)
    print(f"\n{len(failures)} failures of {len(causes)} kinds, in {folder}:")
    with tempfile.TemporaryDirectory(prefix="llama-fuzz-") as work:
        runner = Runner(base, Path(work))
        ordered = sorted(causes.items(), key=lambda each: -len(each[1]))
        for number, (signature, found) in enumerate(ordered):
            case = min((failure.case for failure in found), key=lambda each: len(str(each)))
            # A command line or a hub's answers would not be any more when halved.
            if number < _MOST_MINIMISED and surface_of(case).kind != TEXT:
                wanted = signature[1:]
                case = minimise(
                    case,
                    lambda smaller, wanted=wanted: (
                        (  # type: ignore[misc]
                            (verdict := runner.run(smaller)[0]).kind,
                            verdict.detail[:60],
                        )
                        == wanted
                    ),
                )
            path = folder / f"{signature[0]}-{number:03}.json"
            written = case.to_json() | {"verdict": list(signature[1:]), "trace": found[0].trace}
            path.write_text(json.dumps(written, indent=1), encoding="utf-8")
            print(f"{len(found):4} x {' | '.join(signature)}")
            print(f"       python tools/fuzz.py --replay {path}")


if __name__ == "__main__":
    sys.exit(main())
