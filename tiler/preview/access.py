"""Who may talk to the server: a middleware before every handler.

On loopback without a token the danger is another web page in the user's own browser: its requests are
told by their Host (a name that was made to point here) and by their Origin. No CORS header is ever
sent, so no other page can read an answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler

from tiler.config.models import PreviewConfig, is_loopback

_PEERS = 1024
MAX_BODY_BYTES = 16 << 10
_BODY_S = 10.0
"""How long the body of a request may take."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
    "connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, the form of the token would come from Origin: null
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "tiler",
}
LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>tiler</title><h1>tiler</h1><p>%s</p>
<form method="post" action="/session"><label>Token <input name="token" type="password" autocomplete="current-password"
required autofocus></label> <button>Open</button></form></html>"""


class Allowance:
    """So many requests at once and so many a second for each peer; remembers the last peers only.

    >>> now = [0.0]
    >>> allowance = Allowance(burst=2, per_s=1, clock=lambda: now[0])
    >>> [allowance.take("a") for _ in range(3)], allowance.take("b")
    ([True, True, False], True)
    >>> now[0] = 1.0
    >>> allowance.take("a"), allowance.take("a")
    (True, False)
    """

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst, self._per_s, self._clock = burst, per_s, clock
        self._peers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, peer: str) -> bool:
        """Use one up; False when there is none."""
        now_s = self._clock()
        left = self._left(peer, now_s)
        allowed = left >= 1
        self._peers.pop(peer, None)
        self._peers[peer] = (left - allowed, now_s)
        if len(self._peers) > _PEERS:
            self._peers.popitem(last=False)
        return allowed

    def has(self, peer: str) -> bool:
        """Whether `take` would give one."""
        return self._left(peer, self._clock()) >= 1

    def _left(self, peer: str, now_s: float) -> float:
        left, since_s = self._peers.get(peer, (self._burst, now_s))
        return min(self._burst, left + (now_s - since_s) * self._per_s)


class Access:
    """Token, Host, Origin and rate of every request."""

    def __init__(self, config: PreviewConfig) -> None:
        self._token = config.token
        self._name = f"tiler-preview-{config.port}"  # cookies are for all ports of a host
        self._proxied = config.behind_proxy
        self._local = config.token is None and not config.behind_proxy
        self._requests = Allowance(burst=200, per_s=50)
        self._attempts = Allowance(burst=10, per_s=0.5)

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse what may not pass, and give every answer its headers."""
        refused = self._refusal(request)
        if refused is not None:
            refused.headers.update(_HEADERS)
            return refused
        try:
            response = await handler(request) if await _has_come(request) else problem(408, "the body did not come")
        except web.HTTPException as error:
            error.headers.update(_HEADERS)
            raise
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    async def session(self, request: web.Request) -> web.StreamResponse:
        """POST /session: a form with the token; answers with the cookie."""
        form = parse_qs((await request.read()).decode("utf-8", "replace"))
        guessed = self._guess(self._peer(request), form.get("token", [""])[0])
        if guessed is None:
            return web.Response(status=429, text=LOGIN % "Too many attempts: wait a little.", content_type="text/html")
        if not guessed:
            return web.Response(status=401, text=LOGIN % "That is not the token.", content_type="text/html")
        response = web.Response(status=303, headers={"Location": "/"})
        self._remember(request, response)
        return response

    def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        peer = self._peer(request)
        if not self._requests.take(peer):
            return problem(429, "too many requests: at most 50 a second")
        if self._local and not is_loopback(_host_name(request.host)):
            return problem(403, "this server answers to localhost and 127.0.0.1 only")
        if (request.content_length or 0) > MAX_BODY_BYTES:
            return problem(413, f"larger than {MAX_BODY_BYTES} bytes")
        origin = request.headers.get("Origin")
        if origin is not None and not self._same_origin(request, origin):
            return problem(403, "a request of another web page")
        if self._token is None or request.path == "/session" or self._has_cookie(request):
            return None
        page = request.method == "GET" and request.path in ("/", "/wall")
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        in_address = page and "token" in request.query
        if scheme.lower() == "bearer" or in_address:
            guessed = self._guess(peer, request.query["token"] if in_address else given.strip())
            if guessed is None:
                return problem(429, "too many attempts: wait a little")
            if guessed and in_address:  # out of the address bar, the history and the Referer at once
                response = web.Response(status=303, headers={"Location": request.path})
                self._remember(request, response)
                return response
            if guessed:
                return None
        if page:
            return web.Response(status=401, text=LOGIN % "A token is needed.", content_type="text/html")
        refused = problem(401, "a token is needed: Authorization: Bearer TOKEN")
        refused.headers["WWW-Authenticate"] = "Bearer"
        return refused

    def _same_origin(self, request: web.Request, origin: str) -> bool:
        """The page that asks comes from this server, as the browser sees it."""
        host = request.headers.get("X-Forwarded-Host", request.host) if self._proxied else request.host
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()

    def _guess(self, peer: str, given: str) -> bool | None:
        """Whether this is the token; None for a peer that has guessed too often, whatever it guesses now."""
        if not self._attempts.has(peer):
            return None
        right = hmac.compare_digest(given.encode("utf-8", "replace"), (self._token or "").encode())
        if not right:
            self._attempts.take(peer)
        return right

    def _has_cookie(self, request: web.Request) -> bool:
        cookie = request.cookies.get(self._name, "")
        return hmac.compare_digest(cookie.encode("utf-8", "replace"), self._cookie().encode())

    def _cookie(self) -> str:
        """Not the token itself: a cookie is kept on disk. The same after a restart, so that a wall comes back."""
        return hashlib.sha256(f"tiler preview {self._token}".encode()).hexdigest()

    def _remember(self, request: web.Request, response: web.Response) -> None:
        secure = request.secure or (self._proxied and request.headers.get("X-Forwarded-Proto") == "https")
        response.set_cookie(self._name, self._cookie(), httponly=True, samesite="Strict", secure=secure)

    def _peer(self, request: web.Request) -> str:
        """Who asks; all addresses of an IPv6 network are one, for whoever has one has 2**64."""
        address = request.remote or ""
        if self._proxied:  # the last one is what the proxy itself saw
            address = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip() or address
        try:
            network = ipaddress.ip_network((address.partition("%")[0], 64 if ":" in address else 32), strict=False)
        except ValueError:
            return ""
        return str(network)


async def _has_come(request: web.Request) -> bool:
    """The body is here; what never sends one ties nothing up."""
    try:
        async with asyncio.timeout(_BODY_S):
            await request.read()
    except TimeoutError:
        return False
    return True


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def problem(status: int, text: str) -> web.Response:
    """An error as the API gives it."""
    return web.json_response({"error": text}, status=status)
