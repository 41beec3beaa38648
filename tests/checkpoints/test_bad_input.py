"""Every format with every fault: a named error, before a bundle is there, and nothing is run.

The faults of one format alone are tested beside its reader.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from artifacts.adapters import low_rank, write_adapter
from artifacts.gguf_files import SMALL, metadata, stored_state, write_gguf
from artifacts.sentencepieces import trained
from artifacts.tiny import TINY, write_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fuzzing.format_fixtures import GGUF, META, META_INT4, METHODS, packed_folder, write_formats
from llama_export.checkpoints.checkpoint import AS_IT_IS, ReadOptions
from llama_export.errors import LlamaExportError
from llama_export.sources.source import describe
from llama_quantize.checkpoint.store import quantize_to
from llama_quantize.errors import QuantizationError
from llama_quantize.recipe import recipe

PICKLED, SAFE = "pytorch_model.bin", "model.safetensors"
SHARD = "consolidated.00.pth"
FILES = {
    "safetensors": f"plain/{SAFE}",
    "pickled": f"pickled/{PICKLED}",
    "adapter": "adapter/adapter_model.safetensors",
    "gguf": GGUF[0],
    "meta": f"{META}/{SHARD}",
    "meta int4": f"{META_INT4}/{SHARD}",
    **{method: f"{packed_folder(method)}/{SAFE}" for method in METHODS},
}
PICKLES = [name for name, file in FILES.items() if file.endswith((".bin", ".pth"))]
HEADERS = [name for name, file in FILES.items() if file.endswith(".safetensors")]
# A part of a float tensor's name: a weight, or the scales of one.
FLOATS = ("q_proj.weight_scale", "q_proj.scales", "q_proj.weight.absmax", "q_proj._weight_scale")
FLOATS += ("q_proj.weight.nested_absmax", "wq.scales", "q_proj.lora_B", "wq.weight")
FLOATS += ("q_proj.weight",)


@dataclass(frozen=True)
class Model:
    """A copy of a checkpoint in one format, which a test may damage."""

    folder: Path
    file: Path
    options: ReadOptions = AS_IT_IS

    @property
    def path(self) -> Path:
        return self.file if self.file.suffix == ".gguf" else self.folder

    def tensors(self) -> dict[str, torch.Tensor]:
        if self.file.suffix == ".safetensors":
            return load_file(self.file)
        return torch.load(self.file, weights_only=True)

    def write(self, tensors: dict[str, object]) -> None:
        if self.file.suffix != ".safetensors":
            torch.save(tensors, self.file)
            return
        with safe_open(self.file, framework="pt") as opened:
            words = opened.metadata()
        save_file(tensors, self.file, words)

    def quantise(self, place: Path) -> None:
        """Read all that an export reads, and quantise it."""
        found = describe(self.path, options=self.options).checkpoint
        quantize_to(place / "weights", found, found.recipe or recipe("int4"))

    def refusal(self, place: Path) -> str:
        """Return the error in which reading and quantising it must end."""
        with pytest.raises((LlamaExportError, QuantizationError)) as caught:
            self.quantise(place)
        return f"{caught.value} {getattr(caught.value, 'hint', '')}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Return a folder with a checkpoint of each format, none of which is changed."""
    base = tmp_path_factory.mktemp("whole")
    write_formats(base)
    write_checkpoint(base / "plain")
    write_checkpoint(base / "pickled")
    torch.save(load_file(base / "pickled" / SAFE), base / "pickled" / PICKLED)
    (base / "pickled" / SAFE).unlink()
    write_adapter(base / "adapter", low_rank(TINY, ["model.layers.0.self_attn.q_proj"]))
    return base


def copied(whole: Path, place: Path, name: str) -> Model:
    file = Path(FILES[name])
    folder = place / file.parent.name
    shutil.copytree(whole / file.parent, folder)
    if name != "adapter":
        return Model(folder, folder / file.name)
    base = shutil.copytree(whole / "plain", place / "base")
    return Model(base, folder / file.name, ReadOptions(adapters=(str(folder),)))


@pytest.fixture(params=FILES)
def model(request, whole, tmp_path) -> Model:
    return copied(whole, tmp_path, request.param)


def float_name(tensors: dict[str, torch.Tensor]) -> str:
    """Return a tensor whose numbers are used as they are."""
    names = [name for end in FLOATS for name in tensors if end in name]
    return next(name for name in names if tensors[name].is_floating_point())


def with_gguf(model: Model, **changes) -> None:
    """Write the GGUF file anew, with another part of it."""
    write_gguf(model.file, SMALL, **changes)


def test_a_whole_one_is_read(model, tmp_path):
    """The twin of all others."""
    model.quantise(tmp_path)
    assert (tmp_path / "weights").is_dir()


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.99])
def test_truncated(model, tmp_path, kept):
    content = model.file.read_bytes()
    model.file.write_bytes(content[: int(len(content) * kept)])
    assert model.refusal(tmp_path)


def test_without_a_tensor(model, tmp_path):
    if model.file.suffix == ".gguf":
        with_gguf(model, without=("blk.0.attn_q.weight",))
        assert "q_proj.weight is missing" in model.refusal(tmp_path)
        return
    tensors = model.tensors()
    name = float_name(tensors)
    del tensors[name]
    model.write(tensors)
    message = model.refusal(tmp_path)
    assert name.split(".")[-1] in message or "lora_B" in message


@pytest.mark.parametrize("name", HEADERS)
def test_a_tensor_that_is_there_twice(whole, tmp_path, name):
    """GGUF's and Meta's have tests of their own; a pickle's dictionary cannot say it."""
    model = copied(whole, tmp_path, name)
    content = model.file.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    twice = next(key for key in header if key != "__metadata__")
    raw = content[8 : start - 1].rstrip(b" }") + b"}"
    raw += b"," + json.dumps({twice: header[twice]}).encode()[1:]
    model.file.write_bytes(len(raw).to_bytes(8, "little") + raw + content[start:])
    assert "is given twice" in model.refusal(tmp_path)


def test_another_shape(model, tmp_path):
    if model.file.suffix == ".gguf":
        state = stored_state(SMALL)
        state["model.layers.0.mlp.up_proj.weight"] = torch.ones(512, 512)
        with_gguf(model, state=state)
        assert "up_proj.weight must be [512, 256]" in model.refusal(tmp_path)
        return
    tensors = model.tensors()
    name = float_name(tensors)
    tensors[name] = torch.ones(3, 5, dtype=tensors[name].dtype)
    model.write(tensors)
    assert "[3, 5]" in model.refusal(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_or_scale_that_is_none(model, tmp_path, value):
    if model.file.suffix == ".gguf":
        state = stored_state(SMALL)
        state["model.layers.0.mlp.up_proj.weight"][3, 4] = value
        with_gguf(model, state=state)
    else:
        tensors = model.tensors()
        tensors[float_name(tensors)].view(-1)[5] = value
        model.write(tensors)
    message = model.refusal(tmp_path)
    assert str(value) in message or "not finite" in message


def test_another_architecture(model, tmp_path):
    if model.file.suffix == ".gguf":
        with_gguf(model, keys={"general.architecture": "qwen2"})
    elif (model.folder / "params.json").exists():
        path = model.folder / "params.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"moe": {"num_experts": 8}}))
    else:
        path = model.folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "qwen2"}))
    message = model.refusal(tmp_path)
    assert "qwen2" in message or "mixture of experts" in message


class Program:
    """What a pickle would run."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("name", [*PICKLES, *METHODS, "adapter"])
def test_a_pickle_that_wants_to_run_code(whole, tmp_path, name):
    """Packed weights and adapters may be pickled too."""
    model = copied(whole, tmp_path, name)
    tensors = model.tensors() | {"extra.weight": Program(tmp_path / "ran")}
    file = model.file
    if file.suffix == ".safetensors":
        file.unlink()
        file = file.with_name("adapter_model.bin" if name == "adapter" else PICKLED)
    torch.save(tensors, file)
    assert "nothing of it was run" in model.refusal(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_of_another_model(model, tmp_path):
    if model.file.suffix == ".gguf":
        own = metadata(SMALL)
        more = {"tokenizer.ggml.tokens": "w{}".format, "tokenizer.ggml.token_type": lambda _: 1}
        keys = {key: [*own[key], *map(each, range(200))] for key, each in more.items()}
        with_gguf(model, keys=keys)
    else:
        (model.folder / "tokenizer.model").write_bytes(trained(size=700))
    message = model.refusal(tmp_path)
    assert "belongs to another model" in message
