"""`llama-export compare`: tables of 80 columns, JSON, a page, a recommendation, and refusals."""

from __future__ import annotations

import json
import shlex
import sys

import click
import pytest
from artifacts.small_bundle import export_small
from artifacts.tiny import TINY, UNTIED, write_checkpoint

from llama_export.cli.app import app
from llama_export.cli.compare import chosen_limit
from llama_export.cli.reading_options import READING_SECTION, chosen_reading, reading_words
from llama_export.cli.recipe_word import parse_recipe_names
from llama_export.cli.tokens import command_line
from llama_export.errors import OutputError, UsageError
from llama_export.exporting.comparison.limits import Limit
from llama_export.exporting.comparison.wording import TIMES
from llama_export.verification.report import layout

pytestmark = pytest.mark.usefixtures("one_thread", "empty_cache")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "tiny", UNTIED)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "mine.txt"
    path.write_text("".join(chr(97 + index * index % 23) for index in range(700)))
    return path


@pytest.fixture
def compared(tiny, text, command):
    def call(*options):
        return command("compare", "-m", tiny, "--text", text, "--positions", 300, *options)

    return call


def test_recipes_are_shown_in_tables_of_80_columns(compared):
    code, out, err = compared("--recipes", "int4:g64:fast,int8,bf16")
    assert (code, "Next:" in err) == (0, False)
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    assert "tiny: 3 recipes" in words
    assert "mine.txt: 300 positions in windows of 300, 9 blocks" in words
    assert "down_proj" in words
    rows = [line for line in out.splitlines() if line.startswith("  int8:g32")]
    assert "±" in rows[0]


def test_what_is_too_wide_for_80_columns_is_a_list(compared):
    code, out, _ = compared("--recipes", "int4:g64:fast:tableint4,int8")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "\nint4:g64:tableint4:fast\n" in out
    lines = out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("  perplexity"))
    assert lines[at + 1].index(TIMES) == lines[at].index("1")


def test_a_recommendation_prints_the_export_that_makes_it(compared, tmp_path):
    page = tmp_path / "page.html"
    options = ("--recipes", "int4:g64:fast,int8,bf16", "--html", page, "--json")
    code, out, err = compared(*options, "--recommend", "--max-kl", 0.01)
    assert code == 0
    found = json.loads(out)
    assert found["recommended"]["recipe"] == "int8:g32"
    assert [each["recipe"] for each in found["recipes"]] == ["int4:g64:fast", "int8:g32", "bf16"]
    assert found["texts"][0]["name"] == "mine.txt"
    assert len(found["texts"][0]["sha256"]) == 64
    line = found["recommended"]["command"]
    assert f"Next:\n  {line}" in err
    app.make_context("llama-export", shlex.split(line)[1:])  # it parses
    assert line.endswith("--quantize int8:g32 --output tiny-int8-g32")
    assert "int8:g32 is the smallest" in page.read_text(encoding="utf-8")


def test_when_none_keeps_to_the_limit_the_nearest_is_named_as_an_error(compared):
    code, out, err = compared("--recipes", "int4:g64:fast,int8", "--budget-mb", 0.01)
    assert code == 9
    assert "no recipe has at most 0.01 MB; nearest is int4:g64:fast" in err
    assert "int8:g32" in out


@pytest.mark.onnx
def test_two_bundles_are_compared(command, text, tmp_path):
    for name in ("one", "two"):
        export_small(tmp_path / name, TINY, recipe="int8" if name == "one" else "int4")
    bundles = tuple(tmp_path / name / "out" / "onnx" for name in ("one", "two"))
    options = ("--text", text, "--positions", 128, "--html", tmp_path / "page.html")
    code, out, _ = command("compare", *bundles, *options, "--json")
    assert code == 0
    found = json.loads(out)
    assert [each["recipe"] for each in found["bundles"]] == ["int8", "int4"]
    assert found["bundles"][0]["texts"][0]["kl"]["value"] > 0
    assert "Two bundles as they run" in (tmp_path / "page.html").read_text(encoding="utf-8")
    code, out, _ = command("compare", *bundles, "--text", text, "--positions", 128)
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "each with the other as the reference" in " ".join(out.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "needs --model, whose recipes it compares, or two bundles"),
        (["one"], "expected two bundles, found 1"),
        (["one", "two", "-m", "demo"], "--model has no use for a bundle"),
        (["one", "two", "--recipes", "int4"], "two bundles has no use for --recipes"),
        (["one", "two", "--max-kl", "1"], "no use for --recommend"),
        (["-m", "demo", "--threads", "1"], "no use for --threads"),
        (["-m", "demo", "--max-kl", "1", "--budget-mb", "1"], "expected one of --max-kl"),
        (["-m", "demo", "--recipes", ","], "expected words of recipes"),
        (["-m", "demo", "--positions", "100"], "--positions"),
    ],
)
def test_what_makes_no_request_is_refused(command, options, said):
    code, out, err = command("compare", *options, columns=200)
    assert (code, out) == (UsageError.exit_code, "")
    assert said in err


@pytest.mark.parametrize("asked", [True, False])
def test_a_limit_alone_asks_for_a_recommendation(asked):
    assert chosen_limit(0.03, None, asked=asked) == Limit(most_kl=0.03)
    assert chosen_limit(None, 800, asked=asked) == Limit(most_bytes=800_000_000)
    assert chosen_limit(None, None, asked=False) is None


def test_names_of_one_recipe_are_one_recipe():
    found = parse_recipe_names("int4,int4:g32,int4:tableint8:fast,int4:g32:fast,bf16", "fast")
    assert [str(each) for each in found] == ["int4:g32:fast", "bf16"]


def test_how_a_checkpoint_is_read_goes_into_words_and_back():
    typed = {
        "base": "b",
        "adapter": ("one", "two"),
        "rope_factor": 8.0,
        "merge_adaptors": True,
        "accept_loss": False,
        "head_tokens": ("a b",),
    }
    command = click.Command("x", params=list(READING_SECTION.options), callback=dict)
    context = command.make_context("x", reading_words(typed))
    assert chosen_reading(context.params) == chosen_reading(typed)
    assert reading_words({}) == []


def test_a_figure_outlives_a_page_that_cannot_be_written(compared, monkeypatch, tmp_path):
    def full(*_):
        message = "the disk is full"
        raise OutputError(message, "free some space")

    monkeypatch.setattr(layout, "write_page", full)
    code, out, err = compared("--recipes", "int8", "--html", tmp_path / "page.html")
    assert (code, "the disk is full" in err) == (11, True)
    assert "int8:g32" in out


@pytest.mark.parametrize("token", ["a'bcdefghijk", "short", "hf_" + "x" * 30])
@pytest.mark.parametrize("joined", [True, False])
def test_a_token_is_in_no_command_line_that_is_written_down(monkeypatch, token, joined):
    words = [f"--token={token}"] if joined else ["--token", token]
    monkeypatch.setattr(sys, "argv", ["llama-export", "compare", *words, "--model", "a b"])
    shown = "--token=[token]" if joined else "--token '[token]'"
    expected = shlex.join(shlex.split(f"llama-export compare {shown} --model 'a b'"))
    assert command_line() == expected
