"""Which files of a repository are a model in GGUF: its only one, or the one that a user picks.

A repository has a model in many forms, and says which in the names of its files alone:
`NAME-Q8_0.gguf`, `NAME.i1-Q4_K_M.gguf`, `BF16/NAME-00001-of-00002.gguf`. Ollama and llama.cpp call
that the tag, and write `organisation/name:TAG`. It knows names and opens nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from llama_export.checkpoints.checkpoint import REPOSITORY, Fault, WantedFiles
from llama_export.checkpoints.gguf.files import (
    SUFFIX,
    has_other_weights,
    model_stem,
    models_among,
)
from llama_export.checkpoints.hugging_face_files import is_small_file
from llama_quantize.printable import shown_name

# Before the form may stand who chose it, or how: unsloth's UD, mradermacher's i1.
_PREFIX = r"(?:UD-|i1-)"
_TAG = re.compile(
    rf"(?:^|[-._/])({_PREFIX}?(?:I?Q\d\w*|TQ\d\w*|MXFP4\w*|BF16|FP?(?:16|32)))(?=[-./]|$)",
    re.IGNORECASE | re.ASCII,
)
_MOST_SHOWN = 40
_Models = Mapping[str, tuple[str, ...]]


def tag_of(name: str) -> str:
    """Return the form that the name of a model's file speaks of; "" if it speaks of none."""
    found = _TAG.findall(model_stem(name))
    return str(found[-1]) if found else ""


def wanted_files(files: Collection[str]) -> WantedFiles | Fault | None:
    """Choose the one model in GGUF among a repository's files; None: there is none.

    Args:
        files: paths in the repository, with `/`.
    """
    found = models_among(files)
    if not found or has_other_weights(files):
        return None
    if len(found) > 1:
        text = f"holds {len(found)} models in GGUF, and one is meant: {_listed(_choices(found))}"
        return Fault(text, _how_to_pick(found))
    return _whole_model(next(iter(found.values())), files)


def picked_files(files: Collection[str], picked: str) -> WantedFiles | Fault:
    """Choose the model in GGUF that a user picks among a repository's files.

    Args:
        files: paths in the repository, with `/`.
        picked: its tag in any case, with or without what stands before the form; or its path, of
            any part.
    """
    found, what = models_among(files), shown_name(picked)
    if not found:
        text = f"has no model in GGUF, and {what} picks one"
        return Fault(text, "leave it out of the name: then the repository's own weights are meant")
    meant = _meant(found, picked)
    if len(meant) == 1:
        return _whole_model(found[meant[0]], files)
    if meant:
        text = f"holds {len(meant)} models in GGUF for {what}: {_listed(meant)}"
        return Fault(text, f"name the file, as in {REPOSITORY}/{shown_name(meant[0])}")
    text = f"has no model in GGUF for {what}; there are {_listed(_choices(found))}"
    return Fault(text, _how_to_pick(found))


def _meant(found: _Models, picked: str) -> Sequence[str]:
    """Return the first file of each model that is meant."""
    if picked.lower().endswith(SUFFIX):
        return [first for first, parts in found.items() if picked in parts]
    tags = {first: tag_of(first).casefold() for first in found}
    wanted = picked.casefold()
    exact = [first for first, tag in tags.items() if tag == wanted]
    return exact or [first for first, tag in tags.items() if _bare(tag) == wanted]


def _bare(tag: str) -> str:
    return re.sub(rf"^{_PREFIX}", "", tag, flags=re.IGNORECASE)


def _choices(found: _Models) -> list[str]:
    """Return what picks each model: its tag, or its file where the tag picks no one."""
    tags = {first: tag_of(first) for first in found}
    counts = Counter(tag.casefold() for tag in tags.values())
    alone = {first for first, tag in tags.items() if tag and counts[tag.casefold()] == 1}
    return [tags[first] if first in alone else first for first in found]


def _how_to_pick(found: _Models) -> str:
    choice = shown_name(_choices(found)[0])
    sign = "/" if choice.lower().endswith(SUFFIX) else ":"
    return f"name one of them, as in {REPOSITORY}{sign}{choice}"


def _listed(names: Iterable[str]) -> str:
    shown = [shown_name(name) for name in names]
    more = f" and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
    return ", ".join(shown[:_MOST_SHOWN]) + more


def _whole_model(parts: Sequence[str], files: Collection[str]) -> WantedFiles | Fault:
    """Choose all parts of a model, and the small files of the repository."""
    if missing := [name for name in parts if name not in files]:
        return Fault(f"lacks {shown_name(missing[0])}", "take another repository")
    small = tuple(sorted(filter(is_small_file, files)))
    # The first part has the metadata: a folder that has it has them all.
    return WantedFiles(small, tuple(parts), parts[0], opened=parts[0])
