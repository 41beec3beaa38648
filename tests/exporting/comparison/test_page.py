"""The page of a comparison: escaped, complete, its own, and the same bytes again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from llama_export.errors import OutputError, UsageError
from llama_export.exporting.comparison.figures import (
    JudgedPhone,
    LinearCost,
    ReadText,
    RecipeComparison,
    RecipeFigures,
    TextFigures,
)
from llama_export.exporting.comparison.identity import Identity, identity_of
from llama_export.exporting.comparison.limits import Limit
from llama_export.exporting.comparison.page import FIRST_LINE, recipes_page
from llama_export.exporting.comparison.recommend import recommend
from llama_export.verification.estimate import Estimate
from llama_export.verification.report.layout import check_page, write_page

pytest.importorskip("matplotlib", reason="needs the extra `report`")

EVIL = "<script>alert(1)</script>\x1b[31m & $x^2$"
IDENTITY = Identity("llama-export compare --model x", {"torch": "2"}, "Xeon", 2, "2026-01-02")


def comparison(name: str = "tiny") -> RecipeComparison:
    text = TextFigures(
        Estimate(0.0121, 0.0004),
        0.03,
        0.2,
        1.5,
        Estimate(0.912, 0.004),
        Estimate(15.3, 0.9),
        Estimate(1.012, 0.003),
    )
    cost = LinearCost("model.layers.3.mlp.down_proj.weight", "int4 g32", 0.12)
    phones = (JudgedPhone(name, "onnx", "perhaps", 41.7), JudgedPhone("Old", "onnx", "no", None))
    recipes = tuple(
        RecipeFigures(each, ("--quantize", each), {}, {}, size, 4.5, (text,), (cost,), (), phones)
        for each, size in ((f"{name}:g32", 100_000_000), ("bf16", 300_000_000))
    )
    exact = replace(text, kl=Estimate(0.0, 0.0))
    recipes = (recipes[0], replace(recipes[1], texts=(exact,), costliest=()))
    read = ReadText(name, "ab" * 32, 8000, 1000, 64, Estimate(15.1, 0.9))
    return RecipeComparison(name, {"hub_id": "a/b"}, name, (read,), recipes, IDENTITY)


def test_a_page_has_the_figures_and_what_they_depend_on():
    found = comparison()
    answer = recommend(found, Limit(most_kl=0.02))
    page = recipes_page(found, answer, "llama-export --target all")
    assert page.startswith(FIRST_LINE + "\n")
    for said in (
        "0.0121 ± 0.0004",
        "91.2 ± 0.4",
        "1.012 ± 0.003",
        "100.0",
        "3 down_proj 12.0%",
        "perhaps, 42",
        "sha256 abababababababab",
        "rules sha256 44136fa355b3678a",
        "llama-export compare --model x",
        "2026-01-02",
        "Xeon, 2 threads",
        answer.sentence.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"),
        "bf16, KL 0",
        "<code>llama-export --target all</code>",
    ):
        assert said in page, said
    assert page.count("<svg") == 1
    assert page == recipes_page(found, answer, "llama-export --target all")


@pytest.mark.parametrize(
    ("limit", "ring"), [(Limit(most_kl=0.02), 1), (Limit(most_bytes=10), 0), (None, 0)]
)
def test_the_plot_marks_the_limit_and_the_choice(limit, ring):
    found = comparison()
    page = recipes_page(found, None if limit is None else recommend(found, limit), None)
    assert page.count("stroke-dasharray") == (limit is not None)
    assert ("the ring what is recommended" in page) == bool(ring)
    assert ("The dashed line is the limit" in page) == (limit is not None)


def test_what_comes_from_outside_is_shown_and_does_nothing():
    page = recipes_page(comparison(EVIL), None, None)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "default-src 'none'" in page


def test_each_of_several_texts_has_a_line_and_a_table():
    one = comparison()
    texts = (one.texts[0], replace(one.texts[0], name="second $x^2$"))
    recipes = tuple(replace(each, texts=each.texts * 2) for each in one.recipes)
    page = recipes_page(replace(one, texts=texts, recipes=recipes), None, None)
    assert page.count("<h2>On ") == 2
    # In the plot's legend too: a name is no formula.
    assert page.count("second $x^2$") == 3


def test_only_a_page_of_ours_is_replaced(tmp_path):
    page = recipes_page(comparison(), None, None)
    file = tmp_path / "page.html"
    write_page(page, file, FIRST_LINE)
    write_page(page, file, FIRST_LINE)
    assert file.read_text(encoding="utf-8") == page
    file.write_text("mine")
    for call in (lambda: check_page(file, FIRST_LINE), lambda: write_page(page, file, FIRST_LINE)):
        with pytest.raises(OutputError, match="is not a report"):
            call()
    assert file.read_text() == "mine"


def test_the_date_is_the_builds_or_none(monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert identity_of("llama-export compare").date is None
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert identity_of("llama-export compare").date == "1970-01-02T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        identity_of("llama-export compare")
