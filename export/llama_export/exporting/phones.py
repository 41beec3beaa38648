"""Some well-known phones: their memory, what an app may take of it, and how fast it is read.

The figures are in `phones.json`, each with the pages that it was found on, and one date for all of
them; `tools/check_phones.py` checks the file. Where a page gives how often memory transfers and
not how fast it is read, the peak is derived: transfers a second times the width of the bus. What
was not found is null; nothing is guessed. The module reads that file and does the arithmetic; it
knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from llama_export.errors import LlamaExportError
from llama_quantize.strict_json import JsonFault, read_object

PHONES_FILE = Path(__file__).with_name("phones.json")
SYSTEMS = ("iOS", "Android")

_FORMAT_VERSION = 1
_GB = 1_000_000_000
_GIB = 2**30
_PUBLISHED, _TRANSFERS, _BUS = "published_gb_per_s", "megatransfers_per_s", "bus_bits"


@dataclass(frozen=True)
class Allowance:
    """What an app may take of a phone's memory.

    Args:
        share: part of the memory, above 0 and at most 1.
        limit_bytes: size that no phone lets it pass.
    """

    share: float
    limit_bytes: int

    def of(self, memory_bytes: int) -> int:
        """Return the bytes that an app may take of so much memory."""
        return min(int(memory_bytes * self.share), self.limit_bytes)


@dataclass(frozen=True)
class Phone:
    """A phone.

    Args:
        name: name in a shop, or the chip's.
        system: one of `SYSTEMS`.
        memory_bytes: size of the RAM; shops write GB and mean GiB.
        memory_kind: kind of memory, such as "LPDDR5"; None where no page was found.
        bandwidth: peak in bytes per second; None where none was found.
        derived: whether the bandwidth is transfers per second times bus width, not published.
        sure_bytes: what an app may count on.
        likely_bytes: what an app may get when it asks for more and the system allows it.
        note: what the figures leave out; None: nothing.
        sources: pages for all of the above.
    """

    name: str
    system: str
    memory_bytes: int
    memory_kind: str | None
    bandwidth: float | None
    derived: bool
    sure_bytes: int
    likely_bytes: int
    note: str | None
    sources: tuple[str, ...]

    def verdict(self, needed_bytes: int) -> str:
        """Judge whether it could hold so much: "yes", "perhaps" or "no"."""
        if needed_bytes <= self.sure_bytes:
            return "yes"
        return "perhaps" if needed_bytes <= self.likely_bytes else "no"

    def tokens_per_s(self, read_bytes_per_token: int) -> float | None:
        """Return the bound on decoding: nothing reads faster than the memory's peak."""
        return None if self.bandwidth is None else self.bandwidth / read_bytes_per_token


@dataclass(frozen=True)
class KnownPhones:
    """What was found about phones.

    Args:
        as_of: day on which the pages were last looked for.
        sure: what an app may count on.
        likely: what an app may get when it asks for more.
        share_sources: pages on what an app may take.
        phones: phones in the order in which they are shown.
    """

    as_of: date
    sure: Allowance
    likely: Allowance
    share_sources: tuple[str, ...]
    phones: tuple[Phone, ...]

    def by_target(self, ranks: Mapping[str, Mapping[str, int]]) -> dict[str, tuple[Phone, ...]]:
        """Return which phones would run which target: each takes the first that its system has.

        Args:
            ranks: rank of each target on each system that could run it, by the target's name.
        """
        takes = {
            system: min(
                (target for target in ranks if system in ranks[target]),
                key=lambda target: ranks[target][system],
                default=None,
            )
            for system in {phone.system for phone in self.phones}
        }
        found = {
            target: tuple(phone for phone in self.phones if takes[phone.system] == target)
            for target in ranks
        }
        return {target: phones for target, phones in found.items() if phones}


@cache
def known_phones() -> KnownPhones:
    """Read the package's own file.

    Raises:
        LlamaExportError: it is not there, or not as it was made.
    """
    try:
        return read_phones(PHONES_FILE)
    except (OSError, ValueError) as fault:
        message = f"{PHONES_FILE}, a file of the package, is damaged: {fault}"
        raise LlamaExportError(message, "install llama-export again") from None


def read_phones(path: Path) -> KnownPhones:
    """Read a file of phones strictly: every key there, of its type, and none besides.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file; the message says where and why.
    """
    try:
        raw = read_object(path)
    except JsonFault as fault:
        message = f"it is not valid JSON: {fault}"
        raise ValueError(message) from None
    _require_keys(raw, "format_version as_of app_memory phones pages", "the file")
    if raw["format_version"] != _FORMAT_VERSION:
        message = f"format_version: expected {_FORMAT_VERSION}, found {raw['format_version']!r}"
        raise ValueError(message)
    pages = _typed(raw, "pages", dict, "the file")
    for name in pages:
        _typed(pages, name, str, "pages")
    shares = _typed(raw, "app_memory", dict, "the file")
    _require_keys(shares, "sure likely sources", "app_memory")
    sure, likely = (_allowance(shares, name) for name in ("sure", "likely"))
    rows = _typed(raw, "phones", list, "the file")
    phones = tuple(_phone(row, f"phones[{at}]", sure, likely, pages) for at, row in enumerate(rows))
    found = KnownPhones(
        date.fromisoformat(_typed(raw, "as_of", str, "the file")),
        sure,
        likely,
        _sources(shares, "app_memory", pages),
        phones,
    )
    _require_used(pages, found)
    return found


def _phone(
    raw: object, where: str, sure: Allowance, likely: Allowance, pages: Mapping[str, str]
) -> Phone:
    row = _require_keys(raw, "name system memory_gib memory_kind peak note sources", where)
    name = _typed(row, "name", str, where)
    where = f"{where}, {name}"
    system = _typed(row, "system", str, where)
    if system not in SYSTEMS:
        message = f"{where}: system: expected one of {', '.join(SYSTEMS)}, found {system!r}"
        raise ValueError(message)
    memory_bytes = _positive(row, "memory_gib", int, where) * _GIB
    bandwidth, derived = _peak(row["peak"], where)
    return Phone(
        name,
        system,
        memory_bytes,
        _text_or_none(row, "memory_kind", where),
        bandwidth,
        derived,
        sure.of(memory_bytes),
        likely.of(memory_bytes),
        _text_or_none(row, "note", where),
        _sources(row, where, pages),
    )


def _peak(raw: object, where: str) -> tuple[float | None, bool]:
    """Return bytes per second, and whether they are derived."""
    if raw is None:
        return None, False
    where = f"{where}: peak"
    if isinstance(raw, dict) and _PUBLISHED in raw:
        found = _require_keys(raw, _PUBLISHED, where)
        return float(_positive(found, _PUBLISHED, float, where)) * _GB, False
    found = _require_keys(raw, f"{_TRANSFERS} {_BUS}", where)
    transfers, bits = (_positive(found, key, int, where) for key in (_TRANSFERS, _BUS))
    return transfers * 1e6 * bits / 8, True


def _allowance(raw: Mapping[str, Any], name: str) -> Allowance:
    where = f"app_memory.{name}"
    found = _require_keys(raw[name], "share limit_bytes", where)
    share = _positive(found, "share", float, where)
    if share > 1:
        message = f"{where}: share: expected at most 1, found {share}"
        raise ValueError(message)
    return Allowance(share, _positive(found, "limit_bytes", int, where))


def _sources(raw: Mapping[str, Any], where: str, pages: Mapping[str, str]) -> tuple[str, ...]:
    names = _typed(raw, "sources", list, where)
    unknown = [name for name in names if not isinstance(name, str) or name not in pages]
    if unknown or not names:
        message = f"{where}: sources: expected names of `pages`, found {unknown or names!r}"
        raise ValueError(message)
    return tuple(pages[name] for name in names)


def _require_used(pages: Mapping[str, str], found: KnownPhones) -> None:
    """Refuse two phones of one name, two names of one page, and a page without a phone."""
    names = [phone.name for phone in found.phones]
    used = {*found.share_sources, *(page for phone in found.phones for page in phone.sources)}
    faults = {
        "phones that are there twice": [name for name in names if names.count(name) > 1],
        "pages that are there twice": [
            name for name, page in pages.items() if list(pages.values()).count(page) > 1
        ],
        "pages that nothing names": [name for name, page in pages.items() if page not in used],
    }
    for what, which in faults.items():
        if which:
            message = f"{what}: {', '.join(dict.fromkeys(which))}"
            raise ValueError(message)


def _require_keys(raw: object, names: str, where: str) -> dict[str, Any]:
    expected = names.split()
    if not isinstance(raw, dict) or set(raw) != set(expected):
        found = sorted(raw) if isinstance(raw, dict) else raw
        message = f"{where}: expected the keys {', '.join(expected)}, found {found!r}"
        raise ValueError(message)
    return raw


def _typed(raw: Mapping[str, Any], key: str, kind: type, where: str) -> Any:  # noqa: ANN401 - of `kind`
    value = raw[key]
    if type(value) is not kind or not value:
        message = f"{where}: {key}: expected a {kind.__name__}, not empty, found {value!r}"
        raise ValueError(message)
    return value


def _positive(raw: Mapping[str, Any], key: str, kind: type, where: str) -> Any:  # noqa: ANN401 - of `kind`
    value = _typed(raw, key, kind, where)
    if value <= 0:
        message = f"{where}: {key}: expected more than 0, found {value}"
        raise ValueError(message)
    return value


def _text_or_none(raw: Mapping[str, Any], key: str, where: str) -> str | None:
    text: str | None = None if raw[key] is None else _typed(raw, key, str, where)
    return text
