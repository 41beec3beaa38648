"""Evaluate a bundle: on the tasks and the documents that were asked for.

It brings the parts together, and neither reads a file nor shows anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_export.errors import BundleError, UsageError
from llama_export.evaluation.scores import Evaluation, TextScore
from llama_export.evaluation.tasks import HARNESS, TaskRequest, score_tasks
from llama_export.verification.identity import identify, running_versions

if TYPE_CHECKING:
    from llama_export.bundle.manifest import Manifest
    from llama_export.bundle.unchanged import Steps
    from llama_export.evaluation.documents import Documents
    from llama_export.generation.text_session import TextSession


@dataclass(frozen=True)
class EvaluationRequest:
    """What a bundle is scored on.

    Args:
        tasks: tasks of lm-eval; None: none.
        documents: documents whose perplexity is measured; None: none.
        command: command line, without tokens of the hub; empty for a call from Python.
    """

    tasks: TaskRequest | None
    documents: Documents | None
    command: str = ""


def require_scorable(session: TextSession, *, chat_template: bool) -> None:
    """Refuse a bundle that cannot be scored as it was asked for.

    Raises:
        BundleError: its head was pruned.
        UsageError: it has no chat template, and one is wanted.
    """
    if not session.cache.has_whole_head:
        message = f"{session.name}: a head that lacks a text's tokens cannot be scored on it"
        raise BundleError(message, "score a bundle whose head is whole")
    if chat_template and not session.chat_format.is_for_chat:
        message = f"{session.name} is a base model, and has no chat template"
        raise UsageError(message, "leave --chat-template out")


def evaluate_session(
    session: TextSession, manifest: Manifest, request: EvaluationRequest, progress: Steps
) -> Evaluation:
    """Evaluate a bundle, as it is shipped, in its own runtime.

    Args:
        session: session of the bundle; its cache is taken over.
        manifest: manifest of the bundle.
        request: what it is scored on.
        progress: where the steps are shown.

    Raises:
        BundleError: the head was pruned, or the runtime fails.
        PromptError, TokenizerError: a text cannot be scored.
        UsageError, HubError, BackendUnavailableError, LlamaExportError: a task cannot be run.
    """
    tasks, documents = request.tasks, request.documents
    require_scorable(session, chat_template=tasks is not None and tasks.chat_template)
    text = None
    if documents is not None:
        from llama_export.evaluation.perplexity import measure_perplexity

        with progress.step("Reading the text") as advance:
            measured = measure_perplexity(session, documents.texts, advance)
        text = TextScore(documents.names, documents.sha256, measured)
    return Evaluation(
        bundle={
            "name": session.identity.name,
            "target": manifest.target,
            "sha256": session.identity.sha256,
        },
        max_context=session.max_context,
        settings=_settings(tasks),
        tasks=None if tasks is None else score_tasks(session, tasks, progress),
        text=text,
        identity=identify(manifest, command=request.command),
    )


def _settings(tasks: TaskRequest | None) -> dict[str, object]:
    if tasks is None:
        return {}
    return {
        "tasks": list(tasks.names),
        "limit": tasks.limit,
        "num_fewshot": tasks.num_fewshot,
        "chat_template": tasks.chat_template,
        "harness": running_versions((HARNESS, "datasets")),
    }
