"""`llama-export generate`: write text with a bundle."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llama_export.commands.interrupts import InterruptedBySignal
from llama_export.commands.options import BundleArgument, Threads, Verbose, open_console
from llama_export.errors import PromptError


def generate(
    bundle: BundleArgument,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", help="Text to go on from; '-' reads stdin."),
    ] = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the prompt as a user's message (Instruct models).")
    ] = False,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", "-n", min=1, help="The most new tokens.")
    ] = 256,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Draw from this share of the probability.")] = 0.95,
    top_k: Annotated[int, typer.Option(help="Draw from this many tokens; 0: all.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same text.")] = 0,
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Write text with a bundle, token by token."""
    console = open_console(verbose)
    from llama_export.bundle import Bundle
    from llama_export.chat import Message, encode_dialog
    from llama_export.generate import Generation, Sampling
    from llama_export.targets.registry import open_session
    from llama_export.terminal import write_text
    from llama_export.tokenizer import StreamDecoder, Tokenizer

    sampling = Sampling(temperature, top_p, top_k, seed)
    text = _read_prompt(prompt)
    opened = Bundle.open(bundle)
    tokenizer = Tokenizer.load(opened.folder / opened.manifest.tokenizer["file"])
    if chat:
        input_ids = encode_dialog(tokenizer, [Message("user", text)])
    else:
        input_ids = [tokenizer.bos_token_id, *tokenizer.encode(text)]
    session = open_session(opened, threads=threads, verbose=verbose)
    generation = Generation(
        session,
        input_ids,
        sampling=sampling,
        stop_token_ids=opened.manifest.tokenizer["stop_token_ids"],
        max_tokens=max_tokens,
        vocab_size=tokenizer.vocab_size,
    )
    decoder = StreamDecoder(tokenizer)
    write_text("" if chat else text)
    try:
        for new_token in generation:
            write_text(decoder.push(new_token))
    except InterruptedBySignal:
        write_text("\n")
        raise
    write_text(decoder.flush() + "\n")
    stats = generation.stats
    console.print(
        f"[dim]{stats.prompt_tokens} prompt tokens, first token after "
        f"{stats.time_to_first_token_s:.2f} s; {stats.new_tokens} new tokens at "
        f"{stats.decode_tokens_per_s:.1f} tokens/s; stopped: {stats.stop_reason}[/]",
        highlight=False,
        soft_wrap=True,
    )


def _read_prompt(prompt: str | None) -> str:
    """Return the prompt, or all of stdin.

    Raises:
        PromptError: there is none, or stdin is not UTF-8.
    """
    from llama_export.terminal import read_stdin

    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and sys.stdin.isatty():
        message = "there is no prompt"
        raise PromptError(message, 'give --prompt "Once upon a time", or pipe a text in')
    return read_stdin()
