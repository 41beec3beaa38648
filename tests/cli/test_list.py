"""The models that `list` shows, as a table and as JSON."""

from __future__ import annotations

import json

import pytest

from llama_export.sources.resolve import ALIASES
from llama_export.targets.registry import TARGETS


def test_the_list_is_a_table_and_json(command, no_network):
    code, out, _ = command("list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert all(name in out for name in ("demo", *ALIASES))
    code, out, _ = command("list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert rows["3.2-1B"]["hub_id"] == ALIASES["3.2-1B"]
    assert rows["3.2-1B"]["targets"][0]["bundle_bytes"] == pytest.approx(822.8e6, rel=0.005)
    assert rows["demo"]["gated"] is False
    assert [target["target"] for target in rows["demo"]["targets"]] == list(TARGETS)
