"""What `/v1/models` says of a bundle: OpenAI's four keys, and what the artifact is.

It knows manifests; it does not know HTTP.
"""

from __future__ import annotations

from llama_export.generation.defaults import ANSWER_TOKENS, COMPLETION_TOKENS
from llama_export.serving.catalogue import Served, total_bytes
from llama_export.serving.settings import ServerSettings

_DRAWING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def describe(served: Served, settings: ServerSettings) -> dict[str, object]:
    """Return a bundle as an object of `/v1/models`.

    `meta` is ours: which artifact answers, how many tokens a conversation and an answer may have,
    and how the model wants its tokens drawn.

    Args:
        served: the bundle.
        settings: how the server answers.
    """
    session, manifest = served.session, served.manifest
    usual = ANSWER_TOKENS if session.for_chat else COMPLETION_TOKENS
    meta = {
        "target": manifest.target,
        "recipe": str(manifest.quantization.get("recipe", "")),
        "size_bytes": total_bytes([manifest]),
        "context": session.max_context,
        "for_chat": session.for_chat,
        "runs_in": session.substitute_runtime or None,
        "max_tokens": {"usual": min(usual, settings.max_tokens), "most": settings.max_tokens},
        "drawing": {name: getattr(session.sampling, name) for name in _DRAWING},
    }
    return {
        "id": served.id,
        "object": "model",
        "created": served.created,
        "owned_by": "llama-export",
        "meta": meta,
    }
