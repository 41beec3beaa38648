"""`llama-export serve`: bundles behind OpenAI's and ollama's protocols."""

from __future__ import annotations

import importlib.util
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_export.cli.options import NO_HASH, PATH, THREADS, VERBOSE, open_console
from llama_export.cli.speculation_options import SPECULATION, chosen_speculation
from llama_export.cli.verb import Positional, Section, Verb
from llama_export.errors import BackendUnavailableError, OutputError, UsageError
from llama_export.serving import settings as defaults
from llama_export.serving.settings import ServerSettings

if TYPE_CHECKING:
    from types import FrameType

    from rich.console import Console

    from llama_export.generation.speculation_choice import Speculation
    from llama_export.serving.catalogue import Catalogue

_PACKAGES = ("starlette", "uvicorn", "prometheus_client")
# For what is written when Ctrl-C is pressed: a step of a large model, and a line.
_LAST_WORDS_S = 10


def serve(
    *,
    bundles: tuple[Path, ...],
    port: int,
    serving: Mapping[str, Any],
    cors: tuple[str, ...],
    speculation: Mapping[str, Any],
    context: int | None,
    threads: int | None,
    no_hash: bool,
    verbose: bool,
) -> None:
    """Answer OpenAI's and ollama's clients with bundles, on this machine."""
    settings = ServerSettings(**serving, origins=cors)
    _require_packages()
    drafts = chosen_speculation(speculation)
    console = open_console(verbose)
    from llama_export.bundle.bundle import Bundle
    from llama_export.cli.chat.wording import say, say_substitute_runtime
    from llama_export.cli.terminal import TerminalProgress
    from llama_export.generation.opening import open_session
    from llama_export.serving.catalogue import Catalogue, Opened
    from llama_export.targets import registry

    # First, or a port that another has is found out about after a large model is loaded.
    with _bound(settings.host, port) as taken:
        opened = []
        for folder in bundles:
            session = open_session(
                folder,
                threads=threads,
                max_context=context,
                verbose=verbose,
                verify=not no_hash,
                steps=TerminalProgress(console),
                speculation=drafts,
            )
            say_substitute_runtime(console, session.substitute_runtime)
            manifest = Bundle.open(folder).manifest
            opened.append(
                Opened(
                    folder,
                    manifest,
                    session,
                    frees_interpreter=registry.get(manifest.target).frees_interpreter,
                    draft_bytes_per_token=_draft_bytes_per_token(drafts),
                )
            )
        catalogue = Catalogue(opened, settings)
        for each in catalogue.served:
            say(console, f"{each.id}: {each.session.identity.name}", "dim")
        _run(catalogue, settings, taken, console)


def _draft_bytes_per_token(drafts: Speculation | None) -> int:
    """Return the growth of a draft model's KV cache by a token; 0: none drafts, or none knows."""
    from llama_export.bundle.bundle import Bundle

    if drafts is None or drafts.draft is None:
        return 0
    memory = Bundle.open(drafts.draft).manifest.memory or {}
    return memory.get("kv_bytes_per_token", 0)


def _require_packages() -> None:
    """Refuse to serve without the packages of the extra.

    Raises:
        BackendUnavailableError: names those that are missing.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        message = f"serve needs {' and '.join(missing)}, which this environment does not have"
        raise BackendUnavailableError(message, 'pip install "llama-export[serve]"')


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Have a port within the block, on which nobody listens yet.

    Raises:
        OutputError: it is taken, or is not this user's to take.
    """
    import uvicorn

    config = uvicorn.Config("", host=host, port=port, log_config=None, log_level="critical")
    try:
        taken = config.bind_socket()
    except SystemExit as error:  # uvicorn ends the program where it cannot bind
        raise _taken_by_another(host, port) from error
    with taken:
        yield taken


def _taken_by_another(host: str, port: int) -> OutputError:
    message = f"port {port} of {host} cannot be taken: another program has it, or it is not "
    return OutputError(f"{message}yours to take", "choose another one with --port")


def _run(
    catalogue: Catalogue, settings: ServerSettings, taken: socket.socket, console: Console
) -> None:
    """Serve on a bound port until Ctrl-C, or until the system ends it.

    Raises:
        OutputError: somebody else listens there meanwhile.
    """
    import uvicorn

    from llama_export.cli.chat.wording import say
    from llama_export.cli.signals import InterruptedBySignal
    from llama_export.serving.app import make_app

    class Server(uvicorn.Server):
        """Lets the answers end before it waits for them."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            catalogue.stop()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        make_app(catalogue, settings, lambda line: console.print(str(line), soft_wrap=True)),
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_LAST_WORDS_S,
    )
    port = taken.getsockname()[1]
    try:
        # From here on a client waits, and is not refused, until the server has begun.
        taken.listen(config.backlog)
    except OSError as error:  # of two that are bound to it, one may listen
        raise _taken_by_another(settings.host, port) from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{port}"
    try:
        say(console, f"{address}/v1 answers, and {address} is a page; Ctrl-C ends it", "")
        Server(config).run(sockets=[taken])
    except InterruptedBySignal as ended:
        if ended.exit_code != 128 + signal.SIGINT:
            raise
        say(console, "the server has ended", "dim")


def _require_no_empty_key(
    _context: click.Context, _option: click.Parameter, key: str | None
) -> str:
    """Refuse a key that was named and is empty: a variable of the shell that is not set.

    Raises:
        UsageError: it is.
    """
    if key == "":
        message = "--api-key is empty"
        raise UsageError(message, "give a key, or leave the option out where none is wanted")
    return key or ""


SERVING = (
    click.Option(
        ["--host"],
        default=defaults.HOST,
        metavar="ADDRESS",
        help="Listen on this address; others than the machine's own need a key.",
    ),
    click.Option(
        ["--api-key"],
        envvar="LLAMA_EXPORT_API_KEY",
        callback=_require_no_empty_key,
        metavar="KEY",
        help="Answer to this key alone.",
        show_default="LLAMA_EXPORT_API_KEY, or none",
    ),
    click.Option(
        ["--parallel"],
        type=click.IntRange(min=1),
        default=defaults.PARALLEL,
        metavar="N",
        help="Write so many answers in turns; others wait.",
    ),
    click.Option(
        ["--queue"],
        type=click.IntRange(min=0),
        default=defaults.QUEUE,
        metavar="N",
        help="Let so many requests wait; others are told to come again.",
    ),
    click.Option(
        ["--timeout", "timeout_s"],
        type=click.FloatRange(min=0, min_open=True),
        default=defaults.TIMEOUT_S,
        metavar="SECONDS",
        help="The longest time of a request.",
    ),
    click.Option(
        ["--max-tokens", "-n"],
        type=click.IntRange(min=1),
        default=defaults.MAX_TOKENS,
        metavar="N",
        help="The most new tokens that a request may ask for.",
    ),
    click.Option(
        ["--cache-memory", "cache_mb"],
        type=click.IntRange(min=0),
        default=defaults.CACHE_MB,
        metavar="MB",
        help="Memory for the caches of earlier conversations of each bundle; 0: none.",
    ),
    click.Option(
        ["--body-limit", "body_mb"],
        type=click.IntRange(min=1),
        default=defaults.BODY_MB,
        metavar="MB",
        help="The largest body of a request.",
    ),
)

SERVE = Verb(
    "serve",
    serve,
    (
        Section(
            "Server",
            (
                click.Option(
                    ["--port"],
                    type=click.IntRange(min=0, max=65535),
                    default=defaults.PORT,
                    metavar="N",
                    help="Listen on this port; 0: any free one.",
                ),
                *SERVING,
                click.Option(
                    ["--cors"],
                    multiple=True,
                    metavar="ORIGIN",
                    help="Let pages of this origin ask; repeat it for more, '*' is all.",
                ),
            ),
        ),
        SPECULATION,
        Section(
            "Run",
            (
                click.Option(
                    ["--context"],
                    type=click.IntRange(min=1),
                    metavar="N",
                    help="Use only so many positions of a conversation.",
                    show_default="all",
                ),
                THREADS,
                NO_HASH,
                VERBOSE,
            ),
        ),
    ),
    positionals=(
        Positional(
            click.Argument(["bundles"], type=PATH, nargs=-1, required=True),
            "Bundles: folders with a manifest.json.",
        ),
    ),
    gathered={"serving": SERVING, "speculation": SPECULATION.options},
    examples=(
        "llama-export serve 3.2-1B/onnx",
        "llama-export serve 3.2-1B/onnx 3.2-3B/onnx --port 8000 --parallel 8",
    ),
)
