"""The gate: what every request and every web socket passes before a route sees it, and what every answer gets on its way out.

Who may come in: with API keys, whoever sends one, as often as its bucket allows; without any, only this machine, whatever the proxy
listens on, and no web page of another site that a browser on this machine happens to show. `X-Forwarded-…` and the like are not
believed: that they are there at all means a proxy, and so another machine. A proxy on this machine that sends none of them is not
told from a local client: it must set `X-Forwarded-For`, or there must be keys. What needs a key is named in KEYED. Knows nothing of
pictures; the requests are counted here, since every one passes.
"""

import asyncio
import ipaddress
import math
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colorize.serve.desk import Desk

KEYED = ("/v1", "/metrics")
"""The paths for which a key is needed, and what lies below them; all others (the page, the health checks, the document) are free."""

KEY_PROTOCOL = "key."
"""How a web socket of a browser, which sends no headers of its own, brings its key: as the subprotocol `key.KEY`."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""On every answer; a route that sets one of them itself keeps its own."""

GONE = 499
"""What a request counts as whose client did not wait for its answer."""

_OF_PROXIES = ("forwarded", "x-real-ip", "via")
_BY_PROXIES = "x-forwarded-"
_ROUTE_OF_NONE = "other"


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app, self._desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        began, status, is_socket = time.monotonic(), 500, scope["type"] == "websocket"

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            refused = self._refused(scope)
            if refused is None:
                await self._app(scope, receive, send_on)
            elif is_socket:
                status = refused.status_code
                await send({"type": "websocket.close", "code": 1008, "reason": ""})
            else:
                await refused(scope, receive, send_on)
        except asyncio.CancelledError:  # the client went away
            status = GONE
            raise
        finally:
            route = getattr(scope.get("route"), "path", _ROUTE_OF_NONE)
            method = "WS" if is_socket else scope["method"] if scope["method"] in _METHODS else _ROUTE_OF_NONE
            self._desk.meter.request(route, method, status, time.monotonic() - began)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        """The answer to a request that may not come in."""
        headers, keys = Headers(scope=scope), self._desk.keys
        if not keys and not is_local(scope, headers):
            self._desk.meter.failed("forbidden")
            return _error(403, "this service has no API keys (COLORIZE_API_KEYS), so it answers its own machine only")
        if is_foreign(headers):
            self._desk.meter.failed("forbidden")
            return _error(403, "a web page of another site may not use this service")
        path = path_of(scope)
        if not keys or not any(path == part or path.startswith(f"{part}/") for part in KEYED):
            return None
        key = key_of(scope, headers)
        bucket = None if key is None else keys.bucket_of(key)
        if bucket is None:
            self._desk.meter.failed("unauthorized")
            reason = "send an API key: Authorization: Bearer KEY" if key is None else "the API key is not one of this service's"
            return _error(401, reason, {"WWW-Authenticate": "Bearer"})
        if seconds := bucket.seconds_to_wait():
            self._desk.meter.failed("rate")
            return _error(429, "too many requests with this key; try again", {"Retry-After": str(math.ceil(seconds))})
        bucket.take(1)
        scope["colorize.bucket"] = bucket
        return None


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": reason}, status, headers)


def path_of(scope: Scope) -> str:
    """The path as the routes know it. Where the application has a prefix (`route_prefix` of a deployment), ASGI leaves it in `path`."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def key_of(scope: Scope, headers: Headers) -> str | None:
    """The key that came with a request, or with a web socket; None where none came."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    if scope["type"] == "websocket":
        for protocol in scope.get("subprotocols", ()):
            if protocol.startswith(KEY_PROTOCOL):
                return str(protocol.removeprefix(KEY_PROTOCOL))
    return None


def accepted_protocol(offered: Iterable[str]) -> str | None:
    """The subprotocol with which to accept a web socket: a browser that offered some hangs up where none comes back.

    One that is no key, where there is one beside it, so that the key is not sent back.
    """
    listed = list(offered)
    return next((protocol for protocol in listed if not protocol.startswith(KEY_PROTOCOL)), listed[0] if listed else None)


def is_local(scope: Scope, headers: Headers) -> bool:
    """Whether both ends of the connection are on this machine, and the client knows it: by an address or name of this machine's only.

    The name is looked at because a site whose own name is made to point to 127.0.0.1 would be the same site to a browser. What a proxy on
    this machine passes on comes from elsewhere, whatever it says; but it must say that it is one, by a header of proxies. nginx by default
    sends none, and 127.0.0.1 as the name: behind it, strangers look local.
    """
    if any(name in _OF_PROXIES or name.startswith(_BY_PROXIES) for name in headers):
        return False
    ends = [scope.get("client"), scope.get("server")]
    if not all(end is not None and _is_loopback(end[0]) for end in ends):
        return False
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name.lower() == "localhost" or _is_loopback(name.removeprefix("[").removesuffix("]"))


def is_foreign(headers: Headers) -> bool:
    """Whether a browser says that a page of another site sent this."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
        except ValueError:  # it is no address
            return True
    return headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
