"""The options of a push, which the verb and the export share, and what both do with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_export.cli.verb import Section
from llama_export.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from llama_export.exporting.plan import ExportPlan
    from llama_export.exporting.publishing.push import PushPlan
    from llama_export.sources.upload import Sent, Upload

PRIVATE = click.Option(["--private"], is_flag=True, help="Let nobody else see the repository.")
LICENCE = click.Option(
    ["--licence", "--license"],
    metavar="ID",
    help="Licence of the model, as the hub names it.",
    show_default="as the model's files say",
)
PUSH_SECTION = Section(
    "Hub",
    (
        click.Option(
            ["--push"], metavar="OWNER/NAME", help="Push the output to this repository of the hub."
        ),
        PRIVATE,
        LICENCE,
    ),
)
PUSH_OPTIONS = {"pushing": PUSH_SECTION.options}
"""How the export's options reach it: what was typed, by name."""


@dataclass(frozen=True)
class PushOnExport:
    """A push that follows an export.

    Args:
        hub_id: `OWNER/NAME`.
        private: whether nobody else may see it.
        licence: identifier of the licence; None: as the files say.
        token: token that was given; None: none was.
    """

    hub_id: str
    private: bool
    licence: str | None
    token: str | None


def chosen_push(typed: Mapping[str, object], token: str | None) -> PushOnExport | None:
    """Return the push that was asked for beside an export; None: none was.

    Args:
        typed: values of the options that were typed, by name.
        token: value of --token.

    Raises:
        UsageError: an option of a push, and no push; or what cannot be a repository's name.
    """
    hub_id, licence = typed.get("push"), typed.get("licence")
    private = typed.get("private") is True
    if not isinstance(hub_id, str):
        if private or licence is not None:
            message = (
                f"{'--private' if private else '--licence'} is for a push, and none is asked for"
            )
            raise UsageError(message, "add --push OWNER/NAME")
        return None
    from llama_export.exporting.publishing.push import require_hub_id

    require_hub_id(hub_id)  # before a recipe is searched for minutes
    return PushOnExport(hub_id, private, licence if isinstance(licence, str) else None, token)


def send(console: Console, plan: PushPlan, upload: Upload) -> Sent:
    """Check what is planned, and send it.

    Raises:
        BundleError: it changed since it was written.
        HubError, GatedModelError: it cannot be sent.
    """
    from llama_export.bundle.root_files import RECORD_NAME
    from llama_export.cli.terminal import TerminalProgress

    progress = TerminalProgress(console)
    with progress.step("Comparing the hashes") as advance:
        plan.check(advance)
    with progress.step(f"Sending to {upload.address}") as advance:
        return upload.send(plan.files, RECORD_NAME, advance)


@dataclass(frozen=True)
class PreparedPush:
    """A push that nothing known beforehand refuses.

    Args:
        push: as it was asked for.
        upload: connection to its repository.
        licence: identifier of the licence that allows it.
    """

    push: PushOnExport
    upload: Upload
    licence: str

    def to_json(self, sent: Sent | None) -> dict[str, object]:
        """Return where it goes, and where it went; None: nothing was sent."""
        return {
            "repository": self.upload.address,
            "private": self.push.private,
            "licence": self.licence,
            "commit": sent.commit_url if sent else None,
        }


def prepare_push(
    push: PushOnExport | None, plan: ExportPlan, *, dry_run: bool
) -> PreparedPush | None:
    """Refuse before an export what the push would refuse after it.

    Args:
        push: push that was asked for; None: none was, and nothing is done.
        plan: plan of the export.
        dry_run: whether nothing will be sent, which needs no account.

    Raises:
        UsageError: the licence is not known, or does not allow the name.
        HubError, GatedModelError: no account can be used.
    """
    if push is None:
        return None
    from llama_export.exporting.publishing.push import PushRequest, require_pushable
    from llama_export.sources.upload import Destination, Upload

    upload = Upload(Destination(push.hub_id, private=push.private or None, token=push.token))
    request = PushRequest(plan.output, push.hub_id, push.licence)
    terms = require_pushable(request, plan, upload.base_card)
    if not dry_run:
        upload.require_account()
    return PreparedPush(push, upload, terms.licence)


def push_output(console: Console, prepared: PreparedPush | None, output: Path) -> Sent | None:
    """Push what was exported, where that was asked for.

    Raises:
        LlamaExportError: it cannot be pushed.
    """
    if prepared is None:
        return None
    from llama_export.cli.terminal import show_note
    from llama_export.exporting.publishing.push import PushRequest, plan_push

    request = PushRequest(output, prepared.push.hub_id, prepared.push.licence)
    upload = prepared.upload
    sent = send(console, plan_push(request, upload.base_card), upload)
    show_note(console, f"pushed: {sent.commit_url}")
    return sent
