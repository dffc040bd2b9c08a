"""The page's files over HTTP: `/`, `/static/…`, and the policy that keeps the page to itself.

Knows nothing of pictures, networks or Ray: `router` is included by the application. Its routes need no API key, since a browser cannot
send one before the page has asked for it; they hold nothing that is not in this package, and are no part of the API's document.

The files are read once, into memory (about 120 KB), and answered with an ETag: a browser asks again at each visit and gets 304, so a new
version of the service is seen at once. Only names that were found at the start are served; no path of a request ever meets the disk.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

router = APIRouter(include_in_schema=False)

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # what the user gave and what the service answered, which the page holds as blobs
        "connect-src 'self'",  # a WebSocket to the same host included
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no text ever becomes markup
        "trusted-types worker",  # the one policy: it lets the page start its own worker and nothing else
    ]
)
"""No inline script, no inline style, no eval, no other host."""

HEADERS = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "Cache-Control": "no-cache"}
"""In place of the gate's; the others of every answer it adds."""

INDEX = "index.html"
SAMPLES = ("nagasaki-boats.jpg", "dust-bowl-home.jpg", "french-alpine-landscape.jpg")
"""Pictures of the bundled archive, for a visitor who has none at hand: `/static/sample/NAME`."""

_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One file of the page."""

    content: bytes
    """As it is on the disk."""

    media_type: str
    """What Content-Type says."""

    tag: str
    """The ETag: changes with the content."""


@cache
def assets() -> dict[str, Asset]:
    """All files of the page by the name below `/static/`; `index.html` among them."""
    found = {entry.name: entry.read_bytes() for entry in files("colorize.serve.page").joinpath("static").iterdir() if entry.is_file()}
    archive = files("colorize").joinpath("sample", "archive")
    found |= {f"sample/{name}": archive.joinpath(name).read_bytes() for name in SAMPLES}
    return {
        name: Asset(
            content=content,
            media_type=_MEDIA_TYPES[name[name.rindex(".") :]],
            tag=f'"{hashlib.sha256(content).hexdigest()[:16]}"',
        )
        for name, content in found.items()
    }


@router.get("/")
async def page(request: Request) -> Response:
    """The page."""
    return _answer(request, assets()[INDEX])


@router.get("/static/{name:path}")
async def file(request: Request, name: str) -> Response:
    """One of its files, or 404."""
    asset = assets().get(name)
    if asset is None:
        return JSONResponse({"error": f"{request.method} {request.url.path}: not found"}, 404, HEADERS)
    return _answer(request, asset)


def _answer(request: Request, asset: Asset) -> Response:
    headers = HEADERS | {"ETag": asset.tag}
    if asset.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, media_type=asset.media_type, headers=headers)
