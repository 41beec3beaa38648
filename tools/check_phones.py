"""Check the phones that a dry run knows: form, order, sources, figures that can be, and age.

    .venv/bin/python tools/check_phones.py [--max-age-months N] [FILE]

FILE is the package's own unless one is given. Faults go to standard error, and the exit status is 1
if there are any. A file of phones grows old by itself: from six months on the script says so, and
with --max-age-months an older one is a fault. It opens no page: whether a page still says what was
found on it, a person must read.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from itertools import pairwise
from pathlib import Path

from llama_export.exporting.phones import PHONES_FILE, SYSTEMS, KnownPhones, Phone, read_phones

OLD_MONTHS = 6
_MEMORY_GIB = (3, 32)
# LPDDR4X on two channels of 16 bits, and twice LPDDR6 on 96 bits.
_BANDWIDTH = (15e9, 300e9)
_PAGE = re.compile(r"https://[a-z0-9.-]+\.[a-z]+/\S*")


def faults_of(known: KnownPhones, today: date, max_age_months: int | None) -> list[str]:
    """Return what is wrong with the phones, in words.

    Args:
        known: phones, as read.
        today: day from which the age is counted.
        max_age_months: age from which the file is too old; None: none is.
    """
    found = [*_misplaced(known.phones)]
    for phone in known.phones:
        found += [f"{phone.name}: {fault}" for fault in _impossible(phone)]
    pages = {*known.share_sources, *(page for phone in known.phones for page in phone.sources)}
    found += [f"no https page: {page}" for page in sorted(pages) if not _PAGE.fullmatch(page)]
    months = age_in_months(known.as_of, today)
    if months < 0:
        found.append(f"as of {known.as_of}, which is after today, {today}")
    if max_age_months is not None and months > max_age_months:
        found.append(
            f"as of {known.as_of}, {months} months ago; at most {max_age_months} are allowed: look "
            "for new phones and figures, then write today's date into as_of"
        )
    return found


def age_in_months(then: date, today: date) -> int:
    """Return the whole months between two days; negative where the first is the later one."""
    months = (today.year - then.year) * 12 + today.month - then.month
    return months - (today.day < then.day)


def _misplaced(phones: Sequence[Phone]) -> Iterator[str]:
    """Find phones out of order: by system, a maker's together, and by the number in the name."""
    for before, phone in pairwise(phones):
        if SYSTEMS.index(phone.system) < SYSTEMS.index(before.system):
            yield f"{phone.name}: {phone.system} comes before {before.system}"
    seen: set[tuple[str, str]] = set()
    last: Phone | None = None
    for phone in phones:
        kind = _kind(phone)
        if last is not None and kind == _kind(last):
            if _number(phone) < _number(last):
                yield f"{phone.name}: after {last.name}, which is newer"
        elif kind in seen:
            yield f"{phone.name}: apart from the others of its kind"
        seen.add(kind)
        last = phone


def _kind(phone: Phone) -> tuple[str, str]:
    return phone.system, phone.name.split()[0]


def _number(phone: Phone) -> float:
    """Return the number in a phone's name; one without comes last."""
    digits = re.search(r"\d+", phone.name)
    return float(digits[0]) if digits else float("inf")


def _impossible(phone: Phone) -> Iterator[str]:
    least, most = (size * 2**30 for size in _MEMORY_GIB)
    if not least <= phone.memory_bytes <= most:
        yield f"a memory of {phone.memory_bytes / 2**30:g} GiB"
    if phone.bandwidth is not None and not _BANDWIDTH[0] <= phone.bandwidth <= _BANDWIDTH[1]:
        yield f"a peak of {phone.bandwidth / 1e9:.1f} GB/s"
    if not phone.sure_bytes <= phone.likely_bytes < phone.memory_bytes:
        yield "an app may be sure of more than it is likely to get, or get all of the memory"


def main(arguments: Sequence[str], today: date) -> int:
    """Check a file, and print what was found."""
    parser = argparse.ArgumentParser(description="Check the phones that a dry run knows.")
    parser.add_argument("file", nargs="?", type=Path, default=PHONES_FILE)
    parser.add_argument("--max-age-months", type=int, help="the age from which it is a fault")
    given = parser.parse_args(arguments)
    try:
        known = read_phones(given.file)
    except (OSError, ValueError) as fault:
        print(f"{given.file}: {fault}", file=sys.stderr)
        return 1
    faults = faults_of(known, today, given.max_age_months)
    for text in faults:
        print(f"{given.file}: {text}", file=sys.stderr)
    months = age_in_months(known.as_of, today)
    print(f"{len(known.phones)} phones as of {known.as_of}, {months} months old")
    if given.max_age_months is None and months >= OLD_MONTHS:
        print("that is old: there are newer phones", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], date.today()))
