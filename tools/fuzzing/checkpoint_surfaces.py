"""The surfaces of checkpoints: a file of one format is mutated, and an export or plan reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fuzzing.containers import HEADER, PICKLE
from fuzzing.format_fixtures import (
    GGUF,
    JSON_TOKENIZER,
    META,
    META_INT4,
    METHODS,
    PIECES,
    packed_folder,
)
from fuzzing.mutate_bytes import ANY_LENGTH
from fuzzing.mutate_gguf import GGUF_AWARE
from fuzzing.mutate_json import JSON_AWARE
from fuzzing.mutate_pickle import PICKLE_AWARE
from fuzzing.mutate_template import change_template
from fuzzing.mutate_text import change_line
from fuzzing.mutate_wire import PROTOBUF_AWARE
from fuzzing.surface import CHECKPOINT, Mutated, Surface, Verb

EXPORT = ("--target", "onnx", "--output", "{out}", "--no-verify", "--max-context", "64", "--model")
JSON = (*JSON_AWARE, *JSON_AWARE, *ANY_LENGTH)
_FOCUS = 8000


def checkpoint_surfaces() -> list[Surface]:
    """Return the surfaces of a checkpoint in each format."""
    return [*_hugging_face(), *_tokenizers(), *_others()]


def _checkpoint(
    name: str, files: Mutated | Sequence[Mutated], share: int, folder: str = "ck", model: str = ""
) -> Surface:
    """Return a surface whose folder is exported, or planned; `model` is another place to read."""
    place = model or f"{{{folder}}}"
    verbs = (
        Verb("export", (*EXPORT, place), 4),
        Verb("dry-run", (*EXPORT, place, "--dry-run"), 1),
    )
    mutated = (files,) if isinstance(files, Mutated) else tuple(files)
    parts = [part for file in mutated for part in _parts(file)]
    return Surface(
        name, (folder,), tuple(parts), verbs, CHECKPOINT, writes_files_only=True, share=share
    )


def _parts(file: Mutated) -> tuple[Mutated, ...]:
    """Add the part of a container that says what the rest of it means."""
    if file.path.endswith(".safetensors"):
        return (replace(file, part=HEADER, mutators=JSON, weight=2 * file.weight), file)
    if file.path.endswith((".bin", ".pth")):
        inside = (*PICKLE_AWARE, *ANY_LENGTH)
        return (replace(file, part=PICKLE, mutators=inside, weight=2 * file.weight, focus=0), file)
    return (file,)


def _hugging_face() -> list[Surface]:
    sharded, pickled = "ck-sharded", "ck-pickled/pytorch_model.bin"
    one = Mutated(f"{sharded}/model-00001-of-00002.safetensors", ANY_LENGTH)
    index = Mutated(f"{sharded}/model.safetensors.index.json", JSON)
    return [
        _checkpoint("st", Mutated("ck/model.safetensors", ANY_LENGTH), 90),
        _checkpoint("shard", one, 30, sharded),
        _checkpoint("index", index, 40, sharded),
        _checkpoint("pickled", Mutated(pickled, ANY_LENGTH, focus=_FOCUS), 40, "ck-pickled"),
        _checkpoint("config", Mutated("ck/config.json", JSON), 90),
        _checkpoint("genconfig", Mutated("ck/generation_config.json", JSON), 15),
        _adapter(),
        Surface(
            "config-deep",
            ("ck",),
            (Mutated("ck/config.json", JSON_AWARE),),
            (Verb("export", tuple(word for word in (*EXPORT, "{ck}") if word != "--no-verify")),),
            CHECKPOINT,
            share=6,
        ),
    ]


def _adapter() -> Surface:
    return Surface(
        "adapter",
        ("ck", "adapter"),
        (
            Mutated("adapter/adapter_config.json", JSON, 3),
            Mutated("adapter/adapter_model.safetensors", JSON, 2, part=HEADER),
            Mutated("adapter/adapter_model.safetensors", ANY_LENGTH),
        ),
        (
            Verb("export", (*EXPORT, "{ck}", "--adapter", "{adapter}"), 3),
            Verb("export-over", (*EXPORT, "{adapter}", "--base", "{ck}"), 2),
            Verb("dry-run", (*EXPORT, "{ck}", "--adapter", "{adapter}", "--dry-run")),
        ),
        CHECKPOINT,
        writes_files_only=True,
        share=50,
    )


def _tokenizers() -> list[Surface]:
    lines = (change_line, change_line, change_line, *ANY_LENGTH)
    others = (
        Mutated(f"{JSON_TOKENIZER}/tokenizer.json", JSON, 3),
        Mutated(f"{JSON_TOKENIZER}/tokenizer_config.json", JSON),
    )
    pieces = Mutated(f"{PIECES}/tokenizer.model", (*PROTOBUF_AWARE, *ANY_LENGTH))
    template = Mutated("ck/chat_template.jinja", (change_template, change_template, *ANY_LENGTH))
    return [
        _checkpoint("tokjson", Mutated("ck/tokenizer.json", JSON), 40),
        _checkpoint("tokmodel", Mutated("ck-ranks/tokenizer.model", lines), 50, "ck-ranks"),
        _checkpoint("tokconfig", Mutated("ck/tokenizer_config.json", JSON), 15),
        _checkpoint("tokother", others, 30, JSON_TOKENIZER),
        _checkpoint("pieces", pieces, 30, PIECES),
        _checkpoint("template", template, 20),
    ]


def _others() -> list[Surface]:
    gguf = [
        file
        for path in GGUF
        for file in (Mutated(path, GGUF_AWARE, 2), Mutated(path, ANY_LENGTH, focus=_FOCUS))
    ]
    packed = [
        _checkpoint(
            f"packed-{method}",
            (
                Mutated(f"{packed_folder(method)}/model.safetensors", ANY_LENGTH),
                Mutated(f"{packed_folder(method)}/config.json", JSON),
            ),
            15,
            packed_folder(method),
        )
        for method in METHODS
    ]
    return [
        _checkpoint("gguf", gguf, 50, "gguf", model="{file}"),
        *packed,
        *(_meta(name, folder) for name, folder in (("meta", META), ("meta-int4", META_INT4))),
    ]


def _meta(name: str, folder: str) -> Surface:
    shard = Mutated(f"{folder}/consolidated.00.pth", ANY_LENGTH, focus=_FOCUS)
    return _checkpoint(name, (shard, Mutated(f"{folder}/params.json", JSON)), 30, folder)
