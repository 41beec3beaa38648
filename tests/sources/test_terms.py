"""Which licence the files of a model say, and what becomes of one that a page names."""

from __future__ import annotations

import pytest

from llama_export.errors import UsageError
from llama_export.sources.terms import chosen_terms, said_terms, terms_of

APACHE = (
    b"                                 Apache License\n                           Version 2.0\n"
)
LLAMA_2 = b"LLAMA 2 COMMUNITY LICENSE AGREEMENT\n"
MIT = b"""MIT License

Copyright (c) 2024 Somebody

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""


def licence(**files: bytes) -> str | None:
    terms = terms_of({name.replace("_", "-"): content for name, content in files.items()})
    return terms.licence if terms else None


def test_metas_agreement_counts_wherever_it_stands():
    assert licence(LICENSE=APACHE, LICENSE_llama=LLAMA_2) == "llama2"
    assert licence(LICENSE=b"Of this model\n\n" + LLAMA_2) == "llama2"
    assert licence(LICENSE=LLAMA_2, LICENSE_b=LLAMA_2.replace(b"2", b"3.1")) is None


def test_files_of_several_licences_leave_it_open():
    assert licence(LICENSE=APACHE, LICENSE_b=APACHE) == "apache-2.0"
    assert licence(LICENSE=APACHE, LICENSE_b=MIT) is None
    assert licence(LICENSE=APACHE, LICENSE_b=b"For research alone.") is None


def test_mit_is_its_whole_text_and_nothing_besides():
    assert licence(LICENSE=MIT) == "mit"
    assert licence(LICENSE=MIT[MIT.index(b"Permission") :]) == "mit"
    assert licence(LICENSE=b"MIT License\n") == "mit"
    begun = b"Permission is hereby granted, free of charge, for NON-COMMERCIAL use of the software"
    assert licence(LICENSE=begun) is None
    assert licence(LICENSE=b"MIT License\n\n" + begun) is None
    assert licence(LICENSE=MIT + b"\nNot for commercial use.\n") is None
    assert licence(LICENSE=MIT.replace(b"without restriction", b"for research")) is None


@pytest.mark.parametrize(
    ("said", "licence"),
    [("Apache-2.0", "apache-2.0"), (" MIT ", "mit"), ("Llama3.2", "llama3.2"), ("", None)],
)
def test_a_pages_licence_is_read_in_any_case(said, licence):
    terms = said_terms(said)
    assert (terms.licence if terms else None) == licence


@pytest.mark.parametrize("said", [None, "All rights reserved", "licence: mine"])
def test_what_a_page_says_is_never_blamed_on_the_user(said):
    assert said_terms(said) is None
    with pytest.raises(UsageError, match="no identifier"):
        chosen_terms(None, "All rights reserved")
