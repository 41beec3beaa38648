"""The surfaces: which file is mutated how, which commands then read it, and what may come of it.

It stages nothing and runs nothing.
"""

from __future__ import annotations

from dataclasses import replace

from fuzzing.checkpoint_surfaces import EXPORT, JSON, checkpoint_surfaces
from fuzzing.containers import HEADER
from fuzzing.fixtures import HUB, REPORT, TARGETS
from fuzzing.lying_hub import REPOSITORY, TOKEN
from fuzzing.mutate_bytes import ANY_LENGTH, SAME_LENGTH, Mutator
from fuzzing.mutate_template import change_template_in_json
from fuzzing.mutate_text import (
    another_command,
    another_lie,
    change_array,
    change_line,
    change_text,
    other_text,
)
from fuzzing.mutate_wire import PROTOBUF_AWARE, point_elsewhere
from fuzzing.surface import CHECKPOINT, PROVED, SEALED, TEXT, UNSEALED, Mutated, Surface, Verb

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
        Mutated("coreml/model.mlpackage/Manifest.json", JSON),
    ),
}
_SIDE_FILES = {
    "onnx": ("config.json", "genai_config.json"),
    "executorch": ("config.json",),
    "coreml": ("config.json",),
}


def _of_target(target: str) -> list[Surface]:
    artifacts, bundle = _ARTIFACTS[target], (target,)
    unsealed = tuple(replace(file, mutators=_kept_lengths(file)) for file in artifacts)
    side = (
        Mutated(f"{target}/tokenizer.json", JSON, 2),
        Mutated(f"{target}/tokenizer.model", (change_line, *ANY_LENGTH), 2),
        Mutated(f"{target}/tokenizer_config.json", JSON),
        Mutated(f"{target}/generation_config.json", JSON),
        *(Mutated(f"{target}/{name}", JSON) for name in _SIDE_FILES[target]),
        Mutated(f"{target}/NOTICE", (change_text, *ANY_LENGTH)),
    )
    manifest = Mutated(f"{target}/manifest.json", JSON)
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


def _golden() -> list[Surface]:
    """Return the surfaces of what a bundle answered, and of what a phone says that it answers."""
    golden = Mutated("onnx/golden.json", JSON)
    phone = Verb("verify-phone", ("verify", "{bundle}", "--device-report", "{report}"))
    again = Verb("verify", ("verify", "{bundle}", "--checkpoint", "{ck}", "--threads", "1"))
    both = ("onnx", REPORT)
    return [
        Surface("golden", both, (golden,), (phone,), SEALED, "onnx", share=30),
        Surface("report", both, (Mutated(REPORT, JSON),), (phone,), SEALED, "onnx", share=30),
        Surface(
            "verify-golden", ("onnx", "weights", "ck"), (golden,), (again,), PROVED, "onnx", share=6
        ),
    ]


def _all() -> list[Surface]:
    weights = (
        Verb("export", (*EXPORT, "{weights}"), 3),
        Verb("inspect", ("inspect", "{weights}"), 1),
        Verb("inspect-hashes", ("inspect", "{weights}", "--hashes"), 1),
    )
    load = ("chat", "{bundle}", "--load", "{saved}", "-p", "x", *_WRITE)
    tensors = "weights/weights.safetensors"
    return [
        *checkpoint_surfaces(),
        Surface(
            "weights",
            ("weights",),
            (
                Mutated(tensors, ANY_LENGTH),
                Mutated(tensors, JSON, part=HEADER),
                Mutated("weights/quantization.json", JSON, 2),
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
                Mutated("saved.npz", JSON, 4, part="conversation.json"),
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
                Verb("dry-run", (*EXPORT, REPOSITORY, "--token", TOKEN, "--dry-run"), 2),
                Verb("export", (*EXPORT, REPOSITORY, "--token", TOKEN)),
            ),
            TEXT,
            writes_files_only=True,
            share=30,
        ),
        Surface(
            "bundled-template",
            ("onnx",),
            (Mutated("onnx/tokenizer_config.json", (change_template_in_json,)),),
            (_CHAT, Verb("generate-chat", (*_GENERATE.arguments, "--chat"))),
            SEALED,
            "onnx",
            share=20,
        ),
        *_golden(),
        *(surface for target in TARGETS for surface in _of_target(target)),
    ]


SURFACES = {surface.name: surface for surface in _all()}
