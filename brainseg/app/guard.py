"""Which requests are answered, and what a browser may load: gradio's page serves more than this page needs.

The page has no login, so another site open in the same browser must not reach it (by a request of its own, or by a
name that it points at this machine), and neither server nor browser may ask anything of any network. What a request
names as a file must be an upload: gradio, mounted, would read any file of this machine, or fetch an address.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ROUTES = (
    "/assets/",
    "/static/",
    "/svelte/",
    "/theme.css",
    "/favicon.ico",
    "/manifest.json",
    "/config",
    "/gradio_api/startup-events",
    "/gradio_api/app_id",
    "/gradio_api/info",
    "/gradio_api/heartbeat/",
    "/gradio_api/upload",
    "/gradio_api/file=",
    "/gradio_api/run/predict",
    "/gradio_api/queue/",
    "/gradio_api/cancel",
    "/gradio_api/reset",
)
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
UPLOAD = "/gradio_api/upload"
MOST_BODY = 16 * 2**20  # of any other request; it names the files of an upload, some 300 bytes each
KEPT_BY_BROWSER = ("/assets/", "/static/")  # scripts and fonts; of all else no copy may stay

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application in front of another one.

    Args:
        app: what answers the requests that are let through.
        hosts: names under which it may be reached; None for any.
        uploads: folder of the files that a request may name.
    """

    def __init__(self, app: App, hosts: tuple[str, ...] | None, uploads: Path) -> None:
        self.app, self.hosts, self.uploads = app, hosts, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 403 in place of `app` where a request is not of this page, and adds `HEADERS`."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        method, path = scope["method"], scope["path"]
        why = refused(method, path, _headers(scope), self.hosts)
        if not why and method not in ("GET", "HEAD") and not path.startswith(UPLOAD):
            body = await _body(receive)
            receive = _replayed(body, receive)
            why = "" if names_only_uploads(body, self.uploads) else "only files that were uploaded are read"
        if why:
            await _refuse(send, why)
            return

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = dict(HEADERS)
                if not path.startswith(KEPT_BY_BROWSER):
                    added["cache-control"] = "no-store"
                own = [pair for pair in message.get("headers", []) if pair[0].decode("latin-1").lower() not in added]
                message["headers"] = own + [(name.encode(), value.encode()) for name, value in added.items()]
            await send(message)

        await self.app(scope, receive, with_headers)


def refused(method: str, path: str, headers: dict[str, str], hosts: tuple[str, ...] | None) -> str:
    """Why a request is not answered; empty for one of this page.

    Args:
        method, path: of the request.
        headers: with names in lower case.
        hosts: as for `Guard`.
    """
    host = headers.get("host", "")
    if hosts is not None and urlsplit(f"//{host}").hostname not in hosts:
        return "this host name is not served"
    origin = headers.get("origin")
    if method not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != host:
        return "another site may not use this page"
    if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
        return "another site may not use this page"
    if path != "/" and not path.startswith(ROUTES):
        return "not part of this page"
    if "://" in unquote(path):
        return "nothing is fetched from elsewhere"
    return ""


def names_only_uploads(body: bytes, uploads: Path) -> bool:
    """Whether `body` is JSON in which every "path" is that of something under the folder `uploads`."""
    try:
        waiting = [json.loads(body or b"null")]
    except (ValueError, RecursionError):
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "path" in value and not _is_under(value["path"], uploads):
                return False
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return True


def _is_under(path: Any, folder: Path) -> bool:
    try:
        return Path(path).is_absolute() and Path(path).resolve().is_relative_to(folder.resolve())
    except (TypeError, ValueError, OSError):
        return False


async def _body(receive: Receive) -> bytes:
    """A whole request body; one beyond `MOST_BODY` is cut, and so is no JSON."""
    body = b""
    more = True
    while more and len(body) <= MOST_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Gives `body` as the first message, then what `receive` gives."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return replayed


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


async def _refuse(send: Send, why: str) -> None:
    plain = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 403, "headers": plain})
    await send({"type": "http.response.body", "body": why.encode()})
