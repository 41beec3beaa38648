"""`llama-export evaluate`: score a bundle on tasks of lm-eval, or on a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_export.cli.options import BUNDLE, JSON, NO_HASH, PATH, THREADS, VERBOSE, open_console
from llama_export.cli.tokens import command_line
from llama_export.cli.verb import Section, Verb
from llama_export.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from llama_export.evaluation.scores import Evaluation, Score, TextScore
    from llama_export.evaluation.tasks import TaskRequest


def evaluate(
    *,
    bundle: Path,
    of_tasks: Mapping[str, Any],
    text: tuple[Path, ...],
    context: int | None,
    output: Path | None,
    threads: int | None,
    no_hash: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Score a bundle on tasks, or measure its perplexity on a text."""
    tasks = _chosen_tasks(of_tasks)
    if tasks is None and not text:
        message = "evaluate needs --tasks or --text"
        raise UsageError(message, "llama-export evaluate 3.2-1B/onnx --tasks arc_easy --limit 100")
    console = open_console(verbose)
    from llama_export.bundle.bundle import Bundle
    from llama_export.cli.console import results
    from llama_export.cli.output import write_json
    from llama_export.cli.terminal import TerminalProgress, show_note
    from llama_export.evaluation.documents import read_documents
    from llama_export.evaluation.evaluate import EvaluationRequest, evaluate_session
    from llama_export.evaluation.scores import FIRST_LINE
    from llama_export.evaluation.tasks import require_harness
    from llama_export.generation.opening import open_session
    from llama_export.verification.report.report_file import check_place, replace_file

    documents = read_documents(text) if text else None
    if tasks is not None:
        require_harness()
    if output is not None:
        check_place(output, FIRST_LINE)
    progress = TerminalProgress(console)
    opened = Bundle.open(bundle)
    session = open_session(
        bundle,
        threads=threads,
        max_context=context,
        verbose=verbose,
        verify=not no_hash,
        steps=progress,
    )
    with session:
        request = EvaluationRequest(tasks, documents, command_line())
        found = evaluate_session(session, opened.manifest, request, progress)
    # Shown first: a file that cannot be written must not cost the figures.
    if as_json:
        write_json(found.to_json())
    else:
        for table in _tables(found):
            results().print(table)
    if output is not None:
        replace_file(output, found.to_text().encode())
    if found.tasks is not None and found.tasks.shortened:
        lost = f"{found.tasks.shortened} requests lost the beginning of their context, which has"
        show_note(console, f"{lost} room for {found.max_context} tokens")


def _chosen_tasks(typed: Mapping[str, Any]) -> TaskRequest | None:
    """Return what was asked of tasks; None: nothing.

    Raises:
        UsageError: an option of tasks without any.
    """
    from llama_export.evaluation.tasks import TaskRequest

    names = [name.strip() for name in str(typed.get("tasks", "")).split(",") if name.strip()]
    given = [name for name, value in typed.items() if value not in (False, None)]
    if not names:
        if given:
            option = f"--{given[0].replace('_', '-')}"
            message = f"{option} has no use without the name of a task"
            raise UsageError(message, "for example --tasks arc_easy,hellaswag")
        return None
    return TaskRequest(
        names=tuple(dict.fromkeys(names)),
        limit=typed.get("limit"),
        num_fewshot=typed.get("num_fewshot"),
        chat_template=bool(typed.get("chat_template")),
        include_path=typed.get("include_path"),
    )


def _tables(found: Evaluation) -> list[Table]:
    tables = []
    if found.text is not None:
        tables.append(_text_table(found.text, found.bundle["name"]))
    if found.tasks is not None:
        tables.append(_task_table(found.tasks.scores, found.bundle["name"], found.settings))
    return tables


def _task_table(scores: tuple[Score, ...], name: str, settings: Mapping[str, object]) -> Table:
    from rich.table import Table

    limit = settings["limit"]
    some = "" if limit is None else f", the first {limit} documents of each task"
    table = Table(title=f"{name}{some}", title_justify="left")
    table.add_column("task", overflow="fold")
    for heading in ("examples", "documents", "metric"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    table.add_column("value ± error", justify="right", no_wrap=True)
    previous = ""
    for each in scores:
        how = "" if each.filter == "none" else f", {each.filter}"
        counts = (_count(each.num_fewshot), _count(each.documents))
        first = ("", "", "") if each.task == previous else (each.task, *counts)
        table.add_row(*first, f"{each.metric}{how}", _value(each))
        previous = each.task
    return table


def _text_table(text: TextScore, name: str) -> Table:
    from rich.table import Table

    found = text.perplexity
    table = Table(
        title=f"{name}: {', '.join(text.files)}",
        title_justify="left",
        caption=f"± over {found.units} draws, each a {found.unit}",
        caption_justify="left",
    )
    table.add_column("")
    table.add_column("", justify="right", no_wrap=True)
    table.add_row("perplexity", found.perplexity.shown())
    table.add_row("bits per byte", found.bits_per_byte.shown())
    table.add_row("documents", str(found.documents))
    table.add_row("tokens", str(found.tokens))
    return table


def _value(score: Score) -> str:
    from llama_export.verification.estimate import Estimate

    if score.value is None:
        return "none"
    if score.error:
        return Estimate(score.value, score.error).shown()
    return f"{score.value:.5g}"


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


_TASKS = Section(
    "Tasks",
    (
        click.Option(
            ["--tasks"],
            metavar="NAME,NAME",
            help="Tasks of lm-eval, such as arc_easy,hellaswag,wikitext. Their data come from the "
            "hub.",
        ),
        click.Option(
            ["--limit"],
            type=click.IntRange(min=1),
            metavar="N",
            help="The most documents of each task.",
            show_default="all",
        ),
        click.Option(
            ["--num-fewshot"],
            type=click.IntRange(min=0),
            metavar="N",
            help="Examples before each question.",
            show_default="as the task says",
        ),
        click.Option(
            ["--chat-template"],
            is_flag=True,
            help="Send each question as a user's message (Instruct models).",
        ),
        click.Option(
            ["--include-path"],
            type=PATH,
            metavar="FOLDER",
            help="Tasks of your own, in lm-eval's YAML. Python code that they name is run: use "
            "files that you trust.",
        ),
    ),
)

EVALUATE = Verb(
    "evaluate",
    evaluate,
    (
        _TASKS,
        Section(
            "Text",
            (
                click.Option(
                    ["--text"],
                    type=PATH,
                    multiple=True,
                    metavar="FILE",
                    help="Measure the perplexity of a text; of a .jsonl file each line's is a "
                    "document. Repeat it for more.",
                ),
            ),
        ),
        Section(
            "Run",
            (
                click.Option(
                    ["--context"],
                    type=click.IntRange(min=1),
                    metavar="N",
                    help="Use at most so many positions.",
                    show_default="all that the bundle has",
                ),
                click.Option(
                    ["--output", "-o"],
                    type=PATH,
                    metavar="FILE",
                    help="Write the result as JSON into a file as well.",
                ),
                THREADS,
                NO_HASH,
                JSON,
                VERBOSE,
            ),
        ),
    ),
    positionals=(BUNDLE,),
    gathered={"of_tasks": _TASKS.options},
    examples=(
        "llama-export evaluate 3.2-1B/onnx --tasks arc_easy,hellaswag --limit 200",
        "llama-export evaluate 3.2-1B/onnx --text mine.txt --output score.json",
    ),
)
