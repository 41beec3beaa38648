"""What a release says of itself: version, addresses and notes, in the files that carry them.

    python3 tools/release.py address https://github.com/OWNER/NAME
    python3 tools/release.py check vVERSION https://github.com/OWNER/NAME
    python3 tools/release.py notes vVERSION

`address` writes where the repository is into the metadata; `check` refuses a tag that the files do
not agree with, or metadata that name another repository than the one which publishes; `notes`
prints the version's section of the change log. It uses the standard library only, and knows nothing
of how a distribution is built. RELEASING.md has the steps.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION_FILE = "export/llama_export/version.py"
PLUGIN = "integrations/optimum/pyproject.toml"
PROJECTS = ("pyproject.toml", PLUGIN)
CITATION = "CITATION.cff"
CHANGES = "CHANGELOG.md"
_GITHUB = re.compile(r"https://github\.com/([\w-]+)/([\w.-]+)")
_URLS = re.compile(r"^\[project\.urls\]\n(?:[^\[\n].*\n)*\n?", flags=re.MULTILINE)


class ReleaseError(Exception):
    """The files do not make a release; the message has a line for each reason."""


@dataclass(frozen=True)
class Addresses:
    """Where a project is.

    Args:
        repository: its page at the host, without a slash at the end.
        site: its pages, as .github/workflows/docs.yml publishes them.
    """

    repository: str
    site: str

    @property
    def table(self) -> str:
        """The table of pyproject.toml, with the line break that ends it."""
        urls = {
            "Homepage": self.repository,
            "Documentation": self.site,
            "Repository": self.repository,
            "Issues": f"{self.repository}/issues",
            "Changelog": f"{self.repository}/blob/main/{CHANGES}",
        }
        return "[project.urls]\n" + "".join(f'{name} = "{url}"\n' for name, url in urls.items())

    @property
    def citation(self) -> str:
        """The lines of CITATION.cff."""
        return f"repository-code: {self.repository}\nurl: {self.site}\n"


def addresses_of(repository: str) -> Addresses:
    """Return the addresses of a repository.

    Raises:
        ReleaseError: it is not the page of a repository at GitHub, whose workflows these are.
    """
    found = _GITHUB.fullmatch(repository)
    if found is None:
        message = f"{repository} is not https://github.com/OWNER/NAME"
        raise ReleaseError(message)
    owner, name = found.groups()
    return Addresses(repository, f"https://{owner.lower()}.github.io/{name}/")


def with_table(project: str, table: str) -> str:
    """Return a pyproject.toml with this table of addresses, behind `[project]`."""
    rest = _URLS.sub("", project)
    begin = rest.index("\n[project]\n") + 1
    # Comments stand above the table that they are about.
    following = re.compile(r"\n(?:#.*\n)*\[").search(rest, begin)
    end = len(rest) if following is None else following.start() + 1
    return f"{rest[:end]}{table}\n{rest[end:]}"


def with_citation(citation: str, lines: str) -> str:
    """Return a CITATION.cff with these addresses above its keywords."""
    rest = re.sub(r"^(?:repository-code|url): .*\n", "", citation, flags=re.MULTILINE)
    before, keywords, after = rest.partition("keywords:")
    return f"{before}{lines}{keywords}{after}"


def notes_of(changes: str, version: str) -> str | None:
    """Return the section of a version in a change log, without its heading; None: there is none."""
    heading = re.compile(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d\n", flags=re.MULTILINE)
    found = heading.search(changes)
    if found is None:
        return None
    return changes[found.end() :].split("\n## [")[0].strip() + "\n"


def faults(texts: Mapping[str, str], tag: str, addresses: Addresses) -> list[str]:
    """List what keeps files from being the release of a tag.

    Args:
        texts: the files of `FILES` by their path.
        tag: what was pushed.
        addresses: of the repository that publishes.
    """
    version = tag.removeprefix("v")
    wanted = {
        VERSION_FILE: (f'__version__ = "{version}"\n',),
        PLUGIN: (f'\nversion = "{version}"', f'"llama-export=={version}"', addresses.table),
        "pyproject.toml": (addresses.table,),
        CITATION: (f"\nversion: {version}\n", addresses.citation),
    }
    found = [
        f"{path} lacks {expected.strip()!r}"
        for path, all_expected in wanted.items()
        for expected in all_expected
        if expected not in texts[path]
    ]
    if not tag.startswith("v"):
        found.append(f"the tag {tag} does not begin with v")
    if not notes_of(texts[CHANGES], version):
        found.append(f"{CHANGES} has no section [{version}] with a date")
    return found


FILES = (VERSION_FILE, *PROJECTS, CITATION, CHANGES)


def read(path: str) -> str:
    """Read a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def write(path: str, text: str) -> None:
    """Write a file of the repository."""
    (ROOT / path).write_text(text, encoding="utf-8")


def set_address(repository: str) -> None:
    """Write the addresses of a repository into the metadata."""
    addresses = addresses_of(repository)
    for path in PROJECTS:
        write(path, with_table(read(path), addresses.table))
    write(CITATION, with_citation(read(CITATION), addresses.citation))


def check(tag: str, repository: str) -> None:
    """Check that the files are the release of a tag.

    Raises:
        ReleaseError: they are not.
    """
    found = faults({path: read(path) for path in FILES}, tag, addresses_of(repository))
    if found:
        raise ReleaseError("\n".join(found))


def print_notes(tag: str) -> None:
    """Print the notes of a version.

    Raises:
        ReleaseError: the change log has none.
    """
    notes = notes_of(read(CHANGES), tag.removeprefix("v"))
    if notes is None:
        message = f"{CHANGES} has no section for {tag}"
        raise ReleaseError(message)
    print(notes, end="")


def main() -> int:
    """Do what the command line asks for."""
    actions: dict[tuple[str, int], Callable[..., None]] = {
        ("address", 1): set_address,
        ("check", 2): check,
        ("notes", 1): print_notes,
    }
    words = sys.argv[1:]
    action = actions.get((words[0], len(words) - 1)) if words else None
    if action is None:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        action(*words[1:])
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
