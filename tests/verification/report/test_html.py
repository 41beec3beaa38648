"""The report's page: what it says, that it needs nothing else, and that it fits a phone."""

from __future__ import annotations

import dataclasses
import html
import math
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from artifacts.sample_reports import ALONE, DIVERGENCE, FAILED, LITTLE_GAINED, PASSED, PLOT_DATA
from markupsafe import escape

from llama_export.errors import BackendUnavailableError, OutputError
from llama_export.verification.findings import PlotData, TensorFigure
from llama_export.verification.report.html import FIRST_LINE, check_html, render_html, write_html
from llama_export.verification.report.plots import draw_plots, tensor_order
from llama_export.verification.rows import SECTIONS, informed

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
EMPTY = PlotData({}, (), (), {}, {})
WILD = 'a <b>"name"</b> & <script>x()</script> $\\frac{1}{2}$ with-no-place-to-break' + "-x" * 60
# What could make a browser fetch something, or run it.
LOADS = re.compile(
    r"https?:|//[a-z]|\bsrc\s*=|<link|<script|<iframe|<object|<embed|<base|<img|@import|\son\w+\s*="
    r"|url\((?!#)|href=\"(?!#)",
    re.IGNORECASE,
)
# Elements that have no end tag.
VOID = {"meta", "br", "hr", "img", "link"}


class Page(HTMLParser):
    """A page's text, its ids and references, and whether every element is closed in its turn."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.labels: list[str] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("aria-labelledby",):
                self.references.append(value)
            if name == "aria-label":
                self.labels.append(value)
            self.references += re.findall(r"url\(#([^)]*)\)", value or "")
            if name == "href":
                self.references.append(value.removeprefix("#"))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


@pytest.fixture(scope="module")
def failed() -> str:
    return render_html(FAILED)


def wild_report():
    """Everything that comes from outside, as unpleasant as it can be."""
    tensors = (TensorFigure(f"model.layers.0.{WILD}", 4, 20.0, 10), *PLOT_DATA.tensors)
    divergence = dataclasses.replace(
        DIVERGENCE, operator=WILD, value=WILD, detail=WILD, others=(WILD,), error=math.inf
    )
    return dataclasses.replace(
        FAILED,
        model=WILD,
        target=WILD,
        settings={WILD: WILD},
        rows=(*FAILED.rows, informed("lowering", "wild", WILD, math.nan, WILD)),
        divergence=divergence,
        plot_data=dataclasses.replace(PLOT_DATA, tensors=tensors, sizes_bytes={WILD: 1}),
    )


@pytest.mark.parametrize(
    "report", [PASSED, FAILED, ALONE, wild_report()], ids=["passed", "failed", "alone", "wild"]
)
def test_a_page_is_whole_and_needs_nothing_else(report):
    text = render_html(report)
    page = Page(text)
    assert page.faults == page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert LOADS.findall(text) == []
    assert text.startswith(FIRST_LINE + '\n<html lang="en">')
    assert {"title", "main", "h1"} <= set(page.tags)
    assert "default-src 'none'" in text
    assert len(text.encode()) < 300_000


@pytest.mark.parametrize(
    "loading",
    [
        '<img src="a.png">',
        "<script>x()</script>",
        '<a href="other.html">',
        '<p style="background: url(a.png)">',
        "<style>@import 'a.css'</style>",
        '<p onclick="x()">',
        "see https://example.org",
    ],
)
def test_a_page_that_loads_something_would_be_seen(loading):
    assert LOADS.search(loading)


def test_a_page_with_faults_would_be_seen():
    assert Page("<p><b>x</p></b>").faults
    assert Page("<p>x").open
    assert Page('<use href="#a"/>').references == ["a"]


def test_the_page_says_everything_that_the_report_says(failed):
    text = Page(failed).text
    for row in FAILED.rows:
        assert row.name in text
        assert row.note in text
    for section, title in SECTIONS.items():
        assert (title in text) == any(row.section == section for row in FAILED.rows)
    for words in (DIVERGENCE.detail, DIVERGENCE.value, *DIVERGENCE.others, "layer 3, self_attn"):
        assert words in text
    assert "✗ FAILED, 1 of 5 checks" in text
    assert text.count("✗ FAILED") == 3  # the verdict, what failed, and among all checks
    assert "torch, here 2.13.0" in text
    assert "Short version no" in text


def test_a_passed_page_has_nothing_wrong_and_one_alone_says_what_is_missing():
    passed, alone = Page(render_html(PASSED)).text, Page(render_html(ALONE)).text
    assert "✓ passed, 5 checks" in passed
    for words in ("FAILED", "goes wrong", "Not proved"):
        assert words not in passed
    assert "Not proved, because not checked" in alone
    assert "so it is not proved what the quantisation cost" in alone
    assert alone.count("○ not made") == 2
    assert "In pictures" not in alone


def test_a_warning_has_a_sign_of_its_own():
    text = Page(render_html(LITTLE_GAINED)).text
    assert "passed, 6 checks, 1 with a warning" in text
    assert "KL over rounding's warning: little △ warning 0.748 0.9" in text
    assert "tokens for gptq_descent" in text
    assert "△" not in render_html(PASSED)


def test_what_comes_from_outside_is_escaped():
    text = render_html(wild_report())
    assert "<b>&#34;" not in text
    assert "<script" not in text
    assert escape(WILD) in text
    assert Page(text).text.count(WILD) >= 8
    bare = text.replace("&lt;script", "<script")
    assert LOADS.search(bare)


def test_what_comes_from_outside_has_nothing_hidden():
    text = render_html(dataclasses.replace(PASSED, model="name \u202egpj\x1b[31m\u2028"))
    assert r"name \u202egpj\x1b[31m\u2028" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_the_same_report_gives_the_same_bytes(failed, monkeypatch):
    import matplotlib

    # A user's own settings change nothing.
    monkeypatch.setitem(matplotlib.rcParams, "xtick.major.size", 9.0)
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "path")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert render_html(dataclasses.replace(FAILED)) == failed
    assert matplotlib.rcParams["xtick.major.size"] == 9.0
    other = dataclasses.replace(PLOT_DATA, logit_scatter=((0.0, 0.0), (1.0, 1.5)))
    assert render_html(dataclasses.replace(FAILED, plot_data=other)) != failed


def test_every_plot_has_a_title_a_description_and_a_way_to_read_it(failed):
    plots = draw_plots(PLOT_DATA)
    assert [plot.key for plot in plots] == ["kl", "scatter", "sqnr", "sizes", "memory"]
    page = Page(failed)
    assert page.tags.count("figure") == page.tags.count("figcaption") == len(plots)
    for plot in plots:
        assert f"{plot.title}. {plot.description}" in page.labels
        assert plot.reading in page.text
        assert "#0" not in plot.svg  # a stand-in colour that no variable replaced
        assert "var(--ink)" in plot.svg
    by_key = {plot.key: plot for plot in plots}
    for label in ("quantisation", "activation rounding", "lowering", "position in the text"):
        assert label in by_key["kl"].svg
    assert "int4 linears: 2.7 MB" in by_key["sizes"].svg
    assert "3.2 MB in all" in by_key["sizes"].reading
    assert "model.embed_tokens.weight has 41.5 dB" in by_key["sqnr"].reading
    assert "the lowest is model.layers.0.self_attn.q_proj.weight" in by_key["sqnr"].description


def test_only_what_was_measured_is_drawn():
    assert draw_plots(EMPTY) == ()
    only = dataclasses.replace(EMPTY, memory_bytes=PLOT_DATA.memory_bytes)
    assert [plot.key for plot in draw_plots(only)] == ["memory"]
    exact = dataclasses.replace(EMPTY, tensors=(TensorFigure("model.norm.weight", 16, None, 8),))
    assert draw_plots(exact) == ()
    page = Page(render_html(dataclasses.replace(PASSED, plot_data=EMPTY))).text
    assert "In pictures" not in page


def test_small_steps_on_an_axis_keep_their_digits():
    pairs = tuple((i * 1e-4, i * 1e-4) for i in range(10))
    plot = draw_plots(dataclasses.replace(EMPTY, logit_scatter=pairs))[0]
    assert re.search(r">0\.000\d</text>", plot.svg)


def test_figures_that_are_not_finite_are_left_out_of_the_plots():
    plot_data = dataclasses.replace(
        EMPTY,
        kl_by_position={"lowering_exact": (math.inf,) * 300, "quantisation": (0.1, math.nan)},
        logit_scatter=((math.nan, 1.0), (1.0, 1.25), (0.5, math.inf)),
        tensors=(TensorFigure("model.layers.0.q_proj", 4, math.nan, 1),),
    )
    plots = {plot.key: plot for plot in draw_plots(plot_data)}
    assert list(plots) == ["kl", "scatter"]
    assert "quantisation 1.0e-01" in plots["kl"].description
    assert ">lowering<" not in plots["kl"].svg
    assert "2 pairs that are not finite" in plots["scatter"].reading
    assert "nan" not in plots["kl"].svg


def test_tensors_are_sorted_by_layer():
    names = [tensor.name for tensor in tensor_order(PLOT_DATA.tensors)]
    assert names[-2:] == [
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.mlp.down_proj.weight",
    ]


def test_a_page_of_a_large_model_stays_small():
    tensors = tuple(
        TensorFigure(f"model.layers.{layer}.{kind}.weight", 4, 20.0 + layer / 7, 5_000_000)
        for layer in range(32)
        for kind in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.down_proj")
    )
    kl = {name: tuple(1e-4 * (1 + i % 9) for i in range(8192)) for name in PLOT_DATA.kl_by_position}
    plot_data = dataclasses.replace(PLOT_DATA, tensors=tensors, kl_by_position=kl)
    assert len(render_html(dataclasses.replace(PASSED, plot_data=plot_data)).encode()) < 300_000


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (lambda: check_html(tmp_path / "a.html"), lambda: render_html(PASSED)):
        with pytest.raises(BackendUnavailableError) as error:
            draw()
        assert "pip install matplotlib" in error.value.hint
    assert render_html(ALONE)  # nothing to plot


def test_a_page_replaces_an_earlier_one_or_an_empty_file(tmp_path, failed):
    path = tmp_path / "report.html"
    write_html(ALONE, path)
    assert path.read_text("utf-8") == render_html(ALONE)
    write_html(FAILED, path)
    assert path.read_text("utf-8") == failed
    path.write_bytes(b"")
    write_html(ALONE, path)
    link = tmp_path / "link.html"
    link.symlink_to(path)
    other = dataclasses.replace(ALONE, model="other")
    write_html(other, link)
    assert link.is_symlink()
    assert path.read_text("utf-8") == render_html(other)
    assert sorted(tmp_path.iterdir()) == [link, path]


@pytest.mark.parametrize(
    "content",
    ["my own page", "<!doctype html>\n<p>x", f"\n{FIRST_LINE}", f"{FIRST_LINE}<p>", "\0", "\n"],
)
def test_another_file_is_not_replaced(tmp_path, content):
    path = tmp_path / "report.html"
    path.write_text(content)
    for refuse in (check_html, lambda path: write_html(ALONE, path)):
        with pytest.raises(OutputError, match="is not a report"):
            refuse(path)
    assert path.read_text() == content


def test_a_place_that_cannot_be_written_is_refused_before_and_after(tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="is a folder") as error:
        check_html(tmp_path)
    assert str(tmp_path / "report.html") in error.value.hint
    with pytest.raises(OutputError, match="there is no folder"):
        check_html(tmp_path / "none" / "a.html")
    with pytest.raises(OutputError, match="too long"):
        check_html(tmp_path / ("x" * 300))
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(OutputError, match="loop"):
        check_html(loop)
    loop.unlink()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(OutputError, match="cannot be written"):
        check_html(tmp_path / "a.html")
    monkeypatch.undo()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_html(ALONE, tmp_path / "a.html")
    assert list(tmp_path.iterdir()) == []  # nothing half written


def widths_in_chromium(folder, pages, width):
    """Ask Chromium how wide each page becomes in a frame of a phone's width."""
    frames = "".join(
        f'<iframe width="{width}" height="800" srcdoc="{html.escape(page)}"></iframe>'
        for page in pages
    )
    script = (
        "onload = () => { document.title = [...document.querySelectorAll('iframe')].map("
        "frame => frame.contentDocument.documentElement.scrollWidth).join(' ') }"
    )
    harness = folder / "harness.html"
    harness.write_text(
        f"<!doctype html><meta charset=utf-8><title>none</title>{frames}<script>{script}</script>",
        "utf-8",
    )
    flags = (
        "headless no-sandbox disable-gpu disable-quic no-first-run hide-scrollbars disable-sync "
        "disable-background-networking disable-component-update disable-dev-shm-usage"
    )
    command = [CHROMIUM, *(f"--{flag}" for flag in flags.split())]
    command += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", harness.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(number) for number in re.search(r"<title>([\d ]+)</title>", dom)[1].split()]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [360, 390])
def test_a_phone_needs_no_sideways_scrolling(tmp_path, failed, width):
    wild = render_html(wild_report()).replace("<details>", "<details open>")
    wide = failed.replace("<main>", '<main><div style="width: 500px">x</div>')
    found = widths_in_chromium(tmp_path, [failed, render_html(ALONE), wild, wide], width)
    assert found[:3] == [width] * 3
    assert found[3] > width
