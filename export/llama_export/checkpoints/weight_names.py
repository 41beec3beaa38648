"""Which of the tensors in a checkpoint's files are the model's, as transformers decides it.

What a Llama does not have is passed over with a note, unless it would change what the model
computes; then it is refused. The module reads no file and no value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llama_export.checkpoints.foreign_names import ADAPTER, MERGE, find_wrapping, layouts_of
from llama_export.checkpoints.safetensors_header import TensorEntry
from llama_export.llama.names import HEAD, TABLE
from llama_quantize.printable import shown_name

FLOATS = ("BF16", "F16", "F32", "F64")
"""Types that are read; float64 is rounded to float32."""

_PREFIX = "model."
_LAYER = re.compile(r"(?:model\.){0,2}layers\.(\d{1,6})\.")
# Old versions of transformers saved these too; they follow from the config.
_BUFFERS = re.compile(
    r"(?:.*\.)?(rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)"
    r"|self_attn\.(bias|masked_bias)|rope\.freqs)"
)
# Here a tensor that a Llama does not have is a part of another computation.
_INSIDE = re.compile(r"(?:model\.){0,2}(?:embed_\w+|layers|norm)\.|lm_head\.")
_BIAS = ".bias"
_MOST_NAMES = 4
_OTHER_MODEL = (
    "the files are whole, but they are not of the model in config.json: take both from the same "
    "model, as save_pretrained wrote them"
)
_NO_HEAD = (
    "if the model's head is its token table, set tie_word_embeddings to true in config.json; else "
    "it was saved without its head: save it as LlamaForCausalLM"
)
_NO_BIASES = (
    "set attention_bias or mlp_bias to false in config.json, if the model was trained without "
    "these; if with some of them alone, save the others as zeros"
)
_BIASED = "set attention_bias or mlp_bias to true in config.json, if the model was trained so"


@dataclass(frozen=True)
class Matched:
    """What became of the tensors in some files.

    Args:
        stored: name in the files of each tensor of the model, and of a tied head if it is there.
        biases: biases that the model does not have, which do no harm while they are zero.
        notes: what a user must know of what is passed over.
        problems: why the files cannot be used.
        hint: what to do about these.
    """

    stored: Mapping[str, str] = field(repr=False)
    biases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    hint: str = _OTHER_MODEL


def match_names(
    shapes: Mapping[str, tuple[int, ...]], entries: Mapping[str, TensorEntry], layers: int
) -> Matched:
    """Find the tensors of a model among those of its files.

    Args:
        shapes: shape of each tensor that the model must have; no head if it is tied.
        entries: tensors of the files, by their names there.
        layers: number of layers by the config.
    """
    stored = {name: found for name in (*shapes, HEAD) if (found := _found(name, entries))}
    if TABLE not in stored and HEAD not in shapes and HEAD in stored:
        stored[TABLE] = stored.pop(HEAD)  # of a tied pair, transformers too takes either
    missing = [name for name in shapes if name not in stored]
    if missing and (wrapped := find_wrapping(missing, entries)):
        problem = (
            f"it holds {shown_name(wrapped.example)} where {wrapped.plain} is expected, and "
            f"{len(entries) - 1} more: {wrapped.wrapping.maker}"
        )
        return Matched(stored, problems=(problem,), hint=wrapped.wrapping.hint)
    extra = _Extra.of(entries.keys() - set(stored.values()), layers)
    wrong = {
        name: fault
        for name, shape in {HEAD: shapes[TABLE], **shapes}.items()
        if name in stored and (fault := _misfit(name, shape, entries[stored[name]]))
    }
    strangers = [
        f"{shown_name(name)} {list(entries[name].shape)} is not part of this model"
        for name in extra.refused
    ]
    seen = layouts_of([*extra.refused, *(extra.unread if missing else ())])
    lacking = _lacking(missing, layers, entries, extra)
    rows = _other_rows(shapes, {name: entries[found] for name, found in stored.items()}, wrong)
    return Matched(
        stored,
        biases=tuple(extra.biases),
        notes=tuple(extra.notes(layers)),
        problems=(*seen, *lacking, *wrong.values(), *strangers),
        hint=_hint(missing, wrong, extra.refused, rows),
    )


def biased(names: Sequence[str]) -> Matched:
    """Refuse biases that are not zero and that the model does not have."""
    problems = [
        f"{shown_name(name)} is not zero, and by config.json there is none" for name in names
    ]
    return Matched({}, problems=tuple(problems), hint=_BIASED)


def _found(name: str, entries: Mapping[str, TensorEntry]) -> str | None:
    """Return a tensor's name in the files.

    LlamaModel alone is saved without the prefix, and what held the whole model has it once more;
    transformers reads both.
    """
    spellings = (name, name.removeprefix(_PREFIX), _PREFIX + name)
    return next((each for each in spellings if each in entries), None)


def _hint(
    missing: Sequence[str], wrong: Collection[str], refused: Sequence[str], rows: int | None
) -> str:
    """Return what to do where tensors are missing, or wrong, or are to be refused.

    Args:
        missing: names of tensors that are not there.
        wrong: names of tensors of another shape or type.
        refused: names of tensors that the model does not have.
        rows: rows of tables that are longer or shorter than the vocabulary, and right otherwise.
    """
    if any(map(ADAPTER.search, refused)):
        return MERGE
    if missing and not wrong and not refused:
        if list(missing) == [HEAD]:
            return _NO_HEAD
        if all(name.endswith(_BIAS) for name in missing):
            return _NO_BIASES
    if rows is not None and not missing and not refused and set(wrong) <= {TABLE, HEAD}:
        return f"if the tables were resized, set vocab_size to {rows} in config.json"
    return _OTHER_MODEL


def _other_rows(
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, TensorEntry],
    wrong: Collection[str],
) -> int | None:
    """Return the rows that table and head agree on, where it is not the config's number."""
    found = {stored[name].shape for name in (TABLE, HEAD) if name in stored}
    shape = found.pop() if len(found) == 1 and TABLE in wrong else ()
    return shape[0] if len(shape) == 2 and shape[1:] == shapes[TABLE][1:] else None


@dataclass(frozen=True)
class _Extra:
    """Tensors that the model does not have."""

    biases: list[str]
    refused: list[str]
    unread: list[str]
    beyond: list[str]

    @classmethod
    def of(cls, names: Iterable[str], layers: int) -> _Extra:
        sorted_out = cls([], [], [], [])
        for name in sorted(names):
            if not _BUFFERS.fullmatch(name):
                sorted_out._list_for(name, layers).append(name)
        return sorted_out

    def _list_for(self, name: str, layers: int) -> list[str]:
        layer = _LAYER.match(name)
        if ADAPTER.search(name):
            return self.refused
        if layer and int(layer[1]) >= layers:
            return self.beyond
        if not _INSIDE.match(name):
            return self.unread
        return self.biases if name.endswith(_BIAS) else self.refused

    def notes(self, layers: int) -> list[str]:
        found = []
        if self.unread:
            found.append(f"not read, because no Llama has it: {_listed(self.unread)}")
        if self.beyond:
            found.append(
                f"not read, because config.json says {layers} layers: {_listed(self.beyond)}"
            )
        return found


def _lacking(
    missing: Sequence[str], layers: int, entries: Mapping[str, TensorEntry], extra: _Extra
) -> list[str]:
    """Name what is missing, and then what is there instead."""
    if not missing:
        return []
    there = {int(match[1]) for name in entries if (match := _LAYER.match(name))}
    lines = []
    absent = set(range(layers)) - there
    if there and absent:
        lines.append(
            f"config.json says {layers} layers, and the files hold tensors of {len(there)}"
        )
        missing = [
            name for name in missing if not ((m := _LAYER.match(name)) and int(m[1]) in absent)
        ]
    lines += [f"{name} is missing" for name in missing]
    instead = [*extra.refused, *extra.unread]
    if instead:
        # First: a list of what is missing would bury it.
        lines.insert(0, f"it holds {_listed(instead)}, which this model does not have")
    return lines


def _misfit(name: str, shape: tuple[int, ...], entry: TensorEntry) -> str:
    if entry.shape != shape:
        return f"{name} must be {list(shape)} by config.json, found {list(entry.shape)}"
    if entry.dtype not in FLOATS:
        expected = f"{', '.join(FLOATS[:-1])} or {FLOATS[-1]}"
        return f"{name} must be {expected}, found {shown_name(entry.dtype)}"
    return ""


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(shown_name, names[:_MOST_NAMES]))
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown
