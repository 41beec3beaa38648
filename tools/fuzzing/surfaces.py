"""The surfaces: which file is mutated how, which commands then read it, and what may come of it.

It stages nothing and runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fuzzing.containers import HEADER
from fuzzing.fixtures import HUB, TARGETS
from fuzzing.lying_hub import REPOSITORY, TOKEN
from fuzzing.mutate_bytes import ANY_LENGTH, SAME_LENGTH, Mutator
from fuzzing.mutate_json import JSON_AWARE
from fuzzing.mutate_text import (
    another_command,
    another_lie,
    change_array,
    change_line,
    change_text,
    other_text,
)
from fuzzing.mutate_wire import PROTOBUF_AWARE, point_elsewhere

# What may come of an input that is taken: see `judge`.
CHECKPOINT, SEALED, UNSEALED, PROVED, TEXT = "checkpoint", "sealed", "unsealed", "proved", "text"


@dataclass(frozen=True)
class Mutated:
    """One file of a surface.

    Args:
        path: its path in the folder of a case.
        mutators: functions of which one is drawn.
        weight: how often the file is drawn.
        part: part of a container; empty for the file itself.
        focus: number of bytes at the front to which most mutations are kept; 0: the whole file.
    """

    path: str
    mutators: Sequence[Mutator]
    weight: int = 1
    part: str = ""
    focus: int = 0


@dataclass(frozen=True)
class Verb:
    """A command line, with places in braces that a case fills in."""

    name: str
    arguments: tuple[str, ...]
    weight: int = 1


@dataclass(frozen=True)
class Surface:
    """One way of an input into the product.

    Args:
        name: as on the command line.
        folders: what a case's folder is a copy of, of the fixtures.
        files: files that are mutated, one in a case.
        verbs: commands, of which a case runs one.
        kind: what may come of an input that is taken.
        target: the bundle's target; empty where there is no bundle.
        writes_files_only: whether the lowering is left out of an export, and its files alone are
            written: a case then takes milliseconds.
        share: how many of a thousand cases it gets when all surfaces are asked for.
    """

    name: str
    folders: tuple[str, ...]
    files: tuple[Mutated, ...]
    verbs: tuple[Verb, ...]
    kind: str
    target: str = ""
    writes_files_only: bool = False
    share: int = 10

    @property
    def is_slow(self) -> bool:
        """Whether a case is a whole export or a verification, and so takes a good second."""
        return self.kind == PROVED or (self.kind == CHECKPOINT and not self.writes_files_only)


_EXPORT = ("--target", "onnx", "--output", "{out}", "--no-verify", "--max-context", "64", "--model")
_CHECKPOINT_VERBS = (
    Verb("export", (*_EXPORT, "{ck}"), 4),
    Verb("dry-run", (*_EXPORT, "{ck}", "--dry-run"), 1),
)
_JSON = (*JSON_AWARE, *JSON_AWARE, *ANY_LENGTH)
_WRITE = ("-n", "2", "--threads", "1", "--temperature", "0")
_GENERATE = Verb("generate", ("generate", "{bundle}", "-p", "Hello", *_WRITE), 4)
_CHAT = Verb("chat", ("chat", "{bundle}", "-p", "Hello", *_WRITE), 1)
_INSPECT = Verb("inspect", ("inspect", "{bundle}"), 3)
_VERIFY = Verb(
    "verify", ("verify", "{bundle}", "--quick", "--checkpoint", "{ck}", "--threads", "1")
)
_ARTIFACTS = {
    "onnx": (
        Mutated("onnx/model.onnx", (*PROTOBUF_AWARE, *ANY_LENGTH), 4),
        Mutated("onnx/model.onnx_data", ANY_LENGTH),
    ),
    "executorch": (
        Mutated(
            "executorch/model.pte",
            (point_elsewhere, point_elsewhere, point_elsewhere, *ANY_LENGTH),
            focus=20_000,
        ),
    ),
    "coreml": (
        Mutated(
            "coreml/model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
            (*PROTOBUF_AWARE, *ANY_LENGTH),
            6,
        ),
        Mutated("coreml/model.mlpackage/Data/com.apple.CoreML/weights/weight.bin", ANY_LENGTH, 2),
        Mutated("coreml/model.mlpackage/Manifest.json", _JSON),
    ),
}
_SIDE_FILES = {
    "onnx": ("config.json", "genai_config.json"),
    "executorch": ("config.json",),
    "coreml": ("config.json",),
}


def _checkpoint(name: str, file: Mutated, share: int, folder: str = "ck") -> Surface:
    verbs = tuple(
        replace(
            verb, arguments=tuple(word.replace("{ck}", f"{{{folder}}}") for word in verb.arguments)
        )
        for verb in _CHECKPOINT_VERBS
    )
    more = (
        (replace(file, part=HEADER, mutators=_JSON, weight=2), file)
        if file.path.endswith(".safetensors")
        else (file,)
    )
    return Surface(name, (folder,), more, verbs, CHECKPOINT, writes_files_only=True, share=share)


def _of_target(target: str) -> list[Surface]:
    artifacts, bundle = _ARTIFACTS[target], (target,)
    unsealed = tuple(replace(file, mutators=_kept_lengths(file)) for file in artifacts)
    side = (
        Mutated(f"{target}/tokenizer.json", _JSON, 2),
        Mutated(f"{target}/tokenizer.model", (change_line, *ANY_LENGTH), 2),
        Mutated(f"{target}/tokenizer_config.json", _JSON),
        Mutated(f"{target}/generation_config.json", _JSON),
        *(Mutated(f"{target}/{name}", _JSON) for name in _SIDE_FILES[target]),
        Mutated(f"{target}/NOTICE", (change_text, *ANY_LENGTH)),
    )
    manifest = Mutated(f"{target}/manifest.json", _JSON)
    all_hashes = Verb("inspect-hashes", ("inspect", "{bundle}", "--hashes"))
    slow = 2 if target == "coreml" else 1
    whole = (target, "weights", "ck")
    return [
        Surface(
            f"manifest-{target}",
            bundle,
            (manifest,),
            (_GENERATE, _INSPECT, _CHAT),
            SEALED,
            target,
            share=60,
        ),
        Surface(
            f"art-{target}", bundle, artifacts, (_GENERATE, _INSPECT), SEALED, target, share=60
        ),
        Surface(
            f"raw-{target}",
            bundle,
            unsealed,
            (_GENERATE, _CHAT, all_hashes),
            UNSEALED,
            target,
            share=50,
        ),
        Surface(
            f"side-{target}", bundle, side, (_GENERATE, _CHAT, _INSPECT), SEALED, target, share=30
        ),
        Surface(f"verify-{target}", whole, artifacts, (_VERIFY,), PROVED, target, share=12 // slow),
        Surface(f"verify-side-{target}", whole, side, (_VERIFY,), PROVED, target, share=8 // slow),
        Surface(
            f"verify-manifest-{target}",
            whole,
            (manifest,),
            (_VERIFY,),
            PROVED,
            target,
            share=6 // slow,
        ),
    ]


def _kept_lengths(file: Mutated) -> tuple[Mutator, ...]:
    """Keep to mutations that a length does not give away, most of the time."""
    fields = tuple(each for each in file.mutators if each is point_elsewhere)
    return (*fields, *SAME_LENGTH, *SAME_LENGTH, *file.mutators[-2:])


def _all() -> list[Surface]:
    weights = (
        Verb("export", (*_EXPORT, "{weights}"), 3),
        Verb("inspect", ("inspect", "{weights}"), 1),
        Verb("inspect-hashes", ("inspect", "{weights}", "--hashes"), 1),
    )
    load = ("chat", "{bundle}", "--load", "{saved}", "-p", "x", *_WRITE)
    tensors = "weights/weights.safetensors"
    return [
        _checkpoint("st", Mutated("ck/model.safetensors", ANY_LENGTH), 90),
        _checkpoint(
            "shard",
            Mutated("ck-sharded/model-00001-of-00002.safetensors", ANY_LENGTH),
            30,
            "ck-sharded",
        ),
        _checkpoint(
            "index", Mutated("ck-sharded/model.safetensors.index.json", _JSON), 40, "ck-sharded"
        ),
        _checkpoint(
            "pickled",
            Mutated("ck-pickled/pytorch_model.bin", ANY_LENGTH, focus=8000),
            40,
            "ck-pickled",
        ),
        Surface(
            "adapter",
            ("ck", "adapter"),
            (
                Mutated("adapter/adapter_config.json", _JSON, 3),
                Mutated("adapter/adapter_model.safetensors", _JSON, 2, part=HEADER),
                Mutated("adapter/adapter_model.safetensors", ANY_LENGTH),
            ),
            (
                Verb("export", (*_EXPORT, "{ck}", "--adapter", "{adapter}"), 3),
                Verb("export-over", (*_EXPORT, "{adapter}", "--base", "{ck}"), 2),
                Verb("dry-run", (*_EXPORT, "{ck}", "--adapter", "{adapter}", "--dry-run")),
            ),
            CHECKPOINT,
            writes_files_only=True,
            share=50,
        ),
        _checkpoint("config", Mutated("ck/config.json", _JSON), 90),
        _checkpoint("genconfig", Mutated("ck/generation_config.json", _JSON), 15),
        _checkpoint("tokjson", Mutated("ck/tokenizer.json", _JSON), 40),
        _checkpoint(
            "tokmodel",
            Mutated(
                "ck-ranks/tokenizer.model", (change_line, change_line, change_line, *ANY_LENGTH)
            ),
            50,
            "ck-ranks",
        ),
        _checkpoint("tokconfig", Mutated("ck/tokenizer_config.json", _JSON), 15),
        Surface(
            "config-deep",
            ("ck",),
            (Mutated("ck/config.json", JSON_AWARE),),
            (Verb("export", tuple(word for word in (*_EXPORT, "{ck}") if word != "--no-verify")),),
            CHECKPOINT,
            share=6,
        ),
        Surface(
            "weights",
            ("weights",),
            (
                Mutated(tensors, ANY_LENGTH),
                Mutated(tensors, _JSON, part=HEADER),
                Mutated("weights/quantization.json", _JSON, 2),
            ),
            weights,
            CHECKPOINT,
            writes_files_only=True,
            share=70,
        ),
        Surface(
            "saved",
            ("onnx", "saved.npz"),
            (
                Mutated("saved.npz", ANY_LENGTH, 2),
                Mutated("saved.npz", _JSON, 4, part="conversation.json"),
                Mutated("saved.npz", (change_array,), 2, part="key.0.npy"),
            ),
            (Verb("chat", load),),
            SEALED,
            "onnx",
            share=40,
        ),
        Surface(
            "texts",
            ("onnx", "prompt.txt"),
            (Mutated("prompt.txt", (change_text, change_text, other_text, *ANY_LENGTH)),),
            (
                Verb("generate", ("generate", "{bundle}", "-f", "{prompt}", *_WRITE), 3),
                Verb(
                    "generate-chat", ("generate", "{bundle}", "--chat", "-f", "{prompt}", *_WRITE)
                ),
                Verb("chat-stdin", ("chat", "{bundle}", *_WRITE)),
            ),
            TEXT,
            "onnx",
            share=30,
        ),
        Surface(
            "args",
            ("ck", "onnx", "weights", "saved.npz", "prompt.txt", "argv.json"),
            (Mutated("argv.json", (another_command,)),),
            (Verb("argv", ()),),
            TEXT,
            "onnx",
            writes_files_only=True,
            share=30,
        ),
        Surface(
            "hub",
            ("ck", HUB),
            (Mutated(HUB, (another_lie,)),),
            (
                Verb("dry-run", (*_EXPORT, REPOSITORY, "--token", TOKEN, "--dry-run"), 2),
                Verb("export", (*_EXPORT, REPOSITORY, "--token", TOKEN)),
            ),
            TEXT,
            writes_files_only=True,
            share=30,
        ),
        *(surface for target in TARGETS for surface in _of_target(target)),
    ]


SURFACES = {surface.name: surface for surface in _all()}
