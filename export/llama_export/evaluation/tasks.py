"""Score a bundle on tasks of lm-eval, with lm-eval's own harness.

lm-eval reads the tasks, fetches their data from the hub, and adds the answers up; the answers are
`harness`'s. What cannot be had, or must not be run, is refused by name. It shows nothing.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from llama_export.errors import (
    BackendUnavailableError,
    HubError,
    LlamaExportError,
    UsageError,
)
from llama_export.evaluation.scores import Score, TaskScores

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

    from llama_export.bundle.unchanged import Steps
    from llama_export.generation.text_session import TextSession

HARNESS = "lm_eval"
_ROOT = Path(__file__).resolve().parents[1]
# Of metrics without a formula for it; lm-eval's own 100,000 take minutes.
_BOOTSTRAP_DRAWS = 1000
_REMOTE_CODE = "trust_remote_code"
_DATA_HINT = (
    "tasks' data come from the hub: check the network, or keep the data beside a task of your own, "
    "in a folder for --include-path"
)
# Of the hub's client, of requests and of Python: what is raised where there is no network.
_NETWORK = (
    "ConnectionError",
    "ConnectError",
    "TimeoutError",
    "DatasetNotFoundError",
    "HfHubHTTPError",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
)


@dataclass(frozen=True)
class TaskRequest:
    """What a bundle is scored on.

    Args:
        names: names of tasks, groups or tags.
        limit: most documents of each task; None: all.
        num_fewshot: examples before each question; None: as each task says.
        chat_template: whether questions are sent as a user's messages.
        include_path: folder with tasks of the user's own, whose code is run; None: none.
    """

    names: tuple[str, ...]
    limit: int | None = None
    num_fewshot: int | None = None
    chat_template: bool = False
    include_path: Path | None = None


def require_harness() -> None:
    """Refuse to score where lm-eval is missing.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    if importlib.util.find_spec(HARNESS) is None:
        message = "tasks are scored by lm-eval, which is not installed"
        raise BackendUnavailableError(message, "pip install 'llama-export[evaluate]'")


def score_tasks(session: TextSession, request: TaskRequest, progress: Steps) -> TaskScores:
    """Score a bundle.

    Args:
        session: session of the bundle, whose head is whole; its cache is taken over.
        request: what it is scored on.
        progress: where the steps are shown.

    Raises:
        BackendUnavailableError: lm-eval, or a package that a task needs, is not installed.
        UsageError: there is no such task, or it needs what is refused here.
        HubError: a task's data cannot be had.
        LlamaExportError: a task cannot be run.
    """
    require_harness()
    # Read when tqdm is imported first; the steps are shown by `progress`.
    os.environ.setdefault("TQDM_DISABLE", "1")
    with progress.step("Reading the list of tasks"):
        manager = _manager(request)
    with progress.step("Loading the tasks and their data"), _refused(request.names):
        tasks = _loaded(manager, request.names)
    with progress.step("Scoring") as advance, _refused(request.names):
        return _scored(session, request, tasks, advance)


def _manager(request: TaskRequest) -> TaskManager:
    """Read which tasks there are, and refuse those that are not, or must not be run.

    Raises:
        UsageError: there is no such folder or task, or a task asks for code of a data set.
    """
    from lm_eval.tasks import TaskManager

    if request.include_path is not None and not request.include_path.is_dir():
        message = f"--include-path: there is no folder {request.include_path}"
        raise UsageError(message, "name the folder with your tasks' YAML files")
    manager = TaskManager(include_path=request.include_path, include_defaults=False)
    if request.include_path is None or _missing(manager, request.names):
        # lm-eval's own are 14,000 files.
        manager = TaskManager(include_path=request.include_path)
    for name in request.names:
        if name not in manager.task_index:
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            message = f"lm-eval has no task, group or tag {name!r:.80}"
            raise UsageError(message, f"{guess}your own come from the folder for --include-path")
    for task in _names(manager, request.names):
        entry = manager.task_index.get(task)
        if entry is not None and _asks_for_code(entry.cfg):
            message = f"{task} asks for {_REMOTE_CODE}: a data set's own code is never run"
            raise UsageError(message, "leave the task out, or point it at data without code")
    return manager


def _missing(manager: TaskManager, names: Sequence[str]) -> bool:
    """Whether a name, or a part of what it stands for, is none that the manager knows."""
    return any(each not in manager.task_index for each in _names(manager, names))


def _names(manager: TaskManager, names: Sequence[str]) -> list[str]:
    """Return the names, and those of all that they stand for."""
    waiting, seen = list(names), dict[str, None]()
    while waiting:
        name = waiting.pop()
        entry = manager.task_index.get(name)
        if name in seen or entry is None:
            seen.setdefault(name)
            continue
        seen[name] = None
        parts = list(entry.tags) if entry.cfg is None else entry.cfg.get("task")
        if isinstance(parts, list):
            named = [part.get("task") if isinstance(part, Mapping) else part for part in parts]
            waiting += [part for part in named if isinstance(part, str)]
    return list(seen)


def _asks_for_code(config: object) -> bool:
    if isinstance(config, Mapping):
        return bool(config.get(_REMOTE_CODE)) or any(map(_asks_for_code, config.values()))
    return isinstance(config, list) and any(map(_asks_for_code, config))


def _loaded(manager: TaskManager, names: Sequence[str]) -> list[Any]:
    """Load tasks with their data; return those that no loaded group holds, and the groups.

    Raises:
        UsageError: a task runs what the model writes, or shows it pictures.
    """
    import datasets

    datasets.disable_progress_bars()
    loaded = manager.load(list(names))
    for name, task in loaded["tasks"].items():
        for flag, what in (
            ("UNSAFE_CODE", "runs code that the model writes"),
            ("MULTIMODAL", "shows the model more than text"),
        ):
            if getattr(task, flag, False):
                message = f"{name} {what}, which is not done here"
                raise UsageError(message, "leave the task out")
    groups = loaded.get("groups", {})
    inside = {child for group in groups.values() for child in group.child_names}
    items = {**groups, **loaded["tasks"]}
    return [item for name, item in items.items() if name not in inside]


def _scored(
    session: TextSession,
    request: TaskRequest,
    tasks: list[Any],
    on_progress: Callable[[int, int], None],
) -> TaskScores:
    # Read when lm-eval is imported: a bootstrap would fork a process with a runtime in threads.
    os.environ.setdefault("LMEVAL_DISABLE_MULTIPROC", "1")
    from lm_eval.evaluator import simple_evaluate

    from llama_export.evaluation.harness import BundleLM

    model = BundleLM(session, on_progress)
    found = simple_evaluate(
        model,
        tasks=tasks,
        num_fewshot=request.num_fewshot,
        limit=request.limit,
        bootstrap_iters=_BOOTSTRAP_DRAWS,
        log_samples=False,
        apply_chat_template=request.chat_template,
    )
    return TaskScores(_scores_of(found or {}), model.shortened)


def _scores_of(found: Mapping[str, Any]) -> tuple[Score, ...]:
    """Return the scores in lm-eval's results, in their order: tasks, then groups."""
    scores = []
    for name, figures in [*found["results"].items(), *found.get("groups", {}).items()]:
        for key, value in figures.items():
            metric, _, way = key.partition(",")
            if not way or metric.endswith("_stderr"):
                continue
            error = figures.get(f"{metric}_stderr,{way}")
            scores.append(
                Score(
                    task=name,
                    metric=metric,
                    filter=way,
                    value=_number(value),
                    error=_number(error),
                    higher_is_better=found["higher_is_better"].get(name, {}).get(metric),
                    num_fewshot=found["n-shot"].get(name),
                    documents=figures.get("sample_len"),
                    version=str(found["versions"].get(name, "")),
                )
            )
    return tuple(scores)


def _number(value: object) -> float | None:
    """Return a number as a float; lm-eval writes "N/A" where there is none."""
    return float(value) if isinstance(value, SupportsFloat) else None


@contextmanager
def _refused(names: Sequence[str]) -> Iterator[None]:
    """Turn what a task does wrong into an error of ours; a fault of our own code stays one.

    Raises:
        HubError: data cannot be had.
        BackendUnavailableError: a package is missing.
        LlamaExportError: something else.
    """
    try:
        yield
    except LlamaExportError:
        raise
    except Exception as error:  # tasks run anybody's code; it is re-raised as ours
        if _is_ours(error):
            raise
        said = f"{', '.join(names)}: {type(error).__name__}: {error}"
        kinds = {each.__name__ for each in type(error).__mro__}
        if kinds & set(_NETWORK):
            message = f"the data of a task cannot be had: {said}"
            raise HubError(message, _DATA_HINT) from error
        if isinstance(error, ImportError):
            message = f"a task needs a package that is not installed: {said}"
            raise BackendUnavailableError(message, "install what it names") from error
        message = f"lm-eval cannot run a task: {said}"
        raise LlamaExportError(
            message, "look at its YAML file and its data; --verbose says more"
        ) from error


def _is_ours(error: Exception) -> bool:
    """Whether an error came from our own code below lm-eval, and not from a task."""
    files = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    own = Path(__file__)
    return any(_ROOT in file.parents and file != own for file in files)
