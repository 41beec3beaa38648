"""ExecuTorch's peers: `export_llm`'s two files and llama.cpp's, made once and kept.

`export_llm` is what ExecuTorch ships for Llama. It runs in the environment of this script, so that
both exporters and both files have the same torch, torchao and ExecuTorch. It is asked for what its
recipe llama_xnnpack.yaml has, in groups of 32 and with an int8 table. `use_hqq` is off. By default
it is on; a trial on two cores was stopped after 580 s, 429 of them in that search. It chooses other
values for the scales and changes neither the size nor the operators.

Its own choice for the head is int4, as for every other product, and no option says otherwise. Its
recipe for Meta's quantised checkpoints (llama_xnnpack_qat.yaml) reads an int8 head that is int8 in
the checkpoint, and whatever else is not quantised there goes through `qmode` as before. So the
int8 head is made by `meta_checkpoint.py`, and `export_llm` is run as it is, without a patch.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from measure import Measurement
from peer_setup import ROOT, Artifact, Workshop
from side_by_side import cpu_seconds, others_cores

CONTEXT = 2048
OURS, INT8_HEAD, INT4_HEAD, GGUF = NAMES = ("ours", "int8-head", "int4-head", "llama-cpp")
ALL = "all"
SETTINGS = (
    "base.model_class=llama3_2",
    "model.use_kv_cache=True",
    "model.use_sdpa_with_kv_cache=True",
    "model.dtype_override=fp32",
    "quantization.qmode=8da4w",
    "quantization.group_size=32",
    "quantization.embedding_quantize='8,0'",
    "quantization.use_hqq=False",
    "backend.xnnpack.enabled=True",
    "backend.xnnpack.extended_ops=True",
    f"export.max_seq_length={CONTEXT}",
    f"export.max_context_length={CONTEXT}",
    "hydra.output_subdir=null",
)
INT8_HEAD_SETTINGS = (
    "quantization.use_qat=True",
    "base.preq_mode=preq_8da4w_out_8da8w",
    "base.preq_group_size=32",
    "base.preq_embedding_quantize='8,0'",
)


@dataclass(frozen=True)
class Made:
    """An artifact, and how busy other processes kept the machine while it was made."""

    artifact: Artifact
    others_cores: float


class ExecutorchWorkshop(Workshop):
    """The work folder of `peer_setup`, with what ExecuTorch's comparison needs besides.

    Args:
        folder: work folder for everything large; it is kept. tokenizer: tokenizer file of the
        checkpoint. like: shape of the checkpoint. say: receiver of lines of progress. remake: names
        of artifacts to make again, of NAMES, or ALL; the others are kept if they exist.
    """

    def __init__(
        self,
        folder: Path,
        tokenizer: Path,
        like: str,
        say: Callable[[str], None],
        remake: Collection[str],
    ) -> None:
        super().__init__(folder, tokenizer, like, say)
        self._remake = set(NAMES) if ALL in remake else set(remake)

    def ours_pte(self) -> Made:
        """Export with the real command line; the size is the `.pte`'s alone."""
        return self._kept(OURS, self._make_ours)

    def export_llm(self, name: str) -> Made:
        """Export with `export_llm`.

        Args:
            name: INT8_HEAD or INT4_HEAD.
        """
        return self._kept(name, lambda: self._make_export_llm(name))

    def gguf(self, side_files: Path) -> Made:
        """Convert and quantise with llama.cpp."""
        return self._kept(GGUF, lambda: self.llama_cpp(side_files))

    def _make_ours(self) -> Artifact:
        made = self.ours(32, "executorch", ("--max-context", str(CONTEXT)))
        return replace(made, size_bytes=sum(one.stat().st_size for one in made.path.glob("*.pte")))

    def _make_export_llm(self, name: str) -> Artifact:
        int8_head = name == INT8_HEAD
        source = self._meta(int8_head=int8_head)
        output = self._folder / f"executorch-{name}.pte"
        output.unlink(missing_ok=True)
        self._say(f"export_llm, {name}")
        command = export_llm_command(source, output, int8_head=int8_head)
        took = self._run(command, f"executorch-{name}")
        return Artifact(output, output.stat().st_size, took)

    def _meta(self, *, int8_head: bool) -> Path:
        """Rewrite the checkpoint for `export_llm`, once and unmeasured.

        Its path must not contain int8 or 8da4w, which `export_llm` would take for a format.
        """
        place = self._folder / ("executorch-meta-head8" if int8_head else "executorch-meta")
        if not (place / "params.json").exists():
            self._say(f"{place.name}: the checkpoint as Meta ships it")
            command = [sys.executable, str(ROOT / "benchmarks" / "meta_checkpoint.py")]
            command += ["--checkpoint", str(self.checkpoint()), "--output", str(place)]
            self._run([*command, *(["--int8-head"] if int8_head else [])], place.name)
        return place

    def _kept(self, name: str, make: Callable[[], Artifact]) -> Made:
        """Return an existing artifact with its measurement, or make it now."""
        record = self._folder / f"executorch-{name}.made.json"
        if record.exists() and name not in self._remake:
            made = read_record(self._folder, record)
            if made.artifact.path.exists():
                self._say(f"{name}: kept, as it was made before")
                return made
        record.unlink(missing_ok=True)
        begun, before = time.perf_counter(), cpu_seconds()
        artifact = make()
        made = Made(artifact, others_cores(before, time.perf_counter() - begun))
        write_record(self._folder, record, made)
        return made


def export_llm_command(source: Path, output: Path, *, int8_head: bool) -> Sequence[str]:
    """Return the whole command line.

    Args:
        source: folder that `meta_checkpoint.py` has written.
        output: path of the `.pte`.
        int8_head: true if the checkpoint has an int8 head, which is kept.
    """
    return [
        *(sys.executable, "-m", "executorch.extension.llm.export.export_llm"),
        f"base.checkpoint={source / 'consolidated.00.pth'}",
        f"base.params={source / 'params.json'}",
        *SETTINGS,
        *(INT8_HEAD_SETTINGS if int8_head else ()),
        f"export.output_name={output}",
        f"hydra.run.dir={output.parent / 'executorch-hydra'}",
    ]


def write_record(folder: Path, record: Path, made: Made) -> None:
    """Record an artifact and its measurement."""
    artifact = made.artifact
    found = {
        "path": artifact.path.relative_to(folder).as_posix(),
        "size_bytes": artifact.size_bytes,
        "took": asdict(artifact.took),
        "others_cores": made.others_cores,
    }
    record.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def read_record(folder: Path, record: Path) -> Made:
    """Read a record of `write_record`."""
    found = json.loads(record.read_text(encoding="utf-8"))
    took = Measurement(**found["took"])
    return Made(Artifact(folder / found["path"], found["size_bytes"], took), found["others_cores"])
