"""A report as JSON against its schema, in words, and in the terminal."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import math
from pathlib import Path

import jsonschema
import pytest
from artifacts import tiny
from artifacts.sample_reports import (
    ALONE,
    DIVERGENCE,
    FAILED,
    LITTLE_GAINED,
    PASSED,
    PLOT_DATA,
    ROWS,
)
from artifacts.verifiable import make, verify
from markupsafe import escape
from rich.console import Console

from llama_export.cli.terminal import headlines, show_report
from llama_export.verification.estimate import Estimate
from llama_export.verification.report.html import render_html
from llama_export.verification.report.table import report_table
from llama_export.verification.report.wording import (
    format_share,
    found_terms,
    not_proved,
    place,
    same_token,
    verdict,
)
from llama_export.verification.rows import (
    SECTIONS,
    Row,
    informed,
    judged,
    report_text,
    unchecked,
)

SCHEMA = json.loads(
    Path(__file__)
    .resolve()
    .parents[3]
    .joinpath("export/llama_export/verification/report/report.schema.json")
    .read_text("utf-8")
)
ROW_KEYS = ["key", "name", "value", "error", "n", "threshold", "passed", "note", "wants"]


def valid(document) -> bool:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA).is_valid(document)


def shown(report, width=80, **options) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(report_table(report, **options))
    return console.file.getvalue()


def flat(text: str) -> str:
    """Without the line breaks that a narrow terminal makes."""
    return " ".join(text.split())


@pytest.mark.parametrize("report", [PASSED, FAILED, ALONE], ids=["passed", "failed", "alone"])
def test_a_report_follows_its_schema(report):
    document = report.to_json()
    jsonschema.validate(document, SCHEMA)
    assert document["passed"] is report.passed
    assert json.loads(report_text(report)) == document


def test_the_order_of_the_keys_is_fixed():
    document = FAILED.to_json()
    assert list(document) == SCHEMA["required"]
    assert list(document["sections"]) == list(SECTIONS)
    assert list(document["sections"]["lowering"][0]) == ROW_KEYS
    assert list(document["divergence"]) == SCHEMA["$defs"]["divergence"]["required"]
    assert list(document["series"]) == SCHEMA["$defs"]["series"]["required"]
    assert document["format_version"] == SCHEMA["properties"]["format_version"]["const"] == 4
    assert report_text(FAILED) == report_text(dataclasses.replace(FAILED))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("format_version",), 1),
        (("passed",), "yes"),
        (("model",), None),
        (("more",), 1),
        (("settings", "text"), None),
        (("sections", "lowering", 0, "value"), "small"),
        (("sections", "lowering", 0, "more"), 1),
        (("sections", "else"), []),
        (("sections", "structure"), None),
        (("measurements", "quantisation", "kl_mean"), []),
        (("divergence", "layer"), -1),
        (("divergence", "others"), None),
        (("series", "kl_by_position", "quantisation"), [[0.1]]),
        (("series", "kl_by_position", "other"), [0.1]),
        (("series", "logit_scatter", 0), [1.0]),
        (("series", "tensors", 0, "bits"), 4.5),
        (("series", "sizes_bytes", "scales"), -1),
    ],
)
def test_the_schema_refuses_another_form(where, value):
    document = copy.deepcopy(FAILED.to_json())
    inner = document
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    assert not valid(document)


@pytest.mark.parametrize("key", SCHEMA["required"])
def test_the_schema_misses_what_is_left_out(key):
    document = PASSED.to_json()
    assert valid(document)
    del document[key]
    assert not valid(document)


def test_no_figure_of_the_json_is_infinite_or_nan():
    wild = (math.nan, math.inf, -math.inf)
    plot_data = dataclasses.replace(
        PLOT_DATA,
        kl_by_position={"lowering_exact": (*wild, 0.5)},
        logit_scatter=((math.nan, 1.0),),
    )
    report = dataclasses.replace(
        FAILED,
        rows=tuple(
            Row("lowering", f"row_{i}", "n", value, value, False) for i, value in enumerate(wild)
        ),
        measurements={"lowering_exact": dict(zip("abc", wild, strict=True))},
        plot_data=plot_data,
        divergence=dataclasses.replace(DIVERGENCE, error=math.inf),
    )
    text = report_text(report)
    assert "NaN" not in text
    assert "Infinity" not in text
    document = json.loads(text)
    jsonschema.validate(document, SCHEMA)
    assert document["series"]["kl_by_position"]["lowering_exact"] == [None, None, None, 0.5]
    assert document["divergence"]["error"] is None
    assert [row["passed"] for row in document["sections"]["lowering"]] == [False] * 3


def test_the_json_for_a_pipe_keeps_a_list_of_numbers_on_one_line():
    lines = report_text(PASSED).splitlines()
    assert len(lines) < 320
    assert sum(line.lstrip().startswith('"logit_scatter": [[') for line in lines) == 1


def test_the_summary_says_the_verdict_and_each_term():
    lines = shown(PASSED).splitlines()
    assert lines[0].rstrip() == "demo for onnx: passed, 5 checks"
    text = flat(shown(PASSED))
    for figures in (
        "lowering 7.3e-13 100% same arithmetic",
        "activation rounding 0.00018 ± 0.00002 98.4%",
        "quantisation 0.0107 ± 0.0009 0.024 0.13 1.2 92.8 ± 0.8%",
        "over 1000 positions (lowering: 750) of the text built-in, sha256 5a5a5a5a5a5a",
        "perplexity 12.3 ± 0.8 of the original, 12.5 ± 0.8 quantised: 1.018 ± 0.003 times",
        "int4 in groups of 32, good (gptq_descent), 5.25 bits a weight, of",
        "torch 2.13.0; A processor, 2 logical cores",
    ):
        assert figures in text
    assert "Not proved" not in text
    assert "wrong" not in text


def test_a_warning_is_said_beside_what_the_weights_were_calibrated_on():
    text = flat(shown(LITTLE_GAINED))
    assert text.startswith("demo for onnx: passed, 6 checks, 1 with a warning")
    assert "plain rounding 0.0143 91.3%" in text
    assert "tokens for gptq_descent: 32768; sha256 5a5a" in text
    assert "Passed with a warning: - KL over rounding's: 0.748; little" in text
    every = flat(shown(LITTLE_GAINED, every_row=True))
    assert "warning 0.748 KL over rounding's ≤0.9 warning: little" in every
    assert LITTLE_GAINED.passed
    jsonschema.validate(LITTLE_GAINED.to_json(), SCHEMA)
    for words in ("warning", "calibrated", "plain rounding"):
        assert words not in shown(PASSED, every_row=True)


def test_a_failure_is_named_first_with_its_place():
    text = shown(FAILED)
    lines = text.splitlines()
    assert lines[0].rstrip() == "demo for onnx: FAILED, 1 of 5 checks"
    assert lines[2].rstrip() == "first wrong: layer 3, self_attn.q_proj"
    for words in (DIVERGENCE.detail, DIVERGENCE.value, *DIVERGENCE.others, "0.1234"):
        assert words in flat(text)
    assert "FAILED inf mean KL in float32, nats ≤1.0e-05 a NaN" in flat(text)  # with its note
    assert "a token given again" not in text  # one that passed


def test_what_is_not_proved_is_said_with_what_would_prove_it():
    text = flat(shown(ALONE))
    assert "not proved: 1 check of the quick version passed, 2 could not be made" in text
    assert "no quantised weights, so it is not proved that the artifact holds them" in text
    assert "no reference checkpoint, so it is not proved what the quantisation cost" in text
    assert "--weights FOLDER and --checkpoint MODEL" in text
    assert "KL, nats same next token" not in text  # no term was measured
    missing = not_proved(dataclasses.replace(ALONE, rows=ALONE.rows[:2]))
    assert "--weights FOLDER would" in missing[-1]
    assert not_proved(PASSED) == ()


def test_the_verdict_says_when_the_artifact_was_not_compared_and_when_it_was_quick():
    nothing = unchecked(
        "lowering", "kl_exact", "mean KL", "no quantised weights; that is not proved"
    )
    report = dataclasses.replace(PASSED, rows=(*PASSED.rows, nothing))
    assert verdict(report) == "not proved: 5 checks passed, 1 could not be made"
    quick = dataclasses.replace(PASSED, settings={**PASSED.settings, "quick": True})
    assert verdict(quick) == "passed, 5 checks of the quick version"


def test_a_check_that_strict_fails_stays_not_made():
    row = dataclasses.replace(ALONE.rows[1], passed=False)
    report = dataclasses.replace(ALONE, rows=(ALONE.rows[0], row))
    assert report.failures == report.unmade == (row,)
    assert "FAILED, 1 of 2 checks" in shown(report)
    assert "Not proved" in shown(report)


@pytest.mark.parametrize("width", [40, 80])
def test_every_row_is_there_and_nothing_is_cropped(width):
    extra = unchecked("structure", "x", "a [b]name[/b]", "why " * 30)
    report = dataclasses.replace(FAILED, rows=(*FAILED.rows, extra))
    text = shown(report, width=width, every_row=True)
    assert max(map(len, text.splitlines())) <= width
    assert "[b]name[/b]" in text  # a name is never markup
    words = text.split()
    assert words.count("FAILED") == 1
    assert words.count("passed") == sum(row.passed is True for row in report.rows)
    for row in report.rows:
        assert set(f"{row.name} {row.note}".split()) <= set(words), row


@pytest.mark.parametrize("report", [PASSED, FAILED, ALONE], ids=["passed", "failed", "alone"])
def test_the_short_form_counts_every_section(report):
    text = flat(shown(report))
    for section, title in SECTIONS.items():
        rows = [row for row in report.rows if row.section == section]
        assert (title in text) == bool(rows)
        judgements = [row.passed for row in rows if row.passed is not None]
        if rows and judgements:
            failed = judgements.count(False)
            words = f"{failed or len(judgements)} of {len(judgements)}"
            assert f"{words} {'FAILED' if failed else 'passed'} {title}" in text
    assert ("--verbose" in text) == (not report.failures)


def test_the_terminal_prints_one_form_or_the_other(capsys):
    show_report(PASSED, as_json=True)
    assert json.loads(capsys.readouterr().out) == PASSED.to_json()
    show_report(PASSED, as_json=False)
    short = capsys.readouterr().out
    show_report(PASSED, as_json=False, every_row=True)
    assert len(capsys.readouterr().out) > len(short) > 200


def test_an_export_shows_the_headlines():
    assert headlines(PASSED) == {
        "lowering error, same arithmetic": "KL 7.3e-13",
        "lowering error, as shipped": "KL 1.9e-04",
        "quantisation error": "KL 0.0107 ± 0.0009",
        "same next token as original": "92.8 ± 0.8% of 1000",
        "verified": "passed",
    }
    assert headlines(FAILED)["verified"] == "FAILED"
    assert headlines(ALONE) == {"verified": "not proved: no weights and checkpoint"}


@pytest.mark.parametrize(
    ("share", "words"),
    [(1.0, "100%"), (0.9999, "99.9%"), (0.985, "98.5%"), (0.0, "0.0%"), (math.nan, "")],
)
def test_only_all_of_them_are_100_per_cent(share, words):
    assert format_share(Estimate(share, math.nan)) == words
    assert format_share(None) == ""


def test_a_share_with_an_error_never_becomes_100_per_cent():
    assert format_share(Estimate(0.999, 0.001)) == "99.90 ± 0.10%"


def test_where_a_runtime_always_rounds_the_headline_is_of_single_steps():
    """Two that run freely tip other roundings: that figure proves nothing, and is no headline."""
    steps = (
        judged("lowering", "kl_exact", "free", 2.7e-2, 5e-2),
        judged("lowering", "cache_steps", "steps", 0, 0),
        judged("activation", "kl_shipped_emulated", "each step", Estimate(1.1e-5, 2e-6, 32), 1e-3),
        informed("activation", "top1_emulated", "same token", 1.0),
    )
    rows = (*(row for row in ROWS if row.key not in ("kl_exact", "top1_exact")), *steps)
    figures = {"positions": 32, "kl_p50": 1.2e-13}
    measured = PASSED.measurements | {"lowering_shipped_emulated": figures}
    always = dataclasses.replace(PASSED, rows=rows, measurements=measured)
    lowering = found_terms(always)[0]
    assert (lowering.term.name, lowering.kl.value) == ("lowering", 1.1e-5)
    assert "bug" not in lowering.term.meaning
    assert "after its own keys and values" in lowering.term.meaning
    assert "half of the 32 single steps agree to a KL of 1.2e-13" in flat(shown(always))
    assert "Lowering: half of the 32 single steps" in render_html(always)
    assert found_terms(PASSED)[0].kl.value == 7.3e-13
    assert "single steps" not in shown(PASSED)


def test_a_term_without_positions_gives_its_share_alone():
    figures = {found.term.key: found for found in found_terms(PASSED)}
    assert same_token(figures["activation"]) == "98.4%"
    assert same_token(figures["shipped"]) == ""


@pytest.mark.parametrize(
    ("layer", "operator", "words"),
    [
        (3, "model.layers.3.mlp.up_proj", "layer 3, mlp.up_proj"),
        (0, "model.layers.0.self_attn (attention)", "layer 0, self_attn (attention)"),
        (None, "lm_head", "lm_head"),
    ],
)
def test_a_place_is_named_by_its_layer(layer, operator, words):
    assert place(dataclasses.replace(DIVERGENCE, layer=layer, operator=operator)) == words


def test_a_report_that_judged_nothing_says_so():
    report = dataclasses.replace(ALONE, rows=ALONE.rows[1:])
    assert not report.passed
    assert verdict(report) == "nothing was checked"
    assert judged("lowering", "k", "n", math.nan, 1.0).passed is False


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Reports of real verifications: a right artifact, one with a NaN, one with no references."""
    made = make(tmp_path_factory.mktemp("made"), tiny.TINY)
    return {
        "right": verify(made),
        "nan": verify(made, fault="NaN"),
        "alone": verify(made, weights=None, checkpoint=None),
    }


@pytest.mark.parametrize(("name", "passed"), [("right", True), ("nan", False), ("alone", False)])
def test_a_real_report_follows_the_schema_and_can_be_shown(measured, name, passed):
    report = measured[name]
    assert report.passed is passed
    jsonschema.validate(json.loads(report_text(report)), SCHEMA)
    assert {row.section for row in report.rows} <= set(SECTIONS)
    keys = [row.key for row in report.rows]
    assert len(keys) == len(set(keys))
    assert flat(shown(report)).startswith(f"tiny for onnx: {verdict(report)}")
    page = render_html(report)
    for row in report.rows:
        assert str(escape(row.name)) in page


def test_a_real_report_has_every_term_and_the_figures_of_its_plots(measured):
    found = {figures.term.key: figures for figures in found_terms(measured["right"])}
    assert {"exact", "shipped", "quantisation"} <= set(found)
    assert all(found[key].positions for key in ("exact", "shipped", "quantisation"))
    shares = [figures.same_token for figures in found.values() if figures.kl is not None]
    assert None not in shares
    assert set(measured["right"].plot_data.kl_by_position) >= {"quantisation", "lowering_exact"}
    assert not_proved(measured["alone"])
