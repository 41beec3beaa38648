"""The built-in page as a reader has it: in headless Chromium, against a server of the demo."""

from __future__ import annotations

import http.client
import json
import os
import time
from urllib.parse import urlsplit

import pytest
from artifacts.demo_bundle import demo_bundle  # noqa: F401 - a fixture
from artifacts.served import Running, running

from clients import MissingClientError, find_chromium
from llama_export import load
from llama_export.generation.sampling import Sampling
from llama_export.serving.settings import ServerSettings

pytest.importorskip("fcntl", reason="needs pipes as Unix has them")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")
from artifacts.devtools import CTRL, SHIFT, Tab, open_tab

pytestmark = pytest.mark.onnx

LAST = "[...document.querySelectorAll('.turn')].at(-1)"
RESTING = "document.querySelector('#stop').hidden"
READY = "document.title.startsWith('demo')"
WRITING = "document.querySelector('#send').hidden"
HOSTILE = (
    "<img src=x onerror=alert(1)> <script>alert(2)</script> **b** `<i>`\n\n```html\n<b>\n```\n- l"
)


@pytest.fixture(scope="module")
def tab():
    try:
        chromium = find_chromium()
    except MissingClientError as error:
        if os.environ.get("LLAMA_EXPORT_REQUIRE_CLIENTS") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    with open_tab(chromium) as found:
        yield found


@pytest.fixture
def server(demo_bundle):  # noqa: F811
    with running(demo_bundle) as found:
        yield found


@pytest.fixture
def chat_server(server):
    """The demo as if it had been trained to answer: its template is one of a chat model."""
    server.catalogue.served[0].session.for_chat = True
    return server


def visit(tab: Tab, server: Running, **kept: object) -> None:
    """Open the page as somebody who was never there, but for what the browser has kept."""
    tab.resize(1280, 800)
    tab.open(f"{server.url}/health")
    tab.run("localStorage.clear(), sessionStorage.clear()")  # of an earlier server on this port
    for name, value in kept.items():
        content = json.dumps(json.dumps(value))
        tab.run(f"localStorage.setItem('llama-export.{name}', {content})")
    tab.requests.clear()
    tab.complaints.clear()
    tab.open(f"{server.url}/")


def say(tab: Tab, text: str) -> None:
    tab.wait(READY)
    tab.run("document.querySelector('#text').focus()")
    if text:
        tab.type(text)
    tab.press("Enter")


def text_of(tab: Tab, part: str) -> str:
    return tab.run(f"{LAST}.querySelector('.{part}').innerText")


def press_button(tab: Tab, words: str) -> None:
    named = f"find((each) => each.textContent === '{words}')"
    tab.run(f"[...{LAST}.querySelectorAll('button')].{named}.focus()")
    tab.press("Enter")


def require_quiet(tab: Tab, server: Running) -> None:
    """Nothing was asked of anybody else, and nothing was complained of."""
    hosts = {urlsplit(url).netloc for url in tab.requests}
    assert hosts == {f"127.0.0.1:{server.port}"}
    assert tab.complaints == []


def test_a_conversation_from_the_first_word_to_the_next_visit(tab, chat_server):
    visit(tab, chat_server, settings={"temperature": "0", "max_tokens": "12"})
    tab.wait("document.activeElement.id === 'text'")
    say(tab, "Tell me\nof the witch.")
    tab.wait(f"{RESTING} && {LAST}.querySelector('.figures').innerText")
    answer = text_of(tab, "answer")
    assert len(answer) > 10
    figures = text_of(tab, "figures")
    for words in ("12 tokens", "tok/s", "first token after", "prompt ", "cut at max tokens (12)"):
        assert words in figures
    assert tab.run("document.querySelector('#status').textContent") == "Answered in 12 tokens."

    tab.call("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    press_button(tab, "Copy")
    tab.wait(f"{LAST}.innerText.includes('Copied')")
    assert tab.run("navigator.clipboard.readText()") == answer

    say(tab, "And of the king?")
    tab.wait(f"{RESTING} && document.querySelectorAll('.figures span').length > 6")
    assert "of them cached" in text_of(tab, "figures")
    second = text_of(tab, "answer")
    # A page that came over plain HTTP from another machine has no clipboard of this kind.
    tab.run("globalThis.kept = navigator.clipboard")
    tab.run("Object.defineProperty(navigator, 'clipboard', { value: undefined }) && null")
    press_button(tab, "Copy")
    tab.wait(f"{LAST}.innerText.includes('Copied')")
    assert tab.run("kept.readText()") == second
    press_button(tab, "Regenerate")
    tab.wait(f"{RESTING} && {LAST}.querySelector('.figures').innerText")
    assert text_of(tab, "answer") == second  # the likeliest words are the same ones

    tab.open("about:blank")
    tab.open(f"{chat_server.url}/")
    tab.wait("document.querySelectorAll('.turn').length === 2")
    assert text_of(tab, "answer") == second
    tab.press("o", CTRL | SHIFT)
    tab.wait("document.querySelectorAll('.turn').length === 0")
    tab.click("#restore")
    tab.wait("document.querySelectorAll('.turn').length === 2")
    require_quiet(tab, chat_server)


def test_escape_stops_an_answer_and_the_last_message_can_be_sent_anew(tab, chat_server):
    visit(tab, chat_server, settings={"max_tokens": "1900", "temperature": "0"})
    say(tab, "A long tale.")
    tab.wait(f"{WRITING} && {LAST}.querySelector('.answer').innerText.length > 20")
    tab.type("My next thought")
    tab.press("Enter")
    assert "Esc stops it" in tab.run("document.querySelector('#status').textContent")
    tab.press("Escape")
    tab.wait(RESTING)
    assert text_of(tab, "figures").endswith("stopped by you")
    engine = chat_server.catalogue.served[0].engine
    part = text_of(tab, "answer")
    assert len(part) > 20
    until_idle(engine)

    press_button(tab, "Edit question")
    assert tab.run("document.querySelector('#text').value") == "A long tale."
    assert tab.run("document.querySelector('#editing').hidden") is False
    tab.type(" Of a king.")
    tab.press("Enter")
    tab.wait(f"{WRITING} && {LAST}.querySelector('.answer').innerText.length > 20")
    tab.click("#stop")
    tab.wait(RESTING)
    assert tab.run("document.querySelectorAll('.turn').length") == 1
    assert text_of(tab, "question") == "A long tale. Of a king."
    # What was in the box before is there again.
    assert tab.run("document.querySelector('#text').value") == "My next thought"
    until_idle(engine)
    require_quiet(tab, chat_server)


def until_idle(engine) -> None:
    until = time.monotonic() + 60
    while engine.active:
        assert time.monotonic() < until, "the answer is still being written"
        time.sleep(0.01)


def test_a_model_that_was_not_trained_to_answer_goes_on_with_the_text(tab, server, demo_bundle):  # noqa: F811
    visit(tab, server, settings={"temperature": "0", "max_tokens": "8"})
    tab.wait(READY)
    assert "not trained to answer" in tab.run("document.querySelector('#about').textContent")
    assert tab.run("document.querySelector('#system').disabled")
    say(tab, "Once upon a time")
    tab.wait(f"{RESTING} && {LAST}.querySelector('.figures').innerText")
    first = tab.run(f"{LAST}.querySelector('.answer').textContent")
    say(tab, "")
    tab.wait(f"{RESTING} && document.querySelectorAll('.turn').length === 2")
    tab.wait(f"{LAST}.querySelector('.figures').innerText")
    second = tab.run(f"{LAST}.querySelector('.answer').textContent")
    with load(demo_bundle, threads=1) as session:
        for begun, written in (("", first), (first, second)):
            text = f"Once upon a time{begun}"
            found = session.generate(text, max_tokens=8, sampling=Sampling(temperature=0))
            assert found.text == written != ""
    assert f"{server.url}/v1/completions" in tab.requests
    require_quiet(tab, server)


def test_what_a_model_writes_is_text_and_never_a_page(tab, chat_server):
    visit(tab, chat_server)
    drawn = tab.run(
        "import('/page/markdown.mjs').then(({ make, MarkdownView }) => {"
        " const place = make('div'); document.body.append(place);"
        " const view = new MarkdownView(place, () => make('button', {}, 'Copy'));"
        f" const text = {json.dumps(HOSTILE)};"
        " for (let end = 0; end <= text.length; end += 1) view.update(text.slice(0, end));"
        " const paragraph = place.firstChild; view.update(text + '!');"
        " const found = { tags: [...place.querySelectorAll('*')].map((each) => each.localName),"
        "   text: place.innerText, kept: paragraph === place.firstChild };"
        " place.remove(); return found; })"
    )
    expected = ["p", "strong", "code", "div", "div", "span", "button", "pre", "code", "ul", "li"]
    assert drawn["tags"] == expected
    assert "<img src=x onerror=alert(1)> <script>alert(2)</script> b <i>" in drawn["text"]
    assert drawn["kept"]
    # The browser itself refuses a text that is to become HTML.
    made = "document.createElement('p').innerHTML = '<b>x</b>'"
    assert tab.run(f"(() => {{ try {{ {made}; }} catch {{ return 'no'; }} }})()") == "no"


def test_errors_are_told_and_no_message_is_lost(tab, demo_bundle):  # noqa: F811
    with running(demo_bundle, settings=ServerSettings(api_key="secret")) as server:
        visit(tab, server)
        tab.wait("document.querySelector('#key').open")
        tab.type("schlüssel")  # which no header can hold
        tab.press("Enter")
        assert tab.run("document.querySelector('#key').open")
        tab.run("document.querySelector('#key-text').value = ''")
        tab.type("wrong")
        tab.press("Enter")
        tab.wait("document.querySelector('#key-fault').textContent.includes('does not take')")
        tab.type("secret")
        tab.press("Enter")
        tab.wait(READY)
        say(tab, "word " * 3000)
        fault = f"{LAST}.querySelector('.fault:not([hidden])')"
        tab.wait(f"{fault}?.innerText.includes('this model has room for 2048')")
        assert "Begin a new conversation" in tab.run(f"{fault}.innerText")
        # Not sent on with the next one.
        say(tab, "Once upon a time")
        tab.wait(f"{RESTING} && {LAST}.querySelector('.figures').innerText")
        # Whoever gives no key sees the conversation still; its buttons ask for the key, too.
        tab.run("sessionStorage.removeItem('llama-export.key')")
        tab.open("about:blank")
        tab.open(f"{server.url}/")
        for _ in range(2):
            tab.wait("document.querySelector('#key').open")
            tab.press("Escape")
            tab.wait("!document.querySelector('#no-models').hidden")
            press_button(tab, "Regenerate")
        tab.wait("document.querySelector('#key').open")
        tab.type("secret")
        tab.press("Enter")
        tab.wait(f"{READY} && {RESTING} && {LAST}.querySelector('.figures').innerText")
        kept = tab.run("Object.values(localStorage).join()")
        assert "secret" not in kept
    answer = text_of(tab, "answer")
    press_button(tab, "Regenerate")
    tab.wait(f"{fault}?.innerText.includes('The server cannot be reached')")
    assert text_of(tab, "answer") == answer != ""
    say(tab, "Are you there?")
    tab.wait(f"{fault}?.innerText.includes('The server cannot be reached')")
    assert text_of(tab, "question") == "Are you there?"
    assert tab.run(f"{LAST}.innerText.includes('Try again')")


def test_a_busy_server_is_asked_again_when_the_reader_wants(tab, demo_bundle):  # noqa: F811
    long = {"prompt": "Once", "max_tokens": 1900, "stream": True, "temperature": 0}
    with running(demo_bundle, settings=ServerSettings(parallel=1, queue=0)) as server:
        visit(tab, server, settings={"temperature": "0", "max_tokens": "20"})
        other = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        kind = {"Content-Type": "application/json"}
        other.request("POST", "/v1/completions", json.dumps(long).encode(), kind)
        response = other.getresponse()
        assert response.readline().startswith(b"data: ")
        say(tab, "Once upon a time")
        tab.wait(f"{RESTING} && {LAST}.querySelector('.fault').innerText.includes('again in')")
        assert "Your message is kept" in text_of(tab, "fault")
        response.close()
        other.close()
        until_idle(server.catalogue.served[0].engine)
        press_button(tab, "Try again")
        tab.wait(f"{RESTING} && {LAST}.querySelector('.figures').innerText")
        assert tab.run(f"{LAST}.querySelector('.fault').hidden")
        assert len(text_of(tab, "answer")) > 20


def test_an_answer_that_the_server_ends_is_kept_as_far_as_it_came(tab, server):
    visit(tab, server, settings={"max_tokens": "1900", "temperature": "0"})
    say(tab, "Once upon a time")
    tab.wait(f"{WRITING} && {LAST}.querySelector('.answer').innerText.length > 20")
    server.catalogue.stop()
    tab.wait(f"{RESTING} && {LAST}.querySelector('.fault').innerText.includes('shutting down')")
    assert len(text_of(tab, "answer")) > 20
    assert tab.run("document.querySelector('#status').textContent") == "The answer broke off."


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_and_can_be_used_by_hand_and_by_key(tab, chat_server, width, theme):
    tab.prefer(prefers_color_scheme=theme)
    visit(tab, chat_server, settings={"max_tokens": "8"})
    tab.wait(READY)
    tab.resize(width, 700, is_phone=width < 500)
    tab.run("document.querySelector('#text').focus()")
    tab.type("x" * 300)
    tab.run("document.querySelector('#composer').requestSubmit()")
    tab.wait(f"{RESTING} && {LAST}.querySelector('.figures').innerText")
    assert tab.run("document.documentElement.scrollWidth") == width
    wide = "[...document.querySelectorAll('#log, .question, .answer')].filter((each) =>"
    assert tab.run(f"{wide} each.scrollWidth > each.clientWidth).length") == 0
    assert tab.run("document.querySelector('#composer').getBoundingClientRect().bottom") <= 700
    paper = "getComputedStyle(document.body).backgroundColor"
    light, dark = "rgb(255, 255, 255)", "rgb(20, 24, 29)"
    assert tab.run(paper) == (light if theme == "light" else dark)
    unnamed = tab.run(
        "[...document.querySelectorAll('button, select, textarea, input')].filter((each) =>"
        " !(each.innerText || each.ariaLabel || each.title || each.labels?.length)).length"
    )
    assert unnamed == 0
    small = tab.run(
        "[...document.querySelectorAll('button, select')].map((e) => e.getBoundingClientRect())"
        ".filter(({ width, height }) => width && Math.min(width, height) < 24).length"
    )
    assert small == 0
    tab.click("#open-settings")
    tab.wait("document.querySelector('#settings').open")
    assert tab.run("document.querySelector('#settings').scrollWidth") <= width
    other = "dark" if theme == "light" else "light"
    tab.run(
        "(() => { const theme = document.querySelector('#theme'); "
        f"theme.value = '{other}'; theme.dispatchEvent(new Event('change')); }})()"
    )
    assert tab.run(paper) == (light if other == "light" else dark)
    tab.press("Escape")
    tab.wait("!document.querySelector('#settings').open")
    assert tab.run("document.activeElement.id") == "open-settings"
    tab.run("document.querySelector('#text').focus()")
    tab.press("Tab")
    assert tab.run("document.activeElement.id") == "send"
    tab.press("Tab", SHIFT)
    tab.press("Tab", SHIFT)
    assert tab.run("document.activeElement.textContent") == "Edit question"
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    require_quiet(tab, chat_server)
