"""Whether a model's licence allows a push: which licence it is, and that its terms are met.

It asks the files of a bundle, the pages of what the model was made of, and the person, in this
order. What a licence's terms are is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llama_export.bundle.model_info import AdapterInfo
from llama_export.bundle.root_files import CARD_NAME, PERSONAL
from llama_export.errors import UsageError
from llama_export.sources.terms import Terms, chosen_terms, require_spelling, said_terms, terms_of
from llama_export.sources.upload import BaseCard

AskCard = Callable[[str], BaseCard]
"""Returns what the page of a model on the hub says, by its hub id."""

_ASK = "ask whoever made {}, and pass --licence ID"


@dataclass(frozen=True)
class Licensed:
    """A model, as far as its licence goes.

    Args:
        name: name of the model.
        hub_id: repository that it came from; None: a local one.
        notices: NOTICE and licence files by name.
        card: card that a person wrote for it; None: nobody did.
        adapters: adapters that were merged into it.
    """

    name: str
    hub_id: str | None
    notices: Mapping[str, bytes]
    card: bytes | None = None
    adapters: tuple[AdapterInfo, ...] = ()


def notices_among(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return NOTICE and licence files."""
    return {
        name: content
        for name, content in files.items()
        if PERSONAL.fullmatch(name) and name.casefold() != CARD_NAME.casefold()
    }


def require_terms(
    hub_id: str, licence: str | None, model: Licensed, ask: AskCard
) -> tuple[Terms, BaseCard]:
    """Return the licence's terms once they are met, and what the base model's page says.

    Args:
        hub_id: where the model goes, `OWNER/NAME`.
        licence: identifier that the user gave; None: none was given.
        model: the model, as far as its licence goes.
        ask: returns what a page of the hub says.

    Raises:
        UsageError: the licence is not known, or does not allow the name, or its text is missing;
            or that of an adapter is not known, or another one.
    """
    if licence is not None:
        require_spelling(licence)
    known, base = terms_of(model.notices), BaseCard()
    if known is not None:  # what refuses the name needs nobody's answer
        known.require_name(hub_id)
    if model.hub_id is not None and "/" in model.hub_id:
        base = ask(model.hub_id)
    terms = chosen_terms(known, licence) or said_terms(base.licence)
    if terms is None and model.card is not None:
        terms = said_terms(_licence_in(model.card))
    if terms is None:
        message = f"the licence of {model.name} is not known: no file of the model says it"
        raise UsageError(message, _ASK.format("the model"))
    terms.require_name(hub_id)
    terms.require_agreement(model.notices)
    for adapter in model.adapters:
        _require_of_adapter(adapter, terms, licence, hub_id, ask)
    return terms, base


def _require_of_adapter(
    adapter: AdapterInfo, terms: Terms, licence: str | None, hub_id: str, ask: AskCard
) -> None:
    """Refuse where somebody else's adapter may ask for more than the model below it does."""
    if adapter.hub_id is None:
        return
    own = said_terms(ask(adapter.hub_id).licence)
    if own is not None:
        own.require_name(hub_id)
    if licence is None and own != terms:
        said = "its page names none" if own is None else f"its page says {own.licence}"
        message = f"the adapter {adapter.name} may be under another licence than the model, "
        message += f"{terms.licence}: {said}"
        raise UsageError(message, _ASK.format("it"))


def _licence_in(card: bytes) -> str | None:
    """Return the licence that the YAML of somebody's card names."""
    from huggingface_hub import ModelCard

    try:
        said = ModelCard(card.decode("utf-8"), ignore_metadata_errors=True).data.get("license")
    except (ValueError, UnicodeDecodeError):
        return None
    return said if isinstance(said, str) else None
