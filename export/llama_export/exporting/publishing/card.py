"""The model card: README.md of an output, as the hub and its readers want it.

It is rendered from the manifests of the bundles that are there, by `card.md.jinja`, always with the
same bytes. It opens no file and asks nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from llama_export.bundle.manifest import Manifest
from llama_export.sources.licence import NOTICE_NAME
from llama_export.sources.resolve import DEMO
from llama_export.sources.terms import Terms
from llama_export.system.byte_sizes import format_bytes
from llama_export.targets import registry
from llama_quantize.printable import printable
from llama_quantize.recipe import quality_and_method

if TYPE_CHECKING:
    from jinja2 import Template

NOT_PUSHED = "OWNER/NAME"
"""What stands for the repository in a card that was not pushed yet."""

_FLOATS = ("bf16", "fp16")
# What the hub shows first: the client that runs a repository by its name alone.
_LIBRARIES = {"onnx": "transformers.js"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&!@])")
# A client makes a link of these by itself, escaped or not; inside code none does.
_LINK = re.compile(r"://|www\.|@", re.IGNORECASE)
_BOUNDARY = re.compile(r"([\s`|<>]+)")
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
# What makes a list of a line, a rule, or a heading of the line before it.
_BEGINNING = re.compile(r"^(\s*(?:\d{1,9}(?=[.)](?:\s|$)))?)([-+=.)])")


@dataclass(frozen=True)
class CardFacts:
    """What a card says besides the manifests.

    Args:
        notices: NOTICE and licence files of the model, by name.
        terms: what its licence asks for; None: it is not known.
        repository: `OWNER/NAME` on the hub.
        languages: codes of the model's languages, as its base says them.
    """

    notices: Mapping[str, bytes]
    terms: Terms | None = None
    repository: str = NOT_PUSHED
    languages: tuple[str, ...] = ()


def render_card(manifests: Sequence[Manifest], facts: CardFacts) -> bytes:
    """Render the card of one model's bundles.

    Args:
        manifests: manifest of each bundle, at least one, in the order of the table.
        facts: what else is known.
    """
    first, terms = manifests[0], facts.terms
    titles = [registry.get(each.target).title for each in manifests]
    # The demo has turns, to look like the real models, and knows nothing but tales.
    chat = bool((first.chat or {}).get("turns")) and first.model.name != DEMO
    pte = next((each.artifact for each in manifests if each.target == "executorch"), "")
    tokenizer = str(first.tokenizer["file"])
    text = _template().render(
        header=_header(manifests, facts),
        name=first.model.name,
        titles=_listed(titles),
        base=_base(first),
        version=first.created_with.get("llama-export", ""),
        checked=all("golden.json" in each.files for each in manifests),
        artifacts=[_artifact(each) for each in manifests],
        targets=[each.target for each in manifests],
        calibrations=list(dict.fromkeys(filter(None, map(_calibration, manifests)))),
        notes=first.model.notes,
        repository=facts.repository,
        short=facts.repository.rpartition("/")[2],
        chat=chat,
        verb="chat" if chat else "generate",
        rest="" if chat else ' --prompt "Once upon a time"',
        pte=pte,
        tokenizer=tokenizer,
        plain=all(map(_PLAIN.fullmatch, filter(None, (pte, tokenizer)))),
        prefix_ids=_prefix_ids(first),
        first_tokens=len(_prefix_ids(first)),
        terms=terms,
        licence=terms.licence if terms else "",
        notice_lines=facts.notices.get(NOTICE_NAME, b"").decode(errors="replace").splitlines(),
        agreements=[name for name in sorted(facts.notices) if name != NOTICE_NAME],
    )
    return text.encode("utf-8")


def _header(manifests: Sequence[Manifest], facts: CardFacts) -> str:
    """Return the YAML that the hub reads."""
    from huggingface_hub import ModelCardData

    first, terms = manifests[0], facts.terms
    recipes = [str(each.quantization["recipe"]) for each in manifests]
    targets = [each.target for each in manifests]
    base = _base(first)
    data: dict[str, Any] = {}
    if base and not set(recipes) & set(_FLOATS):
        data["base_model_relation"] = "quantized"
    if terms and terms.licence == "other":
        agreements = [name for name in sorted(facts.notices) if name != NOTICE_NAME]
        data["license_name"] = "other"
        data["license_link"] = agreements[0] if agreements else NOTICE_NAME
    card = ModelCardData(
        base_model=base,
        language=list(facts.languages) or None,
        library_name=_LIBRARIES.get(targets[0], targets[0]),
        license=terms.licence if terms else None,
        pipeline_tag="text-generation",
        tags=list(dict.fromkeys(["llama-export", *targets, *recipes, "llama"])),
        **data,
    )
    return str(card.to_yaml(line_break="\n"))


def _base(manifest: Manifest) -> str | None:
    """Return the hub's id of what was converted; None: it did not come from there."""
    adapters = [each.hub_id for each in manifest.model.adapters]
    ids = adapters if adapters else [manifest.model.hub_id]
    return ids[0] if len(ids) == 1 and ids[0] and "/" in ids[0] else None


def _artifact(manifest: Manifest) -> dict[str, Any]:
    """Return a line of the table."""
    said = manifest.quantization
    size_bytes = sum(
        entry.size_bytes
        for name, entry in manifest.files.items()
        if name.partition("/")[0].startswith(manifest.artifact)
    )
    group = said["group_size"]
    return {
        "folder": manifest.target,
        "title": registry.get(manifest.target).title,
        "artifact": manifest.artifact,
        "size": format_bytes(size_bytes),
        "weights": said["recipe"] if group is None else f"{said['recipe']} in groups of {group}",
        "bits": f"{said['bits_per_weight']:.2f}",
        "context": manifest.spec.max_context,
    }


def _calibration(manifest: Manifest) -> str:
    """Describe in a line what the codes were chosen by; empty: by the weights alone, or unsaid."""
    said = manifest.quantization.get("calibration")
    if not said:
        return ""
    return (
        f"Quality {_as_text(quality_and_method(said['method']))}: codes were fitted to what flows "
        f"through the model on {said['tokens']} tokens of calibration text (SHA-256 of the ids: "
        f"`{said['ids_sha256'][:16]}`)."
    )


def _prefix_ids(manifest: Manifest) -> list[int]:
    """Return the tokens that begin a text, which genai and ExecuTorch's runner have to be told."""
    bos = manifest.tokenizer["bos_token_id"]
    said = manifest.tokenizer.get("prefix_token_ids", [] if bos is None else [bos])
    return [int(each) for each in said]


def _listed(words: Sequence[str]) -> str:
    """Write `A, B and C`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _as_text(text: str) -> str:
    """Write a text of anybody's so that it is no markup; a link or an address in it is code."""
    parts = _BOUNDARY.split(printable(text, keep=""))
    whole = "".join(f"`{part}`" if _LINK.search(part) else _escaped(part) for part in parts)
    return _BEGINNING.sub(r"\1\\\2", whole)


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _as_code(name: str) -> str:
    """Write a path as code where it is a plain name, else as text: code cannot be escaped."""
    return f"`{name}`" if _PLAIN.fullmatch(name) else _as_text(name)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["text"] = _as_text
    environment.filters["code"] = _as_code
    source = files(__package__).joinpath("card.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(source)
