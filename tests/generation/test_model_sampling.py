"""A bundle is drawn from as its model wants it, where nobody says otherwise."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from artifacts.demo_bundle import demo_bundle
from artifacts.resealing import reseal
from artifacts.tiny import TINY

import llama_export
from llama_export.errors import BundleError
from llama_export.generation.conversation import Conversation
from llama_export.generation.model_sampling import sampling_of
from llama_export.generation.sampling import Sampling
from llama_export.targets.onnx.lowering.client_files import client_settings

__all__ = ["demo_bundle"]
SETTINGS = "generation_config.json"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"eos_token_id": 2}, Sampling()),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 40, "min_p": None},
            Sampling(0.6, 0.9, 40),
        ),
        ({"temperature": 1, "repetition_penalty": 1.1}, Sampling(1.0, repetition_penalty=1.1)),
        ({"do_sample": True, "min_p": 0.05}, Sampling(min_p=0.05)),
        (
            {"do_sample": False, "temperature": 0.6, "repetition_penalty": 1.2},
            Sampling(0.0, repetition_penalty=1.2),
        ),
    ],
)
def test_what_the_file_says_comes_before_our_own(settings, expected):
    found = sampling_of(settings)
    assert found == expected
    assert type(found.temperature) is float


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", -1), ("top_p", 1.5), ("top_k", 2.5), ("min_p", "a\x1b[2J"), ("top_p", True)],
)
def test_what_no_sampling_can_have_is_passed_over_and_said(caplog, key, value):
    with caplog.at_level(logging.INFO, "llama_export"):
        assert sampling_of({key: value, "repetition_penalty": 1.3}) == Sampling(
            repetition_penalty=1.3
        )
    (said,) = caplog.messages
    assert said.startswith(f"{SETTINGS}: {key} cannot be ")
    assert "\x1b" not in said


@pytest.fixture
def bundle(demo_bundle, tmp_path):
    """A copy of the demo's bundle, whose model says how it wants to be drawn from."""
    folder = tmp_path / "bundle"
    shutil.copytree(demo_bundle, folder)
    path = folder / SETTINGS
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_sample": False, "top_k": 7}))
    reseal(folder)
    return folder


@pytest.mark.onnx
def test_a_session_and_a_conversation_draw_so(bundle, demo_bundle):
    with llama_export.load(bundle, threads=1) as session:
        assert session.sampling == Sampling(0.0, 0.9, 7)
        assert Conversation(session).sampling == session.sampling
        assert session.fork().sampling == session.sampling
        greedy = session.generate("The king", max_tokens=12, sampling=Sampling(temperature=0))
        assert {session.generate("The king", max_tokens=12).text for _ in range(2)} == {greedy.text}
    with llama_export.load(demo_bundle, threads=1) as session:
        assert session.sampling == Sampling(0.6, 0.9)


@pytest.mark.onnx
def test_an_option_replaces_one_value(bundle, command):
    typed = ("generate", bundle, "-p", "The king", "-n", "2", "--top-k", "3", "--verbose")
    code, _, err = command(*typed)
    assert code == 0
    assert "drawn with temperature 0.0, top-p 0.9, top-k 3" in err
    code, _, err = command("chat", bundle, "--verbose", stdin=b"/quit\n")
    assert code == 0
    assert "drawn with temperature 0.0, top-p 0.9, top-k 7" in err


@pytest.mark.onnx
def test_a_damaged_file_is_named(bundle):
    path = bundle / SETTINGS
    path.write_text("{" * path.stat().st_size)
    with pytest.raises(BundleError, match=f"{SETTINGS} cannot be read"):
        llama_export.load(bundle, verify=False)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_sample": True},
        {"do_sample": False, "temperature": 0.6, "repetition_penalty": 1.2},
        {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 40},
        {"temperature": 0},
        {"temperature": -1, "top_p": 2, "top_k": 2.5, "repetition_penalty": 0},
        {"temperature": True, "top_p": "x", "top_k": None},
    ],
)
def test_genai_draws_as_we_do(settings):
    ours = sampling_of(settings)
    search = client_settings(TINY, 64, "model.onnx", settings).files["genai_config.json"]["search"]
    assert search["do_sample"] is (ours.temperature > 0)
    assert search["repetition_penalty"] == ours.repetition_penalty
    if search["do_sample"]:
        drawn = (search["temperature"], search["top_p"], search["top_k"])
        assert drawn == (ours.temperature, ours.top_p, ours.top_k)
    else:
        assert not {"temperature", "top_p", "top_k"} & search.keys()
