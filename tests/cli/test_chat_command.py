"""`llama-export chat`, and what `generate` shares with it: in a pipe, and with somebody there."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from artifacts.demo_bundle import demo_bundle

from llama_export.cli.chat import loop
from llama_export.cli.chat.input import read_message, typed_ahead_kept
from llama_export.cli.chat.wording import answer_line, stats_line
from llama_export.cli.signals import InterruptedBySignal, noted_press, raise_on_signals
from llama_export.generation.decoding import GenerationStats

pytest.importorskip("onnxruntime", reason="needs the onnx extra")
pytestmark = [pytest.mark.onnx, pytest.mark.usefixtures("own_process_state")]
__all__ = ["demo_bundle"]

ROOT = Path(__file__).parents[2]
SHORT = ("-n", "8", "--temperature", "0", "--threads", "1")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(command):
    return partial(command, stdin=b"", columns=240)


@pytest.fixture
def talk(run, monkeypatch, demo_bundle):
    """Somebody types these lines; an exception in their place is raised at the prompt."""

    def call(*lines: str | BaseException, options: tuple[object, ...] = SHORT):
        rest = iter(lines)

        def typed(_prompt: str = "") -> str:
            line = next(rest, None)
            if line is None:
                raise EOFError
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr("builtins.input", typed)
        return run("chat", demo_bundle, *options, stdin=Terminal())

    return call


def answers(out: str) -> list[str]:
    return out.splitlines()


def test_each_line_of_a_pipe_is_a_turn_and_stdout_has_answers_only(run, demo_bundle):
    lines = b"Tell me a tale.\r\n\n   \nAnd then?"
    code, out, err = run("chat", demo_bundle, *SHORT, stdin=lines)
    assert code == 0
    assert len(answers(out)) == 2
    assert "\x1b" not in out + err
    assert "> " not in out
    assert err.count("8 tokens, ") == 2
    assert "tok/s, first token after" in err
    assert "of 2048 (cut at --max-tokens)" in err
    assert "demo is a base model" in err


def test_json_has_one_object_a_turn(run, demo_bundle):
    code, out, _ = run("chat", demo_bundle, *SHORT, "--json", stdin=b"Hello\nAgain\n")
    first, second = (json.loads(line) for line in answers(out))
    assert code == 0
    assert first["stats"]["new_tokens"] == 8
    assert second["stats"]["reused_tokens"] >= first["context_tokens"] - 2
    plain = run("chat", demo_bundle, *SHORT, stdin=b"Hello\nAgain\n")[1]
    assert plain == f"{first['answer']}\n{second['answer']}\n"


def test_commands_work_in_a_pipe_and_an_unknown_one_ends_it(run, demo_bundle):
    lines = b"Hello\n/retry\n/stats\n/undo\n/sytem x\nnever\n"
    code, out, err = run("chat", demo_bundle, *SHORT, stdin=lines)
    assert code == 2
    assert answers(out)[0] == answers(out)[1]
    assert len(answers(out)) == 2
    assert "taken back: Hello" in err
    assert "temperature 0.0, top-p 0.9, top-k 0, seed fresh, min-p 0.0, repetition-p" in err
    assert "did you mean /system?" in err
    code, out, err = run("chat", demo_bundle, *SHORT, stdin=b"//usr\n/quit\nnever\n/reset\n")
    assert (code, len(answers(out))) == (0, 1)


def test_the_conversation_is_saved_and_gone_on_with(run, demo_bundle, tmp_path):
    file = tmp_path / "talk.chat"
    command = ("chat", demo_bundle, "--threads", "1", "--json")
    options = ("--temperature", "0", "-n", "9", "--system", "Be brief.", "--save", file)
    first = run(*command, *options, stdin=b"Hello\n")[1]
    code, out, err = run(*command, "--load", file, "--save", file, "-p", "Again")
    assert code == 0
    record = json.loads(out)
    # Sampling and length come from the file.
    assert record["stats"]["new_tokens"] == 9
    assert record["stats"]["reused_tokens"] >= json.loads(first)["context_tokens"] - 2
    assert "user: Hello" in err
    both = run(*command, *options[:-2], stdin=b"Hello\nAgain\n")[1]
    assert answers(both)[1].split('"stats"')[0] == out.split('"stats"')[0]
    code, _, err = run(*command, "--load", tmp_path / "none")
    assert code == 15
    assert "does not exist" in err


def test_the_first_message_from_a_file_or_all_of_stdin(run, demo_bundle, tmp_path):
    file = tmp_path / "question.txt"
    file.write_text("Two\nlines\n")
    expected = run("chat", demo_bundle, *SHORT, "--file", file)[1]
    assert len(answers(expected)) == 1
    assert run("chat", demo_bundle, *SHORT, "-f", "-", stdin=b"Two\nlines\n")[1] == expected
    written = run("generate", demo_bundle, *SHORT, "--file", file)[1]
    assert written.startswith("Two\nlines\n")


def test_generate_gives_its_seed_and_json(run, demo_bundle):
    command = ("generate", demo_bundle, "-n", "8", "--threads", "1", "--json", "-p", "Once")
    first, second = (json.loads(run(*command)[1]) for _ in range(2))
    assert first["stats"]["seed"] != second["stats"]["seed"]
    again = json.loads(run(*command, "--seed", first["stats"]["seed"])[1])
    assert again["token_ids"] == first["token_ids"]
    assert again["stats"]["stop_reason"] == "length"
    assert "base model" in run("generate", demo_bundle, *SHORT, "--chat", "-p", "Hi")[2]


@pytest.mark.parametrize(
    ("arguments", "stdin", "exit_code", "word"),
    [
        (["chat", "--threads", "0"], b"", 2, "threads"),
        (["chat", "--threads", "1000000"], b"", 2, "threads"),
        (["chat", "--context", "0"], b"", 2, "context"),
        (["chat", "--context", "4096"], b"", 2, "expected 1 to 2048"),
        (["chat", "--min-p", "2"], b"", 2, "min-p"),
        (["chat", "--max-tokens", "0"], b"", 2, "max-tokens"),
        (["chat", "--prompt", ""], b"", 15, "empty"),
        (["chat", "--prompt", "a", "--file", "b"], b"", 15, "two prompts"),
        (["chat", "--file", "nowhere"], b"", 15, "nowhere"),
        (["chat", "--file", "-"], b"a\xff", 15, "position 1"),
        (["chat"], b"good\nb\xffd\n", 15, "line 2 of stdin is not UTF-8: byte 0xff"),
        (["chat"], b"word " * 40000, 15, "tokens long, and the context has 2048"),
        (["chat", "--save", "/nowhere/x"], b"Hello\n", 11, "cannot be written"),
        (["chat", "--save", "."], b"Hello\n", 11, "not a file name"),
        (["chat", "--save", "/tmp"], b"Hello\n", 11, "it is a folder"),
        (["chat", "--save", "x" * 300], b"Hello\n", 11, "too long"),
        (["chat", "--load", "."], b"", 15, ". is a folder"),
        (["chat", "--load", "/dev/zero"], b"", 15, "is a device or a pipe"),
        (["generate", "--prompt", ""], b"", 15, "empty"),
        (["generate"], b"", 15, "empty"),
        (["generate", "--prompt", "a", "--repetition-penalty", "0"], b"", 2, "penalty"),
    ],
)
def test_bad_input_is_named(run, demo_bundle, arguments, stdin, exit_code, word):
    verb, *rest = arguments
    code, out, err = run(verb, demo_bundle, "-n", "2", *rest, stdin=stdin)
    assert code == exit_code
    assert bool(out) == stdin.startswith(b"good")  # refused before the first message
    assert word in err
    assert "Traceback" not in err


def test_a_full_context_ends_a_pipe_or_drops_the_oldest(run, demo_bundle):
    command = ("chat", demo_bundle, *SHORT, "--context", "90", "--system", "Brief.")
    lines = b"".join(b"Tell me of king number %d.\n" % index for index in range(8))
    code, out, err = run(*command, stdin=lines)
    assert code == 15
    assert "and the context has 90" in err
    hint = "--overflow drop-oldest drops the oldest messages; or use a larger --context"
    assert f"what to do: {hint}" in err
    assert 1 <= len(answers(out)) < 8
    code, out, err = run(*command, "--overflow", "drop-oldest", stdin=lines)
    assert (code, len(answers(out))) == (0, 8)
    assert "dropped the 2 oldest messages" in err


# Somebody is there.


def test_a_terminal_goes_on_after_a_mistake(talk):
    code, out, err = talk("/nonsense", "Hello", "/load", "/help", "/system", "/quit", "never")
    assert (code, len(answers(out))) == (0, 1)
    assert "there is no command '/nonsense'" in err
    assert "a file is missing: /load FILE" in err
    assert "/retry        answer the last message again" in err
    assert "there is no system message" in err


def test_ctrl_c_at_the_prompt_says_how_to_end_and_twice_ends(talk):
    press = InterruptedBySignal(signal.SIGINT)
    code, out, err = talk(press, "Hello", press, "Hello")
    assert (code, len(answers(out))) == (0, 2)
    assert err.count("Ctrl-D or /quit ends the chat.") == 2
    assert talk(press, press)[0] == 130
    assert talk(InterruptedBySignal(signal.SIGTERM))[0] == 143


def pressing(monkeypatch, at: int, number: int = signal.SIGINT):
    """Press Ctrl-C, or send another signal, when so many pieces are written."""
    write = loop.StreamedText.write
    count = iter(range(10**6))

    def written(streamed: loop.StreamedText, piece: str) -> None:
        write(streamed, piece)
        if next(count) == at:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop.StreamedText, "write", written)


def test_ctrl_c_keeps_the_partial_answer_and_the_chat_goes_on(talk, monkeypatch):
    pressing(monkeypatch, 2)
    options = ("-n", "200", "--temperature", "0", "--threads", "1")
    code, out, err = talk("Hello", "/stats", "/undo", options=options)
    assert code == 0
    assert "3 tokens, " in err
    assert "(stopped by you; what is there was kept)" in err
    assert "2 messages" in err
    assert len(answers(out)) == 1


def test_ctrl_c_in_a_pipe_ends_it_and_saves_what_is_there(run, demo_bundle, monkeypatch, tmp_path):
    pressing(monkeypatch, 2)
    file = tmp_path / "talk.chat"
    command = ("chat", demo_bundle, "-n", "200", "--threads", "1", "--temperature", "0")
    code, out, _ = run(*command, "--save", file, stdin=b"Hello\nnever\n")
    assert (code, len(answers(out))) == (130, 1)
    monkeypatch.undo()
    assert f"assistant: {out.strip()}" in run("chat", demo_bundle, "--load", file)[2]


def test_ctrl_c_while_a_long_message_is_read_takes_it_back(talk, monkeypatch):
    monkeypatch.setattr("llama_export.generation.prefix_cache.PIECE_TOKENS", 16)
    say = loop.say

    def press_then_say(console, text, style=""):
        say(console, text, style)
        if text.startswith("reading: 0 of"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(loop, "say", press_then_say)
    code, out, err = talk("word " * 60, "/stats")
    assert (code, out) == (0, "")
    stopping = err.index("stopping...")
    assert stopping < err.index("stopped before the first word; the message was taken back")
    # The 16 tokens that were read are in the cache, and the conversation has one of them.
    assert "0 messages, 0 tokens, 0 of them in the cache" in err


def test_the_first_ctrl_c_is_answered_at_once_and_by_a_thread():
    """A handler in Python would wait for the runtime's call to end."""
    said, told = [], threading.Event()

    def on_first() -> None:
        said.append(threading.current_thread())
        told.set()

    before = signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before[1])
    with noted_press(on_first) as press:
        os.kill(os.getpid(), signal.SIGINT)
        assert told.wait(60)
        os.kill(os.getpid(), signal.SIGINT)
        assert press.noted
    with noted_press(on_first) as press:
        press.awaited = False  # the answer is being written
        os.kill(os.getpid(), signal.SIGINT)
    assert len(said) == 1
    assert said[0] is not threading.main_thread()
    assert (signal.getsignal(signal.SIGINT), signal.set_wakeup_fd(-1)) == before


def test_ctrl_c_while_an_answer_is_written_needs_no_words(talk, monkeypatch):
    pressing(monkeypatch, 2)
    assert "stopping..." not in talk("Hello", options=("-n", "200", "--threads", "1"))[2]


def test_ctrl_c_at_the_overflow_question_leaves_the_message_out(talk):
    lines = [f"Tell me of king number {index}." for index in range(3)]
    options = (*SHORT, "--context", "100")
    press = InterruptedBySignal(signal.SIGINT)
    code, out, err = talk(*lines, "What now?", press, "/stats", options=options)
    assert (code, len(answers(out))) == (0, 3)
    assert "the message was not sent" in err
    assert "6 messages" in err
    ended = InterruptedBySignal(signal.SIGTERM)
    assert talk(*lines, "What now?", ended, "/stats", options=options)[0] == 143


def test_an_answer_that_fills_the_context_is_counted_as_what_is_in_the_cache(run, demo_bundle):
    options = ("--threads", "1", "--temperature", "0", "--context", "64", "--json")
    lines = b"Tell me of a king.\n/stats\n"
    code, out, err = run("chat", demo_bundle, *options, stdin=lines)
    record = json.loads(out)
    assert (code, record["stats"]["stop_reason"]) == (0, "context full")
    assert record["context_tokens"] == 64
    assert "context 64 of 64 (cut: the context is full)" in err
    assert "2 messages, 66 tokens, 64 of them in the cache; a context of 64" in err


def test_the_cache_is_counted_after_another_system_message(run, demo_bundle):
    lines = b"Hello\n/system off\n/stats\n"
    err = run("chat", demo_bundle, *SHORT, "--system", "Be very brief.", stdin=lines)[2]
    length, cached = re.search(r"2 messages, (\d+) tokens, (\d+) of them", err).groups()
    assert int(cached) < 5 < int(length)


def test_one_token_has_no_speed():
    one, two = (GenerationStats(9, count, 0.5, 2.0, "length") for count in (1, 2))
    assert answer_line(one, 9, 64).startswith("1 token, first token after 0.50 s, context 9 of 64")
    assert answer_line(two, 9, 64).startswith("2 tokens, 0.5 tok/s, first token after 0.50 s")
    assert "; 1 new token; seed" in stats_line(one)
    assert "; 2 new tokens at 0.5 tokens/s; seed" in stats_line(two)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the platform has no SIGHUP")
def test_a_closed_terminal_ends_the_chat_and_saves_it(talk, monkeypatch, tmp_path):
    file = tmp_path / "talk.chat"
    before = signal.getsignal(signal.SIGHUP)
    try:
        # Where the signal is not heard, it is ignored here: pytest shall live.
        signal.signal(signal.SIGHUP, lambda *_: None)
        pressing(monkeypatch, 2, signal.SIGHUP)
        code, out, _ = talk("Hello", "never", options=(*SHORT, "--save", file))
        assert (code, len(answers(out))) == (129, 1)
        assert f"assistant: {out.strip()}" in talk(options=("--load", file))[2]
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
        raise_on_signals()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("choice", "answered"), [("1", 4), ("2", 4), ("3", 3)])
def test_a_full_context_offers_a_choice(talk, choice, answered):
    lines = [f"Tell me of king number {index}." for index in range(3)]
    options = (*SHORT, "--context", "100")
    code, out, err = talk(*lines, "What now?", "huh", choice, "/stats", options=options)
    assert (code, len(answers(out))) == (0, answered)
    assert "and the context has 100" in err
    dropped = int(err.split("1  drop the ")[1].split()[0])
    assert f"{ {'1': 8 - dropped, '2': 2, '3': 6}[choice] } messages" in err


def test_a_terminal_that_shall_not_ask_refuses(talk):
    lines = [f"Tell me of king number {index}." for index in range(5)]
    code, out, err = talk(*lines, options=(*SHORT, "--context", "100", "--overflow", "stop"))
    assert (code, len(answers(out))) == (0, 3)
    assert "tokens long" in err
    assert "1  drop the" not in err
    assert "what to do: /reset begins anew, --overflow drop-oldest drops" in err


def test_what_dropping_cannot_help_is_not_asked_about(talk, run, demo_bundle):
    options = (*SHORT, "--context", "100")
    code, out, err = talk("Hi", "word " * 200, "/stats", options=options)
    assert (code, len(answers(out))) == (0, 1)
    assert "1  drop the" not in err
    assert "what to do: shorten the message, or use a larger --context" in err
    options = (*options, "--overflow", "drop-oldest", "--system", "word " * 200)
    code, _, err = run("chat", demo_bundle, *options, stdin=b"Hi\n")
    assert code == 15
    assert "what to do: shorten the system message, or use a larger --context" in err


def test_messages_of_several_lines():
    def read(*lines: str) -> list[str | None]:
        rest = iter(lines)
        found = []
        while (text := read_message(lambda _: next(rest, None))) is not None:
            found.append(text)
        return found

    assert read("a\\", "b\\", "c", "d") == ["a\nb\nc", "d"]
    assert read('"""a', "", 'b"""', "c") == ["a\n\nb", "c"]
    assert read('"""one"""', " ", "two\\") == ["one", "two"]
    assert read('"""open', "end") == ["open\nend"]


def test_a_real_terminal(demo_bundle):
    """A prompt, an answer and a command through a pseudo-terminal."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("export", "quantize"))
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "llama_export", "chat", str(demo_bundle), *SHORT]
    environment = {**os.environ, "PYTHONPATH": paths, "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, close_fds=True
    )
    os.close(slave)
    screen = b""

    def until(text: bytes) -> None:
        nonlocal screen
        while text not in screen:
            screen += os.read(master, 4096)

    until(b"> ")
    os.write(master, b"Hello\n")
    until(b"tok/s")
    os.write(master, b"/stats\n")
    until(b"2 messages")
    os.write(master, b"/quit\n")
    assert process.wait(timeout=60) == 0
    os.close(master)
    assert b"Traceback" not in screen


NOTE = "is read as text, and not as a special token; --parse-special reads such names as tokens"


def test_generate_and_chat_stop_at_a_text(run, demo_bundle):
    words = ("generate", demo_bundle, "--temp", "0", "-n", "30", "-p", "The king")
    _, whole, _ = run(*words)
    stop = whole.split()[6]
    code, out, err = run(*words, "--stop", stop, "--stop", "never there")
    assert (code, out) == (0, whole[: whole.index(stop, len("The king"))] + "\n")
    assert "stopped: stop text" in err
    talk = ("chat", demo_bundle, "--temp", "0", "-n", "12")
    _, answer, _ = run(*talk, stdin=b"Hello\n")
    stop = answer.split()[2]
    assert run(*talk, "--stop", stop, stdin=b"Hello\n")[1] == answer.split(stop)[0] + "\n"


def test_an_empty_stop_text_is_refused_before_the_bundle_is_opened(run):
    code, out, err = run("generate", "./nowhere", "-p", "x", "--stop", "")
    assert (code, out) == (2, "")
    assert "--stop: expected a text of at least one character" in err


def test_a_typed_special_token_is_noted_once_and_parsed_on_demand(run, demo_bundle):
    lines = b"One <|eot_id|>\nTwo <|eot_id|>\n"
    _, _, err = run("chat", demo_bundle, *SHORT, stdin=lines)
    assert err.count(f"<|eot_id|> {NOTE}") == 1
    _, _, err = run("chat", demo_bundle, *SHORT, "--parse-special", stdin=lines)
    assert NOTE not in err
    words = ("generate", demo_bundle, *SHORT, "-p", "<|eot_id|><|eom_id|>")
    _, _, kept = run(*words)
    _, _, parsed = run(*words, "--parse-special")
    assert "and 1 more are read as text, and not as special tokens" in kept
    assert "read as text" not in parsed
    assert "3 prompt tokens" in parsed
    assert NOTE not in run("generate", demo_bundle, *SHORT, "-p", "eot_id")[2]


def test_nothing_to_save_is_refused_and_written_nowhere(talk, tmp_path):
    file, other = tmp_path / "talk.chat", tmp_path / "other.chat"
    code, _, err = talk(f"/save {file}", "/quit", options=(*SHORT, "--save", other))
    assert code == 0
    assert "there is nothing to save yet" in err
    assert f"nothing was said, so {other} was not written" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="terminals there are of another kind")
def test_ctrl_c_keeps_what_was_typed(monkeypatch):
    import termios

    def flushes() -> bool:
        return not termios.tcgetattr(inner)[3] & termios.NOFLSH

    outer, inner = pty.openpty()
    with os.fdopen(inner, "r") as terminal, os.fdopen(outer, "wb"):
        monkeypatch.setattr(sys, "stdin", terminal)
        assert flushes()
        with typed_ahead_kept():
            assert not flushes()
        assert flushes()
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with typed_ahead_kept():
        pass
