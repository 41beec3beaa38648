"""Two bundles against each other: a bundle and itself, before and after, other vocabularies."""

from __future__ import annotations

import json

import pytest
from artifacts.small_bundle import Silent, export_small
from artifacts.tiny import TINY, write_byte_vocabulary, write_checkpoint

from llama_export.bundle.bundle import Bundle
from llama_export.checkpoints.formats import open_checkpoint
from llama_export.errors import BundleError, PromptError
from llama_export.exporting.comparison.bundle_pair import open_pair, tokenizer_fault
from llama_export.exporting.comparison.bundles import compare_bundles
from llama_export.exporting.comparison.identity import Identity
from llama_export.exporting.comparison.request import NamedText
from llama_export.exporting.pipeline import ExportRequest, export_bundle
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.measure.yardstick import TextWindows, Yardstick

pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("one_thread")]

IDENTITY = Identity("llama-export compare", {}, "a processor", 1, None)
TEXT = NamedText("mine", "".join(chr(97 + index * index % 23) for index in range(400)))


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    return export_small(tmp_path_factory.mktemp("before"), recipe="int8") / "onnx"


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    folder = tmp_path_factory.mktemp("after")
    checkpoint = write_checkpoint(folder / "tiny", TINY, seed=2)
    request = ExportRequest(str(checkpoint), ("onnx",), folder / "out", recipe="int8", verify=False)
    return export_bundle(request, Silent()).bundles[0].bundle.folder


def compared(one, other, positions=200):
    return compare_bundles(open_pair(one, other), (TEXT,), positions, 1, IDENTITY, Silent())


def test_a_bundle_does_not_differ_from_itself(before):
    found = compared(before, before)
    assert (found.texts[0].positions, found.texts[0].blocks) == (200, 8)
    for each in found.bundles:
        (figures,) = each.texts
        assert figures.kl.value < 1e-12
        assert (figures.top1.value, figures.ratio.value) == (1, 1)
        assert figures.perplexity == found.texts[0].perplexity


def test_a_model_is_compared_with_what_it_became(before, after):
    found = compared(before, after)
    one, other = found.bundles
    assert (one.name, one.target, one.recipe) == (str(before), "onnx", "int8")
    assert one.texts[0].kl.value > 0.1 < other.texts[0].kl.value
    assert one.texts[0].kl.value != other.texts[0].kl.value
    assert one.texts[0].top1 == other.texts[0].top1
    assert one.texts[0].ratio.value == pytest.approx(1 / other.texts[0].ratio.value)
    # What the eager model makes of the checkpoints, whose weights int8 hardly changes.
    ids = [TINY.bos_token_id, *TEXT.content.encode()]
    read = TextWindows.cut("mine", ids, 200, window=200, blocks=8)
    own, became = (open_checkpoint(folder.parents[1] / "tiny").tensor for folder in (before, after))
    yardstick = Yardstick(TINY, own, [read])
    (reading,) = yardstick.read(became)
    assert other.texts[0].kl.value == pytest.approx(reading.mean_kl.value, rel=0.05)
    assert one.texts[0].perplexity.value == pytest.approx(yardstick.perplexities[0], rel=0.05)
    assert json.loads(json.dumps(found.to_json()))["bundles"][1]["texts"][0]["kl"]["error"] > 0


def test_bundles_of_other_vocabularies_are_refused(before, tmp_path):
    class Shifted:
        """The same tokenizer, two of whose tokens changed places."""

        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def decode(self, ids):
            return self._inner.decode([{65: 66, 66: 65}.get(each, each) for each in ids])

    write_byte_vocabulary(tmp_path / "tokenizer.model")
    tokenizer = load_tokenizer(tmp_path / "tokenizer.model")
    assert tokenizer_fault(tokenizer, tokenizer, TINY.vocab_size) == ""
    fault = tokenizer_fault(tokenizer, Shifted(tokenizer), TINY.vocab_size)
    assert fault == "token 65 is 'A' and 'B'"
    from dataclasses import replace

    wider = replace(TINY, vocab_size=TINY.vocab_size + 8)
    other = export_small(tmp_path / "wider", wider, recipe="int8") / "onnx"
    sizes = f"has {TINY.vocab_size} logits, and .* {wider.vocab_size}"
    with pytest.raises(BundleError, match=sizes):
        open_pair(before, other)


def test_a_changed_bundle_and_a_short_text_are_refused(before, tmp_path):
    import shutil

    copy = tmp_path / "onnx"
    shutil.copytree(before, copy)
    notice = next(path for path in copy.iterdir() if path.name == Bundle.open(copy).artifact.name)
    with notice.open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(BundleError):
        open_pair(before, copy)
    with pytest.raises(PromptError, match="at least 128 positions, found 100"):
        compared(before, before, positions=100)
