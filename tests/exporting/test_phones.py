"""The phones that are known: sources, and the arithmetic of what fits them."""

from __future__ import annotations

import re
from dataclasses import replace

from llama_export.exporting.phones import PHONES, Phone, derived_bandwidth


def test_phones_are_sourced_and_their_arithmetic_holds():
    assert len({phone.name for phone in PHONES}) == len(PHONES)
    for phone in PHONES:
        assert phone.sources
        assert all(re.match(r"https://[\w.]+/", source) for source in phone.sources)
        assert phone.bandwidth is None or 10e9 < phone.bandwidth < 100e9
        assert 4 * 2**30 <= phone.memory_bytes <= 16 * 2**30
    assert derived_bandwidth(6400) == 51.2e9
    phone = Phone("test", 8 * 10**9, None, 50e9, False, ("https://a.b/",))
    assert [phone.verdict(size) for size in (3 * 10**9, 3_000_000_001, 6 * 10**9, 7 * 10**9)] == [
        "yes",
        "perhaps",
        "perhaps",
        "no",
    ]
    assert phone.tokens_per_s(10**9) == 50
    assert replace(phone, memory_bytes=12 * 10**9).verdict(3_300_000_001) == "perhaps"
    assert replace(phone, memory_bytes=16 * 10**9).verdict(8_000_000_001) == "no"
    assert replace(phone, bandwidth=None).tokens_per_s(10**9) is None
