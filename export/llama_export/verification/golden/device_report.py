"""What a phone measured of a bundle's golden calls, as the JSON that an app writes.

It knows the report's form, and whose bundle it speaks of; it judges nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_export.bundle.bundle import Bundle
from llama_export.bundle.json_object import JsonObject, is_integer
from llama_export.bundle.manifest import MANIFEST_NAME
from llama_export.errors import UsageError
from llama_quantize.printable import shown_name
from llama_quantize.strict_json import JsonFault, read_object

FORMAT_VERSION = 1

_MOST_BYTES = 2**21
_GIVE_REPORT = "give the JSON file that the app wrote"
_MOST_CALLS, _MOST_TOP = 1024, 64
_MOST_FACTS, _MOST_LETTERS = 16, 200
_HINT = "write it again with the app, and copy it whole"


@dataclass(frozen=True)
class Measured:
    """What a phone measured after one call.

    Args:
        at: position of the call's last token.
        logprobs: logarithms of probability of the golden answer's places, in its order; None: the
            phone had no finite number there.
        rest_logprob: that of all other places together; None: as above, or there are no others.
        best: the phone's own likeliest place; None: it found none.
    """

    at: int
    logprobs: tuple[float | None, ...]
    rest_logprob: float | None
    best: int | None


@dataclass(frozen=True)
class DeviceReport:
    """A phone's report.

    Args:
        device: what the phone says of itself: model, system and others.
        runtime: what ran the artifact, with its version.
        manifest_sha256: SHA-256 of the manifest.json that lay there.
        positions: measurements in the order of the golden calls.
    """

    device: Mapping[str, str]
    runtime: str
    manifest_sha256: str
    positions: tuple[Measured, ...]


def read_device_report(path: Path, bundle: Bundle) -> DeviceReport:
    """Read a phone's report on a bundle.

    Raises:
        UsageError: there is no such file, it is no report of this format, or it speaks of another
            bundle.
    """
    try:
        raw = read_object(path, most_bytes=_MOST_BYTES)
    except OSError as error:
        message = f"--device-report: {path} cannot be read: {error.strerror or error}"
        raise UsageError(message, _GIVE_REPORT) from None
    except JsonFault as fault:
        message = f"--device-report: {path} cannot be read as JSON: {fault}"
        raise UsageError(message, _GIVE_REPORT) from None
    report = parse_device_report(raw, str(path))
    own = hashlib.sha256((bundle.folder / MANIFEST_NAME).read_bytes()).hexdigest()
    if report.manifest_sha256 != own:
        message = (
            f"--device-report: {path} speaks of another bundle: its manifest.json has the sha256 "
            f"{report.manifest_sha256:.12}..., and this one {own:.12}..."
        )
        raise UsageError(message, "give the very bundle that lies on the phone")
    return report


def parse_device_report(raw: Mapping[str, object], where: str) -> DeviceReport:
    """Check every field of a report.

    Args:
        raw: the parsed object.
        where: name of the file, for messages.

    Raises:
        UsageError: the format is newer, or a field is wrong.
    """
    faults: list[str] = []
    top = JsonObject(raw, "", faults)
    if top.integer("format_version", minimum=1) != FORMAT_VERSION:
        top.fault("format_version", f"{FORMAT_VERSION}, which this llama-export reads")
    device = top.child("device").raw
    sound = len(device) <= _MOST_FACTS and all(
        isinstance(value, str) and len(value) <= _MOST_LETTERS for value in device.values()
    )
    if not sound:
        top.fault("device", f"at most {_MOST_FACTS} short texts")
    sha256 = top.raw.get("manifest_sha256")
    if not isinstance(sha256, str):
        top.fault("manifest_sha256", "64 hex digits")
    found = DeviceReport(
        device={shown_name(key): shown_name(str(value), 120) for key, value in device.items()},
        runtime=shown_name(str(top.raw.get("runtime", "")), 120),
        manifest_sha256=str(sha256),
        positions=tuple(map(_measured, top.children("positions", _MOST_CALLS))),
    )
    if faults:
        message = f"--device-report: {where}: {'; '.join(faults[:8])}"
        raise UsageError(message, _HINT)
    return found


def _measured(raw: JsonObject) -> Measured:
    values = raw.raw.get("logprobs")
    if not isinstance(values, list) or len(values) > _MOST_TOP or not all(map(_is_logprob, values)):
        raw.fault("logprobs", f"a list of at most {_MOST_TOP} numbers or null")
        values = []
    rest, best = raw.raw.get("rest_logprob"), raw.raw.get("best")
    if not _is_logprob(rest):
        raw.fault("rest_logprob", "a number or null")
        rest = None
    if best is not None and not is_integer(best):
        raw.fault("best", "a whole number or null")
        best = None
    return Measured(raw.integer("at"), tuple(map(_number, values)), _number(rest), best)


def _number(value: float | None) -> float | None:
    """Return a number that floats can compute with: a whole one may have forty digits."""
    return None if value is None else float(value)


def _is_logprob(value: object) -> bool:
    return value is None or is_integer(value) or isinstance(value, float)
