"""Guides over each kind of tokenizer: what they let through, byte for byte, and what is refused."""

from __future__ import annotations

import functools
import json
import random
import threading
from collections.abc import Sequence

import jsonschema
import numpy as np
import pytest
from artifacts.demo_bundle import demo_bundle
from artifacts.json_tokenizers import KINDS, json_bytes
from artifacts.random_schemas import random_schema
from artifacts.sentencepieces import trained
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import llama_export
from llama_export import Grammar, Sampling
from llama_export.errors import BackendUnavailableError, UsageError
from llama_export.generation import structured
from llama_export.generation.decoding import Guide
from llama_export.generation.grammar import MOST_CHARACTERS, ollama_grammar, requested_grammar
from llama_export.generation.schema_faults import place_of_fault
from llama_export.generation.structured import GrammarCompiler, check_grammar
from llama_export.generation.text_session import TextSession
from llama_export.tokenizer.json_tokenizer import JsonTokenizer
from llama_export.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from llama_export.tokenizer.tokenizer import Tokenizer

pytest.importorskip("llguidance", reason="needs the structured extra")
__all__ = ["demo_bundle"]

# Whose tokens are bytes; those of a word-level one are not enough to write any text.
WRITERS = ("tiktoken", "sentencepiece", "sentencepiece without blanks", *KINDS)
WRITERS = tuple(kind for kind in WRITERS if kind not in ("unigram", "word level"))
TEXT = {"alphabet": 'abeghiknrt 1"{}\\\u00e9\u4e2d\U0001f600', "min_size": 1, "max_size": 12}


@pytest.fixture(scope="module")
def make(small):
    @functools.cache
    def made(kind: str) -> Tokenizer:
        if kind == "tiktoken":
            return small
        if kind.startswith("sentencepiece"):
            removes = "without" in kind
            return SentencePieceTokenizer.from_bytes(trained(removes_blanks=removes))
        return JsonTokenizer.from_bytes(json_bytes(kind))

    return made


@pytest.fixture(scope="module")
def pieces_of(make):
    @functools.cache
    def read(kind: str) -> dict[int, bytes]:
        decoder = make(kind).stream_decoder(continues=True)
        return {each: decoder.bytes_of(each) for each in range(make(kind).vocab_size)}

    return read


@pytest.fixture(scope="module")
def compiler(make):
    @functools.cache
    def made(kind: str) -> GrammarCompiler:
        tokenizer = make(kind)
        return GrammarCompiler(tokenizer, stops_of(tokenizer), range(tokenizer.vocab_size))

    return made


def stops_of(tokenizer: Tokenizer) -> list[int]:
    return [next(reversed(tokenizer.special_tokens.values()))]


def allowed_by(guide: Guide, tokenizer: Tokenizer) -> set[int]:
    logits = np.zeros(tokenizer.vocab_size, dtype=np.float32)
    found = guide.look(logits)
    assert set(np.unique(found)) <= {0, -np.inf}
    assert not logits.any()  # the given ones stay
    return set(np.flatnonzero(found == 0).tolist())


def one_of(texts: Sequence[str]) -> Grammar:
    """Ask for one of some texts, each character by its number."""
    spelt = ["".join(f"\\x{{{ord(letter):x}}}" for letter in text) for text in texts]
    return Grammar.regex("|".join(f"({each})" for each in spelt))


# What an id stands for.


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["tiktoken", "sentencepiece", *KINDS]), st.data())
def test_the_bytes_of_tokens_are_those_of_the_text_that_they_make(make, pieces_of, kind, data):
    tokenizer, pieces = make(kind), pieces_of(kind)
    known = [each for each, piece in pieces.items() if piece]
    ids = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=12))
    if kind in ("unigram", "word level"):  # their decoders drop a first blank
        ids = [known[0], *ids]
    joined = b"".join(pieces[each] for each in ids)
    try:
        expected = joined.decode("utf-8")
    except UnicodeDecodeError:
        assume(False)
    fresh = tokenizer.stream_decoder(continues=True)
    text = "".join(fresh.push(each) for each in ids) + fresh.flush()
    assert text == expected or text == expected.removeprefix(" ")
    assert len(known) > 3


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(WRITERS), st.lists(st.text(**TEXT), min_size=1, max_size=4), st.randoms())
def test_a_mask_has_the_tokens_that_go_on_with_a_text(
    make, pieces_of, compiler, kind, texts, source
):
    """The oracle is written out: a token goes on where one of the texts does."""
    tokenizer = make(kind)
    special, stops = set(tokenizer.special_tokens.values()), set(stops_of(tokenizer))
    wanted = [text.encode("utf-8") for text in texts]
    guide = compiler(kind).guide(one_of(texts))
    pieces = {each: piece for each, piece in pieces_of(kind).items() if each not in special}
    written = b""
    ids = []
    while not guide.is_over:
        assert guide.is_whole == (written in wanted)
        expected = {
            each
            for each, piece in pieces.items()
            if piece and any(text.startswith(written + piece) for text in wanted)
        }
        found = allowed_by(guide, tokenizer)
        assert (found & special == stops) == (written in wanted)
        next_bytes = {
            text[len(written)]
            for text in wanted
            if text.startswith(written) and len(text) > len(written)
        }
        if len(next_bytes) > 1 or written in wanted:
            assert found - special == expected
        else:  # where there is no choice, it is the tokens that the tokenizer would write
            assert found - special <= expected
        goes_on = sorted(found - special)
        assert goes_on
        ids.append(source.choice(goes_on))
        written += pieces[ids[-1]]
        guide.take(ids[-1])
    assert written in wanted
    fresh = tokenizer.stream_decoder(continues=True)
    text = "".join(fresh.push(each) for each in ids) + fresh.flush()
    assert text.encode("utf-8") == written


def test_special_stop_and_missing_tokens_are_never_text(make):
    tokenizer = make("distilled")
    think = next(
        each for each in range(tokenizer.vocab_size) if tokenizer.token_name(each) == "<think>"
    )
    letter = tokenizer.encode("a", continues=True)[0]
    anything = Grammar.regex("(?s:.*)")
    free = GrammarCompiler(tokenizer, [1], range(tokenizer.vocab_size)).guide(anything)
    found = allowed_by(free, tokenizer)
    assert {think, letter, 1} <= found
    assert found & set(tokenizer.special_tokens.values()) == {1}
    drawable = [each for each in range(tokenizer.vocab_size) if each != letter]
    bound = GrammarCompiler(tokenizer, [1, think], drawable).guide(anything)
    bound.take(tokenizer.encode("b", continues=True)[0])
    assert found - allowed_by(bound, tokenizer) == {letter}
    # As a stop token it ends the text, and so may come only where the text may end.
    strict = GrammarCompiler(tokenizer, [1, think], drawable).guide(Grammar.regex("(?s:.)+x"))
    assert not allowed_by(strict, tokenizer) & {1, think, letter}


def test_what_no_token_can_write_is_an_error(make):
    tokenizer = make("word level")
    guide = GrammarCompiler(tokenizer, [], range(tokenizer.vocab_size)).guide(Grammar.regex("xyz"))
    with pytest.raises(UsageError, match="no token of this model goes on"):
        guide.look(np.zeros(tokenizer.vocab_size, dtype=np.float32))


def test_rules_name_special_tokens_and_llama_cpp_s_rules_are_read(make, compiler):
    tokenizer = make("tiktoken")
    tag = tokenizer.special_tokens["<|python_tag|>"]
    guide = compiler("tiktoken").guide(Grammar.rules('start: <|python_tag|> "a"'))
    assert allowed_by(guide, tokenizer) == {tag}
    guide.take(tag)
    assert allowed_by(guide, tokenizer) == {ord("a")}
    gbnf = compiler("tiktoken").guide(Grammar.rules('root ::= "a" digit\ndigit ::= [0-9]'))
    gbnf.take(ord("a"))
    assert allowed_by(gbnf, tokenizer) == {*range(ord("0"), ord("9") + 1)}


# What is refused.


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        (lambda: Grammar.regex("(a"), "unclosed group"),
        (lambda: Grammar.regex("(?=a)b"), "look-ahead"),
        (lambda: Grammar.rules("start: b"), 'at 1\\(8\\): unknown name: "b"'),
        (lambda: Grammar.rules("root ::= b"), "Rule 'b' not found"),
        (lambda: Grammar.rules('root ::= "'), "Unexpected end"),
        (lambda: Grammar.rules('begin: "a"'), "no start rule"),
        (lambda: Grammar.regex(" "), "is empty"),
        (lambda: Grammar.regex(3), "expected a text"),
        (lambda: Grammar.regex("\ud800"), "lone surrogate"),
        (lambda: Grammar.regex("a" * (MOST_CHARACTERS + 1)), "characters, expected at most"),
        (lambda: Grammar.schema([]), "expected an object"),
        (lambda: Grammar.schema(False), "expected an object"),
        (lambda: Grammar.schema({"enum": [{1}]}), "expected values of JSON"),
        (lambda: Grammar.schema({1: 2}), "expected texts as keys"),
        (lambda: Grammar.schema({"minimum": float("nan")}), "no number of JSON"),
        (lambda: Grammar.schema({"type": "text"}), "Invalid type: text"),
        (lambda: Grammar.schema({"not": {}}), "Unimplemented keys"),
        (lambda: Grammar.schema({"type": "integer", "minimum": 2, "maximum": 1}), "Unsatisfiable"),
        (lambda: Grammar.schema({"$ref": "http://example.invalid/x"}), "does not fetch"),
        (
            lambda: Grammar.schema({"properties": {"a/b": {"anyOf": [True, {"format": "odd"}]}}}),
            "at /properties/a~1b/anyOf/1: Unknown format: odd",
        ),
    ],
)
def test_what_cannot_be_followed_is_refused_before_anything_is_loaded(grammar, message):
    with pytest.raises(UsageError, match=message):
        check_grammar(grammar())


def test_a_schema_that_holds_itself_or_too_much_is_refused_at_once():
    endless: list[object] = []
    endless.append(endless)
    doubled: dict[str, object] = {"type": "string"}
    for _ in range(60):
        doubled = {"properties": {"a": doubled, "b": doubled}}
    for schema in ({"enum": endless}, doubled):
        with pytest.raises(UsageError, match="more than 20000 values or 64 levels"):
            Grammar.schema(schema)


@pytest.mark.parametrize("pattern", ["a{1000000}", "((a?){1000}a{1000})", "([a-z]{1,500}){1,500}"])
def test_a_grammar_that_costs_too_much_ends_in_an_error(make, compiler, pattern):
    tokenizer = make("tiktoken")
    guide = compiler("tiktoken").guide(Grammar.regex(pattern))

    def write() -> None:
        for _ in range(1000):
            guide.take(min(allowed_by(guide, tokenizer)))

    with pytest.raises(UsageError, match="cannot be followed any further"):
        write()


def test_the_place_of_a_fault_is_found_behind_a_reference():
    schema = {
        "properties": {"a": {"$ref": "#/$defs/k"}, "b": {"type": "integer"}},
        "$defs": {"k": {"items": {"type": "string", "pattern": "(?=a)"}}},
    }
    with pytest.raises(UsageError, match=r"at /\$defs/k/items: regex parse error"):
        check_grammar(Grammar.schema(schema))
    assert place_of_fault('{"items": {}}', lambda text: "") == ""
    assert place_of_fault('{"items": {}}', lambda text: "wrong" if "items" in text else "") == ""
    many = json.dumps({"properties": {str(each): {} for each in range(1000)}})
    assert place_of_fault(many, lambda text: "wrong" if "properties" in text else "") == ""


def test_without_the_library_a_guide_is_refused_with_its_extra(make, monkeypatch):
    monkeypatch.setattr(structured.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="needs llguidance") as refused:
        GrammarCompiler(make("tiktoken"), [], range(5)).guide(Grammar.any_object())
    assert "llama-export[structured]" in refused.value.hint


# What a request asks for.


def test_requests_of_both_protocols():
    schema = {"type": "array"}
    expected = Grammar.schema(schema)
    nested = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    flat = {"type": "json_schema", "name": "x", "strict": True, "schema": schema}
    assert requested_grammar(nested) == requested_grammar(flat) == expected
    assert requested_grammar({"type": "json_object"}) == Grammar.any_object()
    assert requested_grammar(None) is requested_grammar({"type": "text"}) is None
    for odd in (
        "json",
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {}},
        3,
    ):
        with pytest.raises(UsageError, match="the form: expected a type"):
            requested_grammar(odd)
    assert ollama_grammar("json") == Grammar.any_object()
    assert ollama_grammar(schema) == expected
    assert ollama_grammar("") is ollama_grammar(None) is None
    with pytest.raises(UsageError, match="JSON schema"):
        ollama_grammar("xml")


# A session that obeys.


@pytest.fixture(scope="module")
def opened(demo_bundle) -> TextSession:
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    return llama_export.load(demo_bundle, threads=1)


@pytest.fixture
def session(opened) -> TextSession:
    opened.rewind(0)
    return opened.fork()


CAT = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "lives": {"enum": [7, 9]}},
    "required": ["name", "lives"],
    "additionalProperties": False,
}


def test_a_schema_an_expression_and_rules_are_obeyed(session):
    cat = session.generate("The cat", schema=CAT, sampling=Sampling(seed=1))
    jsonschema.validate(json.loads(cat.text), CAT)
    assert cat.stats.stop_reason == "complete"
    answer = session.generate("Was he?", schema=Grammar.regex("yes|no"))
    assert answer.text in ("yes", "no")
    ruled = session.generate("Tell me.", schema=Grammar.rules('start: "I say " /[0-9]{3}/'))
    assert ruled.text.startswith("I say ")
    assert len(ruled.text) == 9
    reply = session.chat([{"role": "user", "content": "A cat"}], schema=CAT, max_tokens=200)
    jsonschema.validate(json.loads(reply.text), CAT)


def test_a_guide_of_ones_own_is_the_session_s(session):
    text = session.generate("The cat", guide=session.guide(CAT), max_tokens=200).text
    jsonschema.validate(json.loads(text), CAT)
    with pytest.raises(UsageError, match="a schema and a guide"):
        session.generate("The cat", guide=session.guide(Grammar.any_object()), schema=CAT)


def test_a_text_that_is_cut_says_so_and_obeys_so_far(session):
    cut = session.generate("The cat", schema=CAT, max_tokens=4)
    assert cut.stats.stop_reason == "length"
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut.text)
    assert cut.text.startswith("{")


def test_a_grammar_is_compiled_once_for_a_session_and_its_forks(session, monkeypatch):
    compiled = []
    form = structured._library_form
    monkeypatch.setattr(
        structured, "_library_form", lambda grammar: compiled.append(grammar) or form(grammar)
    )
    unusual = Grammar.regex("unusual|rare")
    texts = [each.generate("A", schema=unusual).text for each in (session, session.fork(), session)]
    assert set(texts) <= {"unusual", "rare"}
    assert compiled == [unusual]
    for each in range(structured._MOST_KEPT):
        session.guide(Grammar.regex(f"other{each}"))
    session.guide(unusual)
    assert compiled.count(unusual) == 2  # no more are kept than the bound says


def test_threads_share_what_is_compiled_and_disturb_nobody(session):
    expected = session.generate("The cat", schema=CAT, sampling=Sampling(seed=3)).text
    found: list[str] = []

    def run(own: TextSession) -> None:
        found.append(own.generate("The cat", schema=CAT, sampling=Sampling(seed=3)).text)

    session.rewind(0)
    threads = [threading.Thread(target=run, args=(session.fork(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


@pytest.mark.parametrize("sampling", [Sampling(temperature=0), Sampling(seed=1), Sampling(seed=2)])
def test_a_guide_that_allows_all_changes_no_token(session, sampling):
    anything = Grammar.regex("(?s:.*)")
    for prompt in ("Once upon a time", "The king", "Then the wolf"):
        session.rewind(0)
        free = session.generate(prompt, sampling=sampling, max_tokens=30)
        session.rewind(0)
        guided = session.generate(prompt, sampling=sampling, max_tokens=30, schema=anything)
        assert guided.token_ids == free.token_ids
        assert guided.text == free.text


def obey(session: TextSession, seeds: range, prompts: Sequence[str]) -> None:
    """Write by random schemas; each text is whole, valid JSON, and what its schema asks for."""
    for seed in seeds:
        schema = random_schema(seed)
        done = session.generate(
            random.Random(seed).choice(prompts),
            schema=schema,
            sampling=Sampling(seed=seed),
            max_tokens=800,
        )
        assert done.stats.stop_reason == "complete", (seed, done.text)
        jsonschema.validate(json.loads(done.text), schema, cls=jsonschema.Draft202012Validator)


PROMPTS = ("Once upon a time", "{", "The king said: \u00ab", "12, 13, 14,", "Dear Sir,\n\n")


def test_random_schemas_are_obeyed(session):
    obey(session, range(12), PROMPTS)


@pytest.mark.slow
def test_a_thousand_random_schemas_are_obeyed(session):
    obey(session, range(1000), PROMPTS)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "executorch"])
def test_a_real_model_obeys_random_schemas(real_bundles, target):
    with llama_export.load(real_bundles / target) as session:
        obey(session, range(5000, 5030), PROMPTS)


def test_a_whole_vocabulary_of_llama_3_is_followed(llama3):
    compiler = GrammarCompiler(llama3, [llama3.eos_token_id], range(llama3.vocab_size))
    guide = compiler.guide(Grammar.schema(CAT))
    logits = np.zeros(llama3.vocab_size, dtype=np.float32)
    for token in llama3.encode('{"name": "Tom", "lives": 9}'):
        assert guide.look(logits)[token] == 0
        guide.take(token)
    assert guide.is_over
