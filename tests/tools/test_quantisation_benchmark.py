"""The benchmark of quantisation: windows, errors that are paired, and a run of the whole."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from artifacts import tiny
from click.testing import CliRunner
from fakes.session import FakeSession

from llama_export.llama.streamed import reference_logits
from llama_export.verification.measure.metrics import TokenLoss, compare_logits
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.recipe import recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LETTERS = "abcdefghij klmnopqrst uvwxyz"


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch, one_thread):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny.write_checkpoint(tmp_path_factory.mktemp("quality") / "tiny")


def written(tmp_path, name: str, tokens: int) -> Path:
    path = tmp_path / name
    rng = np.random.default_rng(len(name))
    path.write_text("".join(rng.choice(list(LETTERS), tokens)))
    return path


def test_a_text_is_cut_into_whole_windows_whose_targets_are_the_next_tokens():
    from quality import WINDOW, cut_windows

    ids = list(range(3 * WINDOW))
    text = cut_windows("text", ids, 10 * WINDOW)
    assert text.ids.shape == text.targets.shape == (2, WINDOW)  # the third has no last target
    assert text.ids.flatten().tolist() == ids[: 2 * WINDOW]
    assert text.targets.flatten().tolist() == ids[1 : 2 * WINDOW + 1]
    assert cut_windows("text", [*ids, 0], 2 * WINDOW + 5).positions == 2 * WINDOW
    with pytest.raises(ValueError, match="short: 700 positions, at least 1024"):
        cut_windows("short", ids[:700], 10 * WINDOW)


def test_a_ratio_of_the_same_windows_has_the_error_of_their_differences():
    from llama_export.verification.estimate import mean, ratio

    rng = np.random.default_rng(0)
    base = rng.uniform(1, 9, 4000)
    assert mean(base).value == pytest.approx(5, rel=0.05)
    assert mean(base).error == pytest.approx(8 / 12**0.5 / 4000**0.5, rel=0.05)
    exact = ratio(0.3 * base, base)
    assert (exact.value, exact.error) == (pytest.approx(0.3), pytest.approx(0, abs=1e-12))
    noisy = ratio(0.3 * base + rng.normal(0, 0.5, 4000), base)
    assert noisy.value == pytest.approx(0.3, rel=0.05)
    assert noisy.error == pytest.approx(0.5 / 5 / 4000**0.5, rel=0.05)


def test_windows_give_what_the_whole_logits_give(model):
    from quality import cut_windows

    from llama_export.checkpoints.formats import open_checkpoint
    from llama_export.verification.measure.yardstick import Yardstick

    checkpoint = open_checkpoint(model)
    other = open_checkpoint(tiny.write_checkpoint(model.parent / "other", seed=3))
    ids = tiny.random_tokens(tiny.TINY, 6 * 512 + 1)
    text = cut_windows("text", ids, len(ids))
    yardstick = Yardstick(checkpoint.config, checkpoint.tensor, [text])
    (reading,) = yardstick.read(other.tensor)
    own, found = (
        reference_logits(checkpoint.config, read, text.ids).flatten(0, 1).numpy()
        for read in (checkpoint.tensor, other.tensor)
    )
    metrics = compare_logits(own, found)
    assert reading.kl.mean() == pytest.approx(metrics.kl_mean, rel=1e-5)
    assert reading.top1.value == pytest.approx(metrics.top1)
    for logits, perplexity in ((own, yardstick.perplexities[0]), (found, reading.perplexity.value)):
        loss = TokenLoss()
        loss.add(logits, ids[1:])
        assert perplexity == pytest.approx(loss.result().perplexity, rel=1e-5)


def test_an_artifact_is_read_window_by_window_each_from_its_beginning():
    from artifact_perplexity import Found, markdown, read_artifact

    from llama_export.verification.measure.yardstick import TextWindows

    ids = torch.tensor(tiny.random_tokens(tiny.TINY, 61))
    text = TextWindows("text", ids[:-1].view(3, 20), ids[1:].view(3, 20))
    llama = tiny.random_llama(tiny.TINY)
    state = dict(llama.state_dict())
    logits = reference_logits(tiny.TINY, state.__getitem__, text.ids)
    loss = TokenLoss()
    loss.add(logits.flatten(0, 1).numpy(), ids[1:].tolist())
    found = read_artifact(FakeSession(llama), text)
    assert found == pytest.approx(loss.result().perplexity, rel=1e-4)
    wrong = read_artifact(FakeSession(llama, fault="position off by one"), text)
    assert wrong != pytest.approx(found, rel=1e-4)
    with pytest.raises(ValueError, match="a context of 16 is shorter than a window of 20"):
        read_artifact(FakeSession(llama, max_context=16), text)
    page = markdown("tiny", "text", [Found("onnx", 60, 30.5, 30.25, 29.0)])
    assert "| onnx | 60 | **30.500** | 30.250 | 29.000 |" in page


@pytest.mark.slow
def test_the_whole_of_it_compares_methods_and_weights_that_were_kept(model, tmp_path):
    from llama_export.checkpoints.formats import open_checkpoint

    kept = tmp_path / "kept"
    quantize_to(kept, open_checkpoint(model), recipe("int4", 64))
    texts = [written(tmp_path, name, 1200) for name in ("one.txt", "another.txt")]
    main = runpy.run_path(str(BENCHMARKS / "quantisation.py"))["main"]
    options = [f"--text={text}" for text in texts]
    options += [f"--model={model}", "--group-size=64", "--method=clip_search"]
    options += ["--method=good", "--calibration-tokens=1024", "--seed=3"]
    options += [f"--calibration={written(tmp_path, 'given.txt', 3000)}"]
    options += [f"--weights=kept={kept}", "--no-timed", f"--output={tmp_path / 'results'}"]
    done = CliRunner().invoke(main, options, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    stem = tmp_path / "results" / "quantisation-tiny"
    found = json.loads(stem.with_suffix(".json").read_text())
    rows = {row["name"]: row for row in found["weights"]}
    assert list(rows) == [
        "bfloat16, table alone",
        "int8 g32, clip_search",
        "int4 g64, nearest",
        "int4 g64, clip_search",
        "int4 g64, gptq_descent, seed 3",
        "int4 g64, gptq_descent with given.txt, seed 3",
        "int4 g64, kept",
    ]
    for name, windows in (("gptq_descent", "0"), ("gptq_descent with given.txt", "1")):
        calibration = rows[f"int4 g64, {name}, seed 3"]["calibration"]
        assert (calibration["tokens"], calibration["user_windows"]) == ("1024", windows)
    assert rows["bfloat16, table alone"]["texts"]["one.txt"]["ratio_to_rounding"] is None
    for text in ("one.txt", "another.txt"):
        figures = {name: row["texts"][text] for name, row in rows.items()}
        plain, searched = figures["int4 g64, nearest"], figures["int4 g64, clip_search"]
        assert plain["ratio_to_rounding"] == {"value": 1.0, "error": 0.0}
        expected = searched["kl"]["value"] / plain["kl"]["value"]
        assert searched["ratio_to_rounding"]["value"] == pytest.approx(expected, rel=1e-9)
        assert searched["ratio_to_rounding"]["value"] != 1.0
        assert figures["int4 g64, kept"] == searched
        assert len(plain["kl_of_windows"]) == 2
    page = stem.with_suffix(".md").read_text()
    assert page in done.output
    assert "## one.txt\n\n1024 positions; perplexity of the checkpoint" in page
    assert {row["quantising_s"] for row in rows.values()} == {None}
    assert "| top-1 % | perplexity |\n" in page
    assert stem.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
