"""Requests that are wrong, made by hypothesis: broken HTTP, bodies that are no JSON, wrong fields.

Each case says whether it must be refused. Where that cannot be known, such as of a schema that was
put together by chance, an answer is as good as a refusal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from hypothesis import strategies as st

MOST_TOKENS = 4
_MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT, TEXT, RESPONSE = "/v1/chat/completions", "/v1/completions", "/v1/responses"
OLLAMA_CHAT, OLLAMA_TEXT, SHOW = "/api/chat", "/api/generate", "/api/show"
EMBEDDINGS = "/v1/embeddings"
BASES: Mapping[str, Mapping[str, object]] = {
    CHAT: {"model": "demo", "messages": _MESSAGES, "max_tokens": 1},
    TEXT: {"model": "demo", "prompt": "Once", "max_tokens": 1},
    RESPONSE: {"model": "demo", "input": "Hi", "max_output_tokens": 1},
    OLLAMA_CHAT: {"model": "demo", "messages": _MESSAGES, "options": {"num_predict": 1}},
    OLLAMA_TEXT: {"model": "demo", "prompt": "Once", "options": {"num_predict": 1}},
    SHOW: {"model": "demo"},
    EMBEDDINGS: {"model": "demo", "input": "Hi"},
}
"""A request of each path that reads a body; all but embeddings are answered as they are."""


@dataclass(frozen=True)
class Case:
    """A request, as a client of HTTP sends it.

    Args:
        path: what is asked.
        body: the body.
        must_fail: whether it is certainly wrong.
        method: of HTTP.
        headers: headers beside the length.
    """

    path: str
    body: bytes
    must_fail: bool = True
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


@dataclass(frozen=True)
class Raw:
    """What is sent through a socket.

    Args:
        content: bytes that may be HTTP.
        is_whole: whether an answer must come; else the client gives up after it.
    """

    content: bytes
    is_whole: bool


# Texts that readers of Unicode, of lines, of C and of templates have fallen over.
nasty_text = st.one_of(
    st.text(max_size=12),
    st.text(st.characters(categories=("Cs", "Cc", "Cf", "Co", "Cn")), max_size=6),
    st.sampled_from(
        (
            *("\ud800", "\udfff\ud800", "\x00", "\u202e\u2066", "<|im_end|>", "{{ 7*7 }}"),
            *("\r\n\r\n", "a" * 3000, "\u0301" * 99, "\ufdd0" * 40, "\U0010ffff", "../..", "%n"),
        )
    ),
)
small = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)
anything = st.recursive(
    small | nasty_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(nasty_text, inner, max_size=4),
    max_leaves=8,
)
deep = st.builds(
    lambda depth, leaf: json.loads("[" * depth + leaf + "]" * depth),
    st.integers(1, 60),
    st.sampled_from(["1", "null", '""', "{}"]),
)
texts = st.text(max_size=8)
numbers = st.integers(-10, 10) | st.floats(-10, 10)
objects = st.dictionaries(texts, small, max_size=2)
lists = st.lists(small, max_size=3)
no_text = st.one_of(numbers, st.booleans(), lists, objects, deep)
no_object = st.one_of(texts, numbers, st.booleans(), lists, deep)
no_list = st.one_of(texts.filter(bool), numbers, st.booleans(), objects)
no_flag = st.one_of(texts, numbers, lists, objects, deep)


def no_number(least: float, most: float) -> st.SearchStrategy[object]:
    """Return what is no number of a range."""
    beyond = st.integers(-(10**39), 10**39).filter(lambda value: not least <= value <= most)
    return st.one_of(texts, st.booleans(), lists, objects, beyond)


def no_whole(least: int, most: int) -> st.SearchStrategy[object]:
    """Return what is no whole number of a range."""
    return no_number(least, most) | st.floats(0, 9).filter(lambda value: not value.is_integer())


no_message = st.one_of(
    small.filter(lambda value: value is not None),
    texts,
    lists,
    st.fixed_dictionaries({"content": texts}),
    st.fixed_dictionaries({"role": no_text, "content": texts}),
    st.fixed_dictionaries({"role": st.just("user"), "content": numbers | st.booleans()}),
    st.fixed_dictionaries({"role": st.just("user"), "content": st.lists(numbers, min_size=1)}),
    st.fixed_dictionaries({"role": st.just("user"), "content": st.just("\ud800")}),
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": st.sampled_from((["text"], ["input_text", 5]))}
    ),
    st.fixed_dictionaries({"role": st.just("user")}),
    st.fixed_dictionaries({"role": st.just("user"), "tool_calls": st.just([{}])}),
)
no_messages = no_list | st.just([]) | st.lists(no_message, min_size=1, max_size=3)
no_stop = (
    numbers | st.booleans() | st.just([""]) | st.just(["a"] * 17) | st.just([1]) | st.just([[]])
)
no_choice = texts | numbers | lists | st.sampled_from(["required", {"type": "function"}])
no_tool = st.one_of(
    small.filter(lambda value: value is not None),
    texts,
    st.just({"type": "function", "function": {"name": "a b"}}),
    st.just({"type": "function", "function": {"parameters": {}}}),
    st.just({"type": "function", "function": {"name": "f", "parameters": 5}}),
    st.just({"type": "web_search"}),
)
no_tools = no_list | st.lists(no_tool, min_size=1, max_size=3)
no_schema = st.sampled_from(
    (
        *(5, [], "x", {"type": "colour"}, {"$ref": "#/nowhere"}, {"$ref": "#"}),
        {"type": "string", "pattern": "("},
        {"allOf": [{"pattern": f".*{i}.*"} for i in range(40)]},
        {"type": "object", "properties": {f"p{i}": {} for i in range(3000)}},
    )
)
no_format = st.one_of(
    no_object.filter(lambda value: value != []),
    st.fixed_dictionaries({"type": texts}),
    no_schema.map(lambda schema: {"type": "json_schema", "json_schema": {"schema": schema}}),
)
no_model = no_text | texts.filter(bool).map(lambda name: f"no {name}")
_DRAWING = {
    "temperature": no_number(0, 100),
    "top_p": no_number(1e-9, 1),
    "min_p": no_number(0, 1),
    "top_k": no_whole(0, 2**24),
}
_SHARED = _DRAWING | {
    "model": no_model,
    "stream": no_flag,
    "repetition_penalty": no_number(1e-3, 1e3),
    "seed": no_whole(0, 2**63 - 1),
    "stop": no_stop,
    "frequency_penalty": st.just(0.5) | no_number(-2, 2),
    "logit_bias": st.just({"1": 5}) | no_object,
    "stream_options": no_object | st.just({"include": True}),
}
_OLLAMA = {
    "model": no_model,
    "stream": no_flag,
    "think": st.just(True),
    "format": numbers | st.just("xml") | lists.filter(bool) | no_schema.filter(bool),
    "options": no_object
    | st.sampled_from(sorted(_DRAWING)).flatmap(
        lambda key: st.fixed_dictionaries({key: _DRAWING[key]})
    )
    | st.just({"num_ctx": 10**9})
    | st.just({"what": 1}),
}
WRONG: Mapping[str, Mapping[str, st.SearchStrategy[object]]] = {
    CHAT: _SHARED
    | {
        "messages": no_messages,
        "n": no_whole(1, 16),
        "max_tokens": no_whole(1, MOST_TOKENS),
        "max_completion_tokens": no_whole(1, MOST_TOKENS),
        "logprobs": no_flag,
        "top_logprobs": no_whole(0, 20) | st.just(3),
        "response_format": no_format,
        "chat_template_kwargs": no_object,
        "tools": no_tools,
        "tool_choice": no_choice,
        "functions": st.just([{}]) | no_list,
        "function_call": st.just("f"),
        "modalities": st.just(["audio"]) | texts,
    },
    TEXT: _SHARED
    | {
        "prompt": st.just("") | st.just([]) | numbers | objects | st.just([[]]) | st.just([-1]),
        "n": no_whole(1, 16),
        "max_tokens": no_whole(1, MOST_TOKENS),
        "logprobs": no_whole(0, 20),
        "echo": no_flag | st.just(True),
        "suffix": no_text | st.just("x"),
        "best_of": st.just(5) | texts,
    },
    RESPONSE: _SHARED
    | {
        "input": st.just("") | st.just([]) | numbers | st.lists(no_message, min_size=1),
        "instructions": no_text,
        "max_output_tokens": no_whole(1, MOST_TOKENS),
        "text": no_object | no_format.map(lambda given: {"format": given}),
        "metadata": no_object,
        "truncation": no_text | st.just("auto"),
        "previous_response_id": texts,
        "conversation": texts,
        "background": no_flag | st.just(True),
        "include": no_list | st.just(["reasoning"]),
        "reasoning": st.just({"effort": "low"}),
        "tools": no_tools,
        "tool_choice": no_choice,
    },
    OLLAMA_CHAT: _OLLAMA | {"messages": no_messages, "tools": no_tools},
    OLLAMA_TEXT: _OLLAMA
    | {"prompt": no_text, "suffix": st.just("x"), "raw": no_flag, "system": no_text},
    SHOW: {"model": no_model, "stream": no_flag},
    EMBEDDINGS: {"model": no_model, "input": no_text},
}
"""Values of each parameter that are certainly wrong; null is as good as nothing."""


def to_json(value: object) -> bytes:
    """Return JSON in ASCII, in which lone surrogates stand as well."""
    return json.dumps(value).encode("ascii")


@st.composite
def wrong_fields(draw: st.DrawFn) -> Case:
    """Make a sound request with one or two parameters that are wrong, or that nobody knows."""
    path = draw(st.sampled_from(sorted(BASES)))
    body = dict(BASES[path])
    names = draw(
        st.lists(st.sampled_from(sorted(WRONG[path])), min_size=1, max_size=2, unique=True)
    )
    for name in names:
        body[name] = draw(WRONG[path][name])
    if draw(st.integers(0, 9)) == 0:
        body[draw(nasty_text) + "?"] = draw(anything.filter(lambda value: value is not None))
    if draw(st.booleans()) and "stream" not in names:
        body["stream"] = draw(st.booleans())
    return Case(path, to_json(body))


@st.composite
def odd_fields(draw: st.DrawFn) -> Case:
    """Make a sound request in which some parameters are anything at all."""
    path = draw(st.sampled_from(sorted(BASES)))
    body = dict(BASES[path])
    for name in draw(st.lists(st.sampled_from(sorted(WRONG[path])), max_size=3)):
        body[name] = draw(anything)
    texts_of = {CHAT: "messages", OLLAMA_CHAT: "messages", RESPONSE: "input"}
    if path in texts_of and draw(st.booleans()):
        body[texts_of[path]] = draw(st.lists(_odd_message, min_size=1, max_size=4))
    if path in (CHAT, OLLAMA_CHAT, RESPONSE) and draw(st.booleans()):
        body["tools"] = draw(st.lists(_odd_tool, max_size=3))
    if draw(st.booleans()):
        body |= _with_form(path, draw(_odd_schema))
    return Case(path, to_json(body), must_fail=False)


def _with_form(path: str, schema: object) -> dict[str, object]:
    form = {"type": "json_schema", "name": "x", "schema": schema}
    if path == RESPONSE:
        return {"text": {"format": form}}
    if path == CHAT:
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    return {"format": schema} if path in (OLLAMA_CHAT, OLLAMA_TEXT) else {}


_odd_schema = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "object", "array", "null", "x"]),
            "pattern": st.text(alphabet=r"ab.*+?(){}[]|\^$0123456789,&~", max_size=14),
            "enum": st.lists(small | nasty_text, max_size=3),
            "const": small | nasty_text,
            "format": st.sampled_from(["email", "date", "uuid", "x"]),
            "minLength": st.integers(-1, 10**7),
            "maximum": st.integers(-(10**30), 10**30) | st.floats(allow_nan=False),
            "multipleOf": st.integers(-1, 10**9),
            "minItems": st.integers(-1, 10**7),
            "$ref": st.sampled_from(["#", "#/$defs/a", "http://x/", "\ud800"]),
            "required": st.lists(nasty_text, max_size=2),
        },
    ),
    lambda inner: st.one_of(
        st.builds(lambda key, of: {key: of}, st.sampled_from(["items", "not", "$defs"]), inner),
        st.builds(
            lambda key, of: {key: of},
            st.sampled_from(["allOf", "anyOf", "oneOf", "prefixItems"]),
            st.lists(inner, max_size=3),
        ),
        st.builds(lambda of: {"properties": of}, st.dictionaries(nasty_text, inner, max_size=3)),
    ),
    max_leaves=6,
)
_odd_tool = st.fixed_dictionaries(
    {"type": st.just("function")},
    optional={
        "name": nasty_text | st.just("f"),
        "function": st.fixed_dictionaries(
            {"name": st.sampled_from(["f", "g", "a.b-c"]) | nasty_text},
            optional={"parameters": _odd_schema | anything, "description": nasty_text},
        ),
        "parameters": _odd_schema,
    },
)
_odd_message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | nasty_text},
    optional={
        "content": nasty_text | anything,
        "type": st.sampled_from(["message", "function_call", "function_call_output"]) | nasty_text,
        "tool_calls": st.lists(_odd_tool, max_size=2) | anything,
        "call_id": nasty_text,
        "output": nasty_text | anything,
        "arguments": nasty_text,
        "name": nasty_text,
    },
)


@st.composite
def wrong_bodies(draw: st.DrawFn) -> Case:
    """Make a request whose body is no JSON object, or which is not for its path."""
    path = draw(st.sampled_from(sorted(BASES)))
    whole = to_json(BASES[path])
    kind = draw(st.integers(0, 7))
    if kind == 7:
        beyond = draw(st.sampled_from(["/v1/models/", "/v1/", "/api/", "/", "/health/", "/../"]))
        method = draw(st.sampled_from(["GET", "POST", "HEAD"]))
        odd = quote(draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=9)), safe="/?")
        return Case(f"{beyond}no{odd}", b"", method=method)
    if kind == 0:
        return Case(path, whole[: draw(st.integers(0, len(whole) - 1))])
    if kind == 1:
        return Case(path, whole + draw(st.binary(min_size=1, max_size=8).filter(bytes.strip)))
    if kind == 2:
        return Case(path, to_json(draw(anything.filter(lambda value: not isinstance(value, dict)))))
    if kind == 3:
        at = draw(st.integers(1, len(whole) - 1))
        return Case(
            path,
            whole[:at] + draw(st.sampled_from([b"\xff", b"\x00", b"\xed\xa0\x80"])) + whole[at:],
        )
    if kind == 4:
        depth = draw(st.integers(70, 5000))
        more = draw(
            st.sampled_from([b'"n":NaN', b'"n":1e999', b'"n":' + b"9" * 50, b'"model":"a"'])
        )
        odd = draw(st.sampled_from([more, b'"n":' + b"[" * depth + b"]" * depth]))
        return Case(path, whole[:-1] + b"," + odd + b"}")
    if kind == 5:
        method = draw(st.sampled_from(["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "FOO"]))
        return Case(path, whole, method=method)
    kinds = st.sampled_from(["text/plain", "multipart/form-data", "application/xml", "json", "/"])
    return Case(path, whole, headers={"Content-Type": draw(kinds)})


@st.composite
def raw_requests(draw: st.DrawFn) -> Raw:
    """Make bytes that are not quite HTTP."""
    body = to_json(BASES[TEXT])
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    length = b"Content-Length: %d\r\n" % len(body)
    noise = st.binary(min_size=1, max_size=40)
    kind = draw(st.integers(0, 8))
    if kind == 0:  # a first line that is none
        line = draw(
            st.sampled_from(
                [b"GET", b"GET /", b"GET / HTTP/9.9x", b"\x16\x03\x01\x02", b"/ HTTP/1.1"]
            )
        )
        return Raw(
            line
            + b" "
            + draw(st.binary(max_size=20)).replace(b"\n", b"")
            + b"\x00\r\nHost: a\r\n\r\n",
            True,
        )
    if kind == 1:  # a header that is none
        odd = draw(st.sampled_from([b"no colon", b"a b: c", b": empty", b"a\x00: b", b"x: \x00y"]))
        return Raw(head + odd + b"\r\n" + length + b"\r\n" + body, True)
    if kind == 2:  # a length that is none
        odd = draw(st.sampled_from([b"-1", b"x", b"1, 2", b"0x10", b"9" * 30, b"1 1", b"\xb2"]))
        return Raw(head + b"Content-Length: " + odd + b"\r\n\r\n" + body, odd != b"9" * 30)
    if kind == 3:  # two lengths, or a length and chunks
        other = draw(st.sampled_from([b"Content-Length: 5\r\n", b"Transfer-Encoding: gzip\r\n"]))
        return Raw(head + length + other + b"\r\n" + body, True)
    if kind == 4:  # chunks that are none
        chunk = draw(
            st.sampled_from([b"zz\r\n", b"-5\r\n", b"f" * 30 + b"\r\n", b"5\r\nabcdefgh\r\n"])
        )
        return Raw(
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + draw(noise) + b"\r\n\r\n", False
        )
    if kind == 5:  # a body, or a head, that breaks off
        whole = head + length + b"\r\n" + body
        return Raw(whole[: draw(st.integers(0, len(whole) - 1))], False)
    if kind == 6:  # a head of absurd size
        name = draw(st.sampled_from([b"a", b"Cookie", b"Authorization"]))
        return Raw(
            head + name + b": " + b"x" * draw(st.integers(70_000, 300_000)) + b"\r\n\r\n", False
        )
    if kind == 7:  # a second request that is none, behind one that is
        get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
        return Raw(get * draw(st.integers(1, 5)) + draw(noise) + b"\r\n\r\n", False)
    return Raw(draw(st.binary(max_size=200)), False)
