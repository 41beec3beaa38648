"""The files of the site: a hook of mkdocs, named in mkdocs.yml.

mkdocs takes the pages below one folder. Ours link to files beside it as well, the README or
measured results, and are read at GitHub too. So the site has the layout of the repository: each
file keeps its path, and a relative link means the same in both. A link to a file that is not among
`SHOWN` fails a strict build.

It knows nothing of what a page says, nor of the order in which the site shows them.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# Patterns below the repository: pages, and what they lead to.
SHOWN = (
    "*.md",
    "LICENSE",
    "docs/*.md",
    "docs/site.css",
    "apps/*/README.md",
    "benchmarks/results/*.md",
    "benchmarks/results/*.png",
    "integrations/optimum/README.md",
)


def shown_files(root: Path) -> list[str]:
    """List the files that the site shows, as sorted paths below the repository."""
    found = {path for pattern in SHOWN for path in root.glob(pattern)}
    return sorted(path.relative_to(root).as_posix() for path in found)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Replace the files of the folder with those of the repository; the theme's stay."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    ours = [
        File(path, str(ROOT), config.site_dir, config.use_directory_urls)
        for path in shown_files(ROOT)
    ]
    return Files([*theme, *ours])
