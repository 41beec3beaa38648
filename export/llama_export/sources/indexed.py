"""Which parts of a model's weights an index in a repository names.

It reads the index, which is small and comes first, and fetches nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from llama_export.checkpoints.hugging_face_files import read_index
from llama_export.errors import HubError
from llama_export.sources.hub import Repository
from llama_quantize.printable import shown_name

_MOST_SHOWN = 4


def indexed_parts(repository: Repository, index: Path, names: Collection[str]) -> tuple[str, ...]:
    """Return the parts that an index names, and itself.

    Args:
        repository: repository that it is of.
        index: the file, fetched.
        names: files of the repository.

    Raises:
        CheckpointError: the index is damaged.
        HubError: the repository lacks some of the parts.
    """
    parts = sorted(set(read_index(index).values()))
    lacking = [name for name in parts if name not in names]
    if lacking:
        shown = ", ".join(map(shown_name, lacking[:_MOST_SHOWN]))
        more = f" and {len(lacking) - _MOST_SHOWN} more" if len(lacking) > _MOST_SHOWN else ""
        message = f"{repository.hub_id} at {repository.revision} lacks {shown}{more}, which "
        message += f"{index.name} names"
        raise HubError(message, "ask its maker for these files, or name another revision")
    return (*parts, index.name)
