"""The built-in page: the files of `page/`, and the headers that keep it to this server.

The page holds nothing secret and nothing of a model, so it is given without a key; what it asks
the server for needs one. The module knows files and headers; what the page does is in its scripts.
"""

from __future__ import annotations

from importlib import resources
from pathlib import PurePosixPath
from types import MappingProxyType

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = "page"
_INDEX, _ICON = "page.html", "icon.svg"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FILES = (
    "answer_stream.mjs",
    "blocks.mjs",
    "client.mjs",
    "controls.mjs",
    "conversation.mjs",
    "faults.mjs",
    _ICON,
    "log.mjs",
    "markdown.mjs",
    "page.css",
    _INDEX,
    "page.mjs",
    "settings.mjs",
    "stores.mjs",
    "theme.js",
)
PATHS = MappingProxyType(
    {"/": _INDEX, "/favicon.ico": _ICON}
    | {f"/{_FOLDER}/{name}": name for name in _FILES if name != _INDEX}
)
"""The file of each path of the page."""
# Own scripts and styles alone, no text that becomes HTML, no frame around it, and no other server:
# what a model writes can neither run nor fetch anything.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = MappingProxyType(
    {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
)


def page_routes() -> list[Route]:
    """Return the paths of the page, each with its file."""
    return [Route(path, _file, methods=["GET"]) for path in PATHS]


def _file(request: Request) -> Response:
    """Return the file of a path; read anew each time, for a page is opened seldom."""
    name = PATHS[request.scope["path"]]
    content = resources.files(__package__).joinpath(_FOLDER, name).read_bytes()
    kind = _TYPES[PurePosixPath(name).suffix]
    return Response(content, headers=_HEADERS, media_type=kind)
