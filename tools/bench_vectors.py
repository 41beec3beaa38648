"""Test vectors of a measurement: its report's keys, what fits into a context, summaries of samples.

This module knows the measuring code; it does not know who reads the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from llama_export.examine.bench import Spread, plan_bench

FORMAT_VERSION = 1
# Of `bench --json`, outside its lists and beside what the memory can do; a test compares.
KEYS = (
    "format_version",
    "bundle.folder",
    "bundle.model",
    "bundle.target",
    "bundle.recipe",
    "bundle.group_size",
    "bundle.size_bytes",
    "machine.cores",
    "machine.physical_cores",
    "machine.memory_bytes",
    "settings.threads",
    "settings.threads_chosen_by",
    "settings.prompt_lengths",
    "settings.contexts",
    "settings.decode_tokens",
    "settings.repeat",
    "settings.warm_up",
    "load_s",
    "resident_before_bytes",
    "resident_bytes",
    "peak_resident_bytes",
    "first_call_tokens",
    "first_call_s",
    "prefill[].tokens",
    "prefill[].first_token_s.median",
    "prefill[].first_token_s.least",
    "prefill[].first_token_s.most",
    "prefill[].tokens_per_s.median",
    "prefill[].tokens_per_s.least",
    "prefill[].tokens_per_s.most",
    "decode[].context",
    "decode[].tokens_per_s.median",
    "decode[].tokens_per_s.least",
    "decode[].tokens_per_s.most",
    "others_before",
    "others_during",
    "load_average",
    "was_busy",
    "bandwidth",
    "reads",
    "fits_caches",
    "notes",
)
# No app knows what is inside of these.
OPAQUE = ("bandwidth", "reads")
CONTEXTS = (2, 9, 17, 100, 128, 136, 137, 144, 300, 512, 1024, 1040, 2048, 131072)
SAMPLES: Mapping[str, list[float]] = {
    "one": [3.5],
    "two": [2.0, 1.0],
    "three": [5.0, 1.0, 2.0],
    "four, two alike": [4.0, 1.0, 1.0, 2.5],
    "five": [0.25, 8.0, 0.5, 0.75, 4.0],
}


def bench_vectors() -> Mapping[str, Any]:
    """Return the vectors of measuring."""
    return {
        "format_version": FORMAT_VERSION,
        "keys": list(KEYS),
        "plans": [
            {
                "name": f"{context} positions{', quick' * quick}",
                "max_context": context,
                "quick": quick,
                "plan": asdict(plan_bench(context, quick=quick)),
            }
            for context in CONTEXTS
            for quick in (False, True)
            if context > (8 if quick else 16)
        ],
        "spreads": [
            {"name": name, "samples": samples, "spread": asdict(Spread.of(samples))}
            for name, samples in SAMPLES.items()
        ],
    }


def key_paths(value: object, path: str = "") -> list[str]:
    """Return the paths of the keys of plain data, of each list those of its first entry.

    Args:
        value: a report, or a part of it.
        path: path of that part.
    """
    if isinstance(value, Mapping) and path not in OPAQUE:
        begin = f"{path}." if path else ""
        return [found for key, each in value.items() for found in key_paths(each, f"{begin}{key}")]
    if isinstance(value, list) and value and isinstance(value[0], Mapping) and path not in OPAQUE:
        return key_paths(value[0], f"{path}[]")
    return [path]
