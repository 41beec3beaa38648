"""`llama-export generate`: write text with a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llama_export.cli.options import BundleArgument, Json, Threads, Verbose, open_console
from llama_export.cli.prompt_source import read_prompt
from llama_export.cli.sampling_options import (
    MinP,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    chosen_sampling,
)

if TYPE_CHECKING:
    from llama_export.generation.text_stream import TextStream


def generate(
    bundle: BundleArgument,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Text to go on from; '-' reads stdin."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A file with the text to go on from.")
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the prompt as a user's message (Instruct models).")
    ] = False,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=1, help="The most new tokens.")
    ] = 256,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    threads: Threads = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write text with a bundle, token by token."""
    console = open_console(verbose)
    from llama_export.cli.chat.wording import say_base_model, say_stand_in, stats_line
    from llama_export.cli.terminal import write_text
    from llama_export.generation.sampling import Sampling
    from llama_export.generation.text_session import TextSession
    from llama_export.tokenizer.chat_format import Message, encode_dialog

    sampling = chosen_sampling(
        Sampling(),
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    text = read_prompt(prompt, file)
    session = TextSession.open(bundle, threads=threads, verbose=verbose)
    say_stand_in(console, session.stand_in)
    if chat and not session.for_chat:
        say_base_model(console, session.name)
    ids = encode_dialog(session.tokenizer, [Message("user", text)]) if chat else text
    stream = session.stream(ids, max_tokens=max_tokens, sampling=sampling)
    if as_json:
        write_text(_as_json(stream, text))
    else:
        write_text("" if chat else text)
        try:
            for piece in stream:
                write_text(piece)
        finally:
            write_text("\n")
    stats = stream.completion.stats
    console.print(f"[dim]{stats_line(stats)}[/]", highlight=False, soft_wrap=True)


def _as_json(stream: TextStream, prompt: str) -> str:
    import json

    for _ in stream:
        pass
    done = stream.completion
    record = {"prompt": prompt, "text": done.text, "token_ids": done.token_ids}
    return json.dumps(record | {"stats": done.stats.to_json()}, indent=2) + "\n"
