"""Judge phones by the bundle that each of them would run.

It is arithmetic over what a target would write and what is known of a phone; nothing ran on one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from llama_export.exporting.estimate import QUOTED_CONTEXT, TargetEstimate
from llama_export.exporting.phones import Phone, known_phones
from llama_export.targets import registry

# Smaller models decode from the processor's caches: the memory's speed says nothing of them.
_SMALLEST_BYTES = 50_000_000


@dataclass(frozen=True)
class JudgedPhones:
    """The phones that would run one target's bundle."""

    estimate: TargetEstimate
    phones: tuple[Phone, ...]

    @property
    def context(self) -> int:
        """Positions for which memory and speed are reckoned."""
        return min(QUOTED_CONTEXT, self.estimate.max_context)

    @property
    def needed_bytes(self) -> int:
        """Memory that an app needs for the bundle."""
        return self.estimate.run_bytes(self.context)

    @property
    def read_bytes(self) -> int:
        """What a token reads."""
        return self.estimate.footprint.read_bytes_per_token(self.context)

    def fits(self, phone: Phone) -> str:
        """Judge whether a phone could hold the bundle: "yes", "perhaps" or "no"."""
        return phone.verdict(self.needed_bytes)

    def bound(self, phone: Phone) -> float | None:
        """Return the bound on a phone's decoding; None where it cannot run at all."""
        if self.fits(phone) == "no":
            return None
        return phone.tokens_per_s(self.read_bytes)

    def to_json(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "target": self.estimate.target,
            "context": self.context,
            "needed_bytes": self.needed_bytes,
            "read_bytes_per_token": self.read_bytes,
            "rows": [
                {
                    "name": phone.name,
                    "system": phone.system,
                    "memory_bytes": phone.memory_bytes,
                    "app_bytes": [phone.sure_bytes, phone.likely_bytes],
                    "memory_kind": phone.memory_kind,
                    "bandwidth_bytes_per_s": phone.bandwidth,
                    "bandwidth_is_derived": phone.derived,
                    "fits": self.fits(phone),
                    "tokens_per_s_bound": self.bound(phone),
                    "note": phone.note,
                    "sources": list(phone.sources),
                }
                for phone in self.phones
            ],
        }


def judge_phones(estimates: Iterable[TargetEstimate]) -> Iterator[JudgedPhones]:
    """Judge each phone by the target that it would run, of those that are exported.

    Args:
        estimates: what each target would write.

    Returns:
        The targets that some phone would run; none where the model is too small for the arithmetic
        to say anything.
    """
    suited = {each.target: each for each in estimates if each.bundle_bytes >= _SMALLEST_BYTES}
    ranks = {target: registry.get(target).phone_systems for target in suited}
    for target, phones in known_phones().by_target(ranks).items():
        yield JudgedPhones(suited[target], phones)
