"""The models that `list` shows, as a table and as JSON."""

from __future__ import annotations

import json

import pytest

from llama_export.sources.resolve import ALIASES
from llama_export.system.byte_sizes import format_bytes
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


@pytest.mark.parametrize("columns", [40, 60, 74])
def test_no_figure_is_cut_or_broken_on_a_narrow_screen(command, columns):
    lines = command("list", columns=columns)[1].splitlines()
    rows = json.loads(command("list", "--json")[1])
    assert max(map(len, lines)) <= columns
    table = "\n".join(lines)
    assert "…" not in table
    for row in rows:
        assert table.count(format_bytes(max(each["run_bytes"] for each in row["targets"]))) >= 1
        assert any(line.split()[:1] == [row["name"]] for line in lines)
