"""Meta's int4 checkpoints: codes are kept bit for bit, and the model computes what Meta's does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from artifacts.demo_bundle import Silent
from artifacts.meta_int4 import CONFIG, write_qlora, write_spinquant
from artifacts.meta_oracle import MetaLlama
from artifacts.opened import stored_in
from artifacts.tiny import random_tokens

from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions
from llama_export.checkpoints.formats import open_checkpoint
from llama_export.errors import CheckpointError, UsageError
from llama_export.exporting.pipeline import export_bundle
from llama_export.exporting.request import ExportRequest
from llama_export.llama.names import HEAD, TABLE
from llama_export.llama.streamed import reference_logits
from llama_quantize import GroupedInt, QuantizedTensor, quantize_to
from llama_quantize.checkpoint.weights import QuantizedWeights

# Codes are equal and scales are rounded at 55 dB: the rest is float32's.
MOST_KL = 1e-6
QUERY, META_QUERY = "model.layers.0.self_attn.q_proj.weight", "layers.0.attention.wq"
DOWN, META_DOWN = "model.layers.1.mlp.down_proj.weight", "layers.1.feed_forward.w2"
TOKENS = random_tokens(CONFIG, 128)
MERGED = ReadOptions(merge_adaptors=True)


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "consolidated.00.pth", weights_only=True)


def change(folder: Path, edit) -> Path:
    state = state_of(folder)
    edit(state)
    torch.save(state, folder / "consolidated.00.pth")
    return folder


def oracle(folder: Path, *, rotated: bool, rounded: bool = True) -> torch.Tensor:
    """Meta's program; with scales as we store them, or as they came."""
    state, params = state_of(folder), json.loads((folder / "params.json").read_text())
    if rounded:
        for name in state:
            if name.endswith(".scales"):
                state[name] = state[name].to(torch.bfloat16).float()
    return MetaLlama(state, params, 32.0, rotated=rotated).logits(TOKENS)


def ours(folder: Path, options: ReadOptions = AS_IT_IS, **config) -> torch.Tensor:
    checkpoint = open_checkpoint(folder, options=options)
    shape = checkpoint.config
    for key, value in config.items():
        object.__setattr__(shape, key, value)
    return reference_logits(shape, checkpoint.tensor, torch.tensor([TOKENS]))[0]


def mean_kl(reference: torch.Tensor, candidate: torch.Tensor) -> float:
    first, second = (each.double().log_softmax(-1) for each in (reference, candidate))
    return float((first.exp() * (first - second)).sum(-1).mean())


def in_halves(rows: torch.Tensor, heads: int) -> torch.Tensor:
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


@pytest.fixture
def spinquant(tmp_path) -> Path:
    return write_spinquant(tmp_path / "spinquant")


@pytest.fixture
def qlora(tmp_path) -> Path:
    return write_qlora(tmp_path / "qlora")


def test_codes_are_kept_and_scales_rounded(spinquant):
    checkpoint, state = open_checkpoint(spinquant), state_of(spinquant)
    assert checkpoint.config.down_proj_rotation
    assert not checkpoint.config.tie_word_embeddings
    for name, metas, heads in ((QUERY, META_QUERY, 4), (DOWN, META_DOWN, 0)):
        kept = checkpoint.tensor(name)
        codes, scales = state[f"{metas}.weight"], state[f"{metas}.scales"]
        if heads:
            codes, scales = in_halves(codes, heads), in_halves(scales, heads)
        assert isinstance(kept, QuantizedTensor)
        assert kept.scheme == GroupedInt(4, 32)
        assert torch.equal(kept.unpacked(), codes)
        assert torch.equal(kept.scales, scales.to(torch.bfloat16))
    for name, metas in ((TABLE, "tok_embeddings"), (HEAD, "output")):
        kept = checkpoint.tensor(name)
        assert kept.scheme == GroupedInt(8, None)
        assert torch.equal(kept.codes, state[f"{metas}.weight"])
    (note,) = [note for note in checkpoint.notes if "codes" in note]
    assert "bit for bit" in note
    assert "float32 to bfloat16" in note
    assert 53 < float(note.split("leaves ")[1].split(" dB")[0]) < 58
    assert checkpoint.weights_folder is None


@pytest.mark.parametrize("shards", [2, 4])
def test_shards_are_joined_with_their_scales(tmp_path, shards):
    for write in (write_spinquant, write_qlora):
        one = open_checkpoint(write(tmp_path / f"{write.__name__}1"))
        several = open_checkpoint(write(tmp_path / f"{write.__name__}{shards}", shards=shards))
        assert several.names == one.names
        for name in one.names:
            first, second = one.tensor(name), several.tensor(name)
            if isinstance(first, QuantizedTensor):
                assert torch.equal(first.codes, second.codes)
                assert torch.equal(first.scales, second.scales)
            else:
                assert torch.equal(first[:], second[:])


def test_the_model_computes_what_metas_own_program_computes(spinquant):
    expected = oracle(spinquant, rotated=True)
    assert mean_kl(expected, ours(spinquant)) <= MOST_KL
    # Twins: without the rotation, and with the scales that came.
    assert mean_kl(expected, ours(spinquant, down_proj_rotation=False)) > 1e-2
    assert mean_kl(oracle(spinquant, rotated=True, rounded=False), ours(spinquant)) < 1e-3


def test_side_branches_are_computed_beside_or_merged(qlora):
    expected = oracle(qlora, rotated=False)
    checkpoint = open_checkpoint(qlora)
    assert (checkpoint.config.adaptor_rank, checkpoint.config.adaptor_scale) == (16, 2.0)
    assert mean_kl(expected, ours(qlora)) <= MOST_KL
    assert mean_kl(expected, ours(qlora, adaptor_scale=1.0)) > 1e-3
    merged = open_checkpoint(qlora, options=MERGED)
    assert merged.recipe is None
    assert merged.config.adaptor_rank == 0
    assert not any(".adaptor." in name for name in merged.names)
    exact = oracle(qlora, rotated=False, rounded=False)
    assert mean_kl(exact, ours(qlora, MERGED)) <= MOST_KL
    (note,) = [note for note in merged.notes if "merged" in note]
    assert 15 < float(note.split("leaves ")[1].split(" dB")[0]) < 25


def test_rows_of_a_merged_weight_are_those_of_the_whole(qlora):
    weight = open_checkpoint(qlora, options=MERGED).tensor(QUERY)
    whole = weight.whole()
    assert torch.allclose(weight[3:50], whole[3:50])
    assert torch.allclose(weight[torch.tensor([5, 1, 200])], whole[[5, 1, 200]])


def test_what_has_no_side_branches_cannot_be_merged(spinquant):
    with pytest.raises(UsageError, match="no side branches"):
        open_checkpoint(spinquant, options=MERGED)


def test_spellings_of_scales(tmp_path, spinquant):
    """Wrapped, with zero points that are zero, by row without a dimension, for every weight."""
    expected = open_checkpoint(spinquant)
    state = state_of(spinquant)
    for name in list(state):
        if name.startswith(("tok_embeddings.sc", "output.sc")):
            state[name] = state[name].squeeze(1)
        elif name.endswith(".scales"):
            state[name.replace("scales", "zeros")] = torch.zeros_like(state[name])
            state[name] = state[name].repeat_interleave(32, 1)
    folder = shutil.copytree(spinquant, tmp_path / "other")
    torch.save({"model": state}, folder / "consolidated.00.pth")
    found = open_checkpoint(folder)
    for name in expected.names:
        if isinstance(expected.tensor(name), QuantizedTensor):
            assert torch.equal(found.tensor(name).codes, expected.tensor(name).codes)
            assert torch.equal(found.tensor(name).scales, expected.tensor(name).scales)
    state[f"{META_QUERY}.scales"][7, 33] *= 2
    folder = shutil.copytree(spinquant, tmp_path / "wrong")
    torch.save(state, folder / "consolidated.00.pth")
    with pytest.raises(CheckpointError, match="row 7 has other scales within a group"):
        open_checkpoint(folder).tensor(QUERY)


def test_scales_that_are_bfloat16_are_kept_and_it_is_said(spinquant):
    def edit(state):
        for name in state:
            if name.endswith(".scales"):
                state[name] = state[name].to(torch.bfloat16)

    notes = open_checkpoint(change(spinquant, edit)).notes
    assert any("came as bfloat16" in note for note in notes)


def scaled(value):
    def edit(state):
        state[f"{META_QUERY}.scales"][3, 1] = value

    return edit


def coded(value):
    def edit(state):
        state[f"{META_QUERY}.weight"][3, 40] = value

    return edit


def of_zeros(value):
    def edit(state):
        zeros = torch.zeros_like(state[f"{META_QUERY}.scales"])
        zeros[2, 2] = value
        state[f"{META_QUERY}.zeros"] = zeros

    return edit


def put(name, value):
    return lambda state: state.__setitem__(name, value)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (scaled(-0.1), r"wq\.scales: -0\.1\d* at \[3, 1\]; expected above 0"),
        (scaled(0.0), r"wq\.scales: 0\.0 at \[3, 1\]"),
        (scaled(torch.nan), r"wq\.scales: nan at \[3, 1\]"),
        (scaled(torch.inf), r"wq\.scales: inf at \[3, 1\]"),
        (coded(8), r"wq\.weight: code 8 at"),
        (coded(-9), r"wq\.weight: code -9 at"),
        (of_zeros(1.0), r"wq\.zeros holds zero points that are not 0"),
        (of_zeros(torch.nan), r"wq\.zeros holds zero points that are not 0"),
        (lambda state: state.pop(f"{META_QUERY}.scales"), r"wq\.scales is missing"),
        (lambda state: state.pop("output.scales"), r"output\.scales is missing"),
        (put(f"{META_QUERY}.scales", torch.ones(256, 2)), r"wq\.scales must be \[256, 4\]"),
        (put(f"{META_QUERY}.scales", torch.ones(256, 4).int()), "must be bfloat16 or"),
        (
            put(f"{META_QUERY}.weight", torch.ones(256, 128)),
            "wq.weight must be int8, found float32",
        ),
        (put("tok_embeddings.scales", torch.ones(512, 4)), r"tok_embeddings\.scales must be \[512"),
        (put(f"{META_QUERY}.adaptor.A.weight", torch.ones(16, 128)), "is not part of this model"),
    ],
)
def test_damaged_codes_and_scales_are_named(spinquant, edit, match):
    change(spinquant, edit)
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint(spinquant).tensor(QUERY)


def with_params(folder: Path, **keys) -> Path:
    path = folder / "params.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"quantization_args": None}, "holds int8 codes, and params.json has no quantization_args"),
        ({"quantization_args": {"scheme": "int8"}}, "scheme 'int8' is not implemented"),
        ({"quantization_args": {"scheme": "x" * 500}}, "is not implemented"),
        ({"quantization_args": 5}, "quantization_args must be an object"),
        ({"lora_args": {"rank": 16}}, "the key 'scale' is missing"),
        ({"lora_args": {"rank": 8, "scale": 2.0}}, "adaptor.A.weight is missing"),
    ],
)
def test_params_of_other_codes_are_refused(spinquant, keys, match):
    from llama_export.errors import LlamaExportError

    with pytest.raises(LlamaExportError, match=match):
        open_checkpoint(with_params(spinquant, **keys))


@pytest.mark.parametrize("group", [64, 128])
def test_another_group_size_than_the_scales_is_refused(spinquant, group):
    args = json.loads((spinquant / "params.json").read_text())["quantization_args"]
    with_params(spinquant, quantization_args=args | {"group_size": group})
    with pytest.raises(CheckpointError, match="scales must be"):
        open_checkpoint(spinquant)


def test_a_rotation_of_another_width_is_refused(tmp_path):
    """As of Llama Guard 3 1B INT4, whose feed-forward layers are 6400 wide."""
    from llama_export.errors import UnsupportedModelError

    folder = with_params(write_spinquant(tmp_path / "m"), hidden_dim=6400)
    with pytest.raises(UnsupportedModelError, match="hidden_dim of 6400"):
        open_checkpoint(folder)


def test_codes_are_stored_as_they_came(spinquant, tmp_path):
    checkpoint = open_checkpoint(spinquant)
    summary = quantize_to(tmp_path / "weights", checkpoint, checkpoint.recipe)
    weights = QuantizedWeights.open(tmp_path / "weights")
    kept = [stats for stats in summary.stats if stats.method == "kept"]
    assert len(kept) == 2 * 7 + 2
    for stats in kept:
        assert torch.equal(weights.get(stats.name).codes, checkpoint.tensor(stats.name).codes)
        assert 50 < stats.sqnr_db < 60


@pytest.mark.parametrize("write", [write_spinquant, write_qlora])
def test_an_onnx_export_has_the_codes_and_computes_with_them(tmp_path, write):
    assert_exported(tmp_path, write, ("onnx",))


@pytest.mark.slow
@pytest.mark.parametrize("write", [write_spinquant, write_qlora])
def test_the_other_targets_have_the_codes_too(tmp_path, write):
    assert_exported(tmp_path, write, ("executorch", "coreml"))


def assert_exported(tmp_path, write, targets):
    folder = write(tmp_path / "model")
    checkpoint = open_checkpoint(folder)
    found = export_bundle(ExportRequest(str(folder), targets, tmp_path / "out"), Silent())
    for each in found.bundles:
        stored = stored_in(each.bundle)
        for name in checkpoint.names:
            kept = checkpoint.tensor(name)
            if isinstance(kept, QuantizedTensor):
                assert stored.quantized[name] == (kept.codes_sha256(), kept.scales_sha256()), name
