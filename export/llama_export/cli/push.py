"""`llama-export push`: an output as a repository of the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_export.cli.options import JSON, PATH, TOKEN, VERBOSE, open_console
from llama_export.cli.output import write_json
from llama_export.cli.push_options import LICENCE, PRIVATE, send
from llama_export.cli.verb import Positional, Section, Verb
from llama_export.sources.upload import MAIN, MESSAGE
from llama_export.system.byte_sizes import format_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from llama_export.exporting.publishing.push import PushPlan
    from llama_export.sources.upload import Sent, Upload


def push(
    *,
    output: Path,
    repository: str,
    private: bool,
    branch: str,
    create_pr: bool,
    message: str,
    replace: bool,
    licence: str | None,
    with_weights: bool,
    token: str | None,
    dry_run: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Push the bundles of an export to the hub, with a model card, in one commit."""
    console = open_console(verbose)
    from llama_export.cli.console import results
    from llama_export.exporting.publishing.push import PushRequest, plan_push, require_hub_id
    from llama_export.sources.upload import Destination, Upload

    require_hub_id(repository)
    upload = Upload(
        Destination(
            repository,
            branch=branch,
            private=private or None,
            as_request=create_pr,
            message=message,
            replace=replace,
            token=token,
        )
    )
    plan = plan_push(PushRequest(output, repository, licence, with_weights), upload.base_card)
    if dry_run:
        if as_json:
            write_json(_to_json(plan, upload, None))
        else:
            results().print(_table(plan, upload))
            console.print(_would(upload))
        return
    upload.require_account()
    sent = send(console, plan, upload)
    if as_json:
        write_json(_to_json(plan, upload, sent))
        return
    where = sent.request_url or upload.address
    results().print(f"{where}, {format_bytes(plan.size_bytes)}", soft_wrap=True)


def _would(upload: Upload) -> str:
    """Return a line on where it would go, and that it did not."""
    place = upload.destination
    seen = " of a private repository" if place.private else ""
    how = "as a pull request to" if place.as_request else "to"
    return f"Nothing was sent; it would go {how} branch {place.branch}{seen}."


def _to_json(plan: PushPlan, upload: Upload, sent: Sent | None) -> dict[str, Any]:
    return {
        "repository": upload.address,
        "licence": plan.terms.licence,
        "size_bytes": plan.size_bytes,
        "commit": sent.commit_url if sent else None,
        "pull_request": sent.request_url if sent else None,
        "files": [{"path": each.name, "size_bytes": each.size_bytes} for each in plan.files],
    }


def _table(plan: PushPlan, upload: Upload) -> Table:
    from rich.table import Table

    title = f"{upload.address}, licence {plan.terms.licence}: {format_bytes(plan.size_bytes)}"
    table = Table(title=title, title_justify="left")
    table.add_column("file")
    table.add_column("size", justify="right")
    for each in plan.files:
        table.add_row(each.name, format_bytes(each.size_bytes))
    return table


PUSH = Verb(
    "push",
    push,
    (
        Section(
            "Repository",
            (
                PRIVATE,
                click.Option(
                    ["--branch", "--revision"],
                    default=MAIN,
                    help="Branch; one that is missing is made.",
                ),
                click.Option(
                    ["--create-pr"], is_flag=True, help="Open a pull request, and commit nothing."
                ),
                click.Option(["--message"], default=MESSAGE, help="First line of the commit."),
                click.Option(
                    ["--replace"],
                    is_flag=True,
                    help="Replace files of the same names that llama-export did not push.",
                ),
                LICENCE,
                TOKEN,
            ),
        ),
        Section(
            "Options",
            (
                click.Option(
                    ["--with-weights"], is_flag=True, help="Send the quantised weights too."
                ),
                click.Option(
                    ["--dry-run"], is_flag=True, help="Only list what would be sent, with sizes."
                ),
                JSON,
                VERBOSE,
            ),
        ),
    ),
    positionals=(
        Positional(click.Argument(["output"], type=PATH), "The folder that an export wrote."),
        Positional(click.Argument(["repository"], metavar="OWNER/NAME"), "Its name on the hub."),
    ),
    examples=(
        "llama-export push 3.2-1B-Instruct me/Llama-3.2-1B-Instruct-int4 --private",
        "llama-export push 3.2-1B-Instruct me/Llama-3.2-1B-Instruct-int4 --dry-run",
    ),
)
