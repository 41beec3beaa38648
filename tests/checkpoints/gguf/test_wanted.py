"""Which of a repository's models in GGUF a tag or a path picks."""

from __future__ import annotations

import pytest

from llama_export.checkpoints.checkpoint import Fault, WantedFiles
from llama_export.checkpoints.formats import wanted_files
from llama_export.checkpoints.gguf.wanted import tag_of

FILES = (
    "LICENSE",
    "M-1B-IQ4_XS.gguf",
    "M-1B-Q4_K_M.gguf",
    "M-1B-Q8_0.gguf",
    "M-1B-UD-Q4_K_XL.gguf",
    "M-1B-UD-Q8_0.gguf",
    "bf16/M-1B-bf16-00001-of-00002.gguf",
    "bf16/M-1B-bf16-00002-of-00002.gguf",
    "mmproj-M-f16.gguf",
    "other.gguf",
)
BF16 = FILES[6:8]


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("ggml-model-f16.gguf", "f16"),
        ("model_q8_0.gguf", "q8_0"),
        ("M.i1-IQ2_XXS.gguf", "i1-IQ2_XXS"),
        ("M-UD-Q4_K_XL-00001-of-00003.gguf", "UD-Q4_K_XL"),
        ("Q5_K_S/model-00001-of-00002.gguf", "Q5_K_S"),
        ("f16/M-Q8_0.gguf", "Q8_0"),
        ("M-Q4_0_4_4.gguf", "Q4_0_4_4"),
        ("M-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("M-FP32.gguf", "FP32"),
        ("Llama-3.2-1B.gguf", ""),
        ("Qwen-f160.gguf", ""),
    ],
)
def test_a_files_name_says_its_form(name, tag):
    assert tag_of(name) == tag


@pytest.mark.parametrize(
    ("picked", "weights"),
    [
        ("Q4_K_M", ("M-1B-Q4_K_M.gguf",)),
        ("q4_k_m", ("M-1B-Q4_K_M.gguf",)),
        ("Q8_0", ("M-1B-Q8_0.gguf",)),
        ("ud-q8_0", ("M-1B-UD-Q8_0.gguf",)),
        ("Q4_K_XL", ("M-1B-UD-Q4_K_XL.gguf",)),
        ("BF16", BF16),
        (BF16[0], BF16),
        (BF16[1], BF16),
        ("other.gguf", ("other.gguf",)),
    ],
)
def test_a_tag_or_a_path_picks_one(picked, weights):
    expected = WantedFiles(("LICENSE",), weights, weights[0], opened=weights[0])
    assert wanted_files(FILES, picked) == expected
    both = wanted_files({*FILES, "config.json", "model.safetensors"}, picked)
    assert isinstance(both, WantedFiles)
    assert both.weights == weights


@pytest.mark.parametrize(
    ("files", "picked", "text", "hint"),
    [
        (
            FILES,
            "",
            "holds 7 models in GGUF, and one is meant: IQ4_XS, Q4_K_M, Q8_0, UD-Q4_K_XL, UD-Q8_0, "
            "bf16, other.gguf",
            "organisation/name:IQ4_XS",
        ),
        (FILES, "Q8", "has no model in GGUF for Q8; there are IQ4_XS, Q4_K_M", "name:IQ4_XS"),
        (FILES, "latest", "has no model in GGUF for latest; there are", "name:IQ4_XS"),
        (FILES, "mmproj-M-f16.gguf", "has no model in GGUF for mmproj-M-f16.gguf", ":IQ4_XS"),
        (FILES, "M-1B-q8_0.gguf", "has no model in GGUF for", ":IQ4_XS"),
        (
            ("1B-Q8_0.gguf", "3B-q8_0.gguf"),
            "Q8_0",
            "holds 2 models in GGUF for Q8_0: 1B-Q8_0.gguf, 3B-q8_0.gguf",
            "organisation/name/1B-Q8_0.gguf",
        ),
        (
            ("1B-Q8_0.gguf", "3B-q8_0.gguf"),
            "",
            "one is meant: 1B-Q8_0.gguf, 3B-q8_0.gguf",
            "organisation/name/1B-Q8_0.gguf",
        ),
        (
            ("config.json", "model.safetensors"),
            "Q8_0",
            "has no model in GGUF, and Q8_0 picks one",
            "leave it out",
        ),
        (FILES[:7], "BF16", "lacks bf16/M-1B-bf16-00002-of-00002.gguf", "another"),
    ],
)
def test_what_picks_no_one_is_refused_with_what_there_is(files, picked, text, hint):
    found = wanted_files(files, picked)
    assert isinstance(found, Fault)
    assert text in found.text
    assert hint in found.hint


def test_a_long_list_is_cut():
    found = wanted_files([f"M{index:03}-Q8_0.gguf" for index in range(300)])
    assert isinstance(found, Fault)
    assert "M039-Q8_0.gguf and 260 more" in found.text
    assert "M040" not in found.text
