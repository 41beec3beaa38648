"""What a model's licence is called on the hub, and what it asks of whoever passes the model on.

It reads licence files that an export copied or wrote, and gives no legal advice. It knows nothing
of repositories.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llama_export.errors import UsageError
from llama_export.sources.licence import DEMO_TITLE, NOTICE_NAME
from llama_quantize.printable import shown_name

_AGREEMENT = re.compile(r"LICEN[SC]E([._-].*)?", re.IGNORECASE)
_META_NOTICE = re.compile(r"^(?:Meta )?Llama (\d(?:\.\d)?) is licensed under", re.MULTILINE)
_META_TITLE = re.compile(
    r"^[^\w\n]*(?:META )?LLAMA (\d(?:\.\d)?) COMMUNITY LICENSE AGREEMENT", re.MULTILINE
)
_APACHE = re.compile(r"^\W*Apache License\W+Version 2\.0", re.IGNORECASE)
# Words alone: how a text is broken into lines, and how it quotes, differs from file to file.
_MIT_TITLE = re.compile(r"(the )?mit license( mit)?")
_MIT_HEAD = re.compile(r"((the )?mit license ?(mit ?)?)?(copyright .{0,500})?")
_MIT_WORDS = """
permission is hereby granted free of charge to any person obtaining a copy of this software and
associated documentation files the software to deal in the software without restriction including
without limitation the rights to use copy modify merge publish distribute sublicense and or sell
copies of the software and to permit persons to whom the software is furnished to do so subject to
the following conditions the above copyright notice and this permission notice shall be included in
all copies or substantial portions of the software the software is provided as is without warranty
of any kind express or implied including but not limited to the warranties of merchantability
fitness for a particular purpose and noninfringement in no event shall the authors or copyright
holders be liable for any claim damages or other liability whether in an action of contract tort or
otherwise arising from out of or in connection with the software or the use or other dealings in the
software
"""
# Section 1.b.i: what the name of a model begins with that was made of Meta's; 2 asks for none.
_NAME_START = {"2": "", "3": "Llama 3"}
_LLAMA = re.compile(r"llama(\d(?:\.\d)?)")
_ID = re.compile(r"[a-z0-9][a-z0-9.+-]{0,59}")
# The hub's own list, in its Licenses page of November 2026.
_KNOWN_WORDS = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m
bigscience-bloom-rail-1.0 bigscience-openrail-m bsd bsd-2-clause bsd-3-clause
bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0
epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0
gpl-3.0 grok2-community h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2
llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1
openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""
_LEAST_LETTERS = 3
_SEPARATORS = re.compile(r"[-_. ]")


@dataclass(frozen=True)
class Terms:
    """A licence, as far as a publisher must know it.

    Args:
        licence: identifier of the hub, such as `apache-2.0` or `llama3.2`.
        name_start: what a repository's name has to begin with; empty: nothing.
        display: words that must be displayed; empty: none.
        agreement: title of the agreement that must go along; empty: none must.
        address: where that agreement can be read.
    """

    licence: str
    name_start: str = ""
    display: str = ""
    agreement: str = ""
    address: str = ""

    def require_name(self, repository: str) -> None:
        """Refuse a name that the licence does not allow.

        Args:
            repository: `OWNER/NAME`.

        Raises:
            UsageError: the name begins otherwise.
        """
        owner, _, name = repository.rpartition("/")
        if (
            _SEPARATORS.sub("", name)
            .casefold()
            .startswith(_SEPARATORS.sub("", self.name_start).casefold())
        ):
            return
        start = self.name_start.replace(" ", "-")
        message = (
            f"{repository} cannot be the name: the {self.agreement} wants the name of a model that "
            f'is made of this one to begin with "{self.name_start}", and asks for '
            f'"{self.display}" to be displayed, which the model card does'
        )
        raise UsageError(message, f"choose such a name, say {owner}/{start}-{name}")

    def require_agreement(self, files: Mapping[str, bytes]) -> None:
        """Refuse files without the agreement that must go along.

        Args:
            files: files at the root of what is passed on, by name.

        Raises:
            UsageError: no licence is among them.
        """
        if self.agreement and not any(_AGREEMENT.fullmatch(name) for name in files):
            message = (
                f"the {self.agreement} wants a copy of itself passed on with the model, and there "
                f"is no LICENSE beside it"
            )
            raise UsageError(
                message, f"save it from {self.address} as LICENSE at the output's root"
            )


def terms_of(notices: Mapping[str, bytes]) -> Terms | None:
    """Recognise a licence by the files of a bundle; None: none is known, or they say several.

    Meta's asks for the most, so it counts whatever else there is. A file that is not recognised may
    say anything, and so leaves the licence open.

    Args:
        notices: NOTICE and licence files by name.
    """
    texts = {name: content.decode("utf-8", errors="replace") for name, content in notices.items()}
    notice = texts.get(NOTICE_NAME, "")
    agreements = [text for name, text in sorted(texts.items()) if _AGREEMENT.fullmatch(name)]
    if found := _META_NOTICE.search(notice):
        return _meta_terms(found[1])
    if notice.startswith(DEMO_TITLE):
        return Terms("apache-2.0")
    versions = {found[1] for text in agreements for found in _META_TITLE.finditer(text)}
    if versions:
        return _meta_terms(versions.pop()) if len(versions) == 1 else None
    licences = {_open_licence(text) for text in agreements}
    only = licences.pop() if len(licences) == 1 else None
    return Terms(only) if only else None


def said_terms(licence: str | None) -> Terms | None:
    """Return the terms of a licence that a page names; None: it names none that can be understood.

    Args:
        licence: what the page says, in any case of letters.
    """
    name = (licence or "").strip().casefold()
    return chosen_terms(None, name) if _ID.fullmatch(name) else None


def require_spelling(licence: str) -> None:
    """Refuse what is nearly an identifier of the hub; one that is like none may be a new one.

    Raises:
        UsageError: it is nearly one.
    """
    known = _KNOWN_WORDS.split()
    if licence in known or _LLAMA.fullmatch(licence):
        return
    near = [each for each in known if _bare(each).startswith(_bare(licence))]
    if near and len(licence) >= _LEAST_LETTERS:
        best = max(near, key=lambda each: (-len(each), each))  # of several versions, the latest
        message = f"--licence {shown_name(licence)} is no identifier of a licence on the hub"
        raise UsageError(message, f"did you mean {best}? `other` stands for one without any")


def _bare(licence: str) -> str:
    """Return an identifier as careless fingers type it."""
    return re.sub(r"[-_. ]|v(?=\d)", "", licence.casefold())


def chosen_terms(known: Terms | None, licence: str | None) -> Terms | None:
    """Return the terms of a licence that a user names, or else those that are known.

    Args:
        known: terms of the files; None: they do not tell.
        licence: identifier that the user gave; None: none was given.

    Raises:
        UsageError: it is no identifier, or another licence than the files'.
    """
    if licence is None:
        return known
    if not _ID.fullmatch(licence):
        message = f"--licence {licence!r} is no identifier of a licence on the hub"
        raise UsageError(message, "give one such as apache-2.0, mit, llama3.2 or other")
    if known is not None and licence != known.licence:
        message = f"--licence {licence}: the model's own files say {known.licence}"
        raise UsageError(message, "leave --licence out")
    if known is None and (version := _LLAMA.fullmatch(licence)):
        return _meta_terms(version[1])
    return known or Terms(licence)


def _open_licence(text: str) -> str | None:
    """Recognise a licence that asks for no more than its own text; None: it is another one."""
    if _APACHE.match(text):
        return "apache-2.0"
    words = " ".join(re.findall(r"\w+", text)).casefold()
    body = " ".join(_MIT_WORDS.split())
    whole = words.endswith(body) and _MIT_HEAD.fullmatch(words.removesuffix(body).rstrip())
    return "mit" if whole or _MIT_TITLE.fullmatch(words) else None


def _meta_terms(version: str) -> Terms:
    title = f"Llama {version} Community License Agreement"
    place = f"llama{version.replace('.', '_')}" if version != "2" else "llama2"
    display = {"2": "", "3": "Built with Meta Llama 3"}.get(version, "Built with Llama")
    return Terms(
        f"llama{version}",
        _NAME_START.get(version, "Llama"),
        display,
        title,
        f"https://www.llama.com/{place}/license/",
    )
