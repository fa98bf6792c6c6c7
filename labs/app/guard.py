"""Who may ask the page, and for what. It stands before Gradio, which answers any name and stores any stranger's file.

Without it a page of somebody else's, open in the same browser, reaches this one: by requests of its own (they carry its
`Origin`), or by a name that it lets lead to this machine (DNS rebinding; they carry that name as `Host`).
"""

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MOST_HELD = 500_000_000  # bytes of files at a time, of all visitors together
API = "/gradio_api"
UPLOAD = f"{API}/upload"
# What the page itself sends. Gradio has more, as its functions by their names, the private ones too.
SENT = {UPLOAD, *(f"{API}/{path}" for path in ("queue/join", "run/predict", "cancel", "reset"))}


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # swept in between
            continue
    return total


class Guard:
    """ASGI middleware: `names` are those that the page goes by besides its addresses, `folder` has all its files."""

    def __init__(self, app: ASGIApp, names: set[str], folder: Path) -> None:
        self.app, self.names, self.folder = app, names, folder.resolve()
        self.arriving = 0  # bytes of uploads that are under way

    def refusal(self, method: str, path: str, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        try:
            name, sender = urlsplit(f"//{host}").hostname or "", origin and urlsplit(origin).netloc
            is_own = Path(path.removeprefix(f"{API}/file=")).resolve().is_relative_to(self.folder)
        except ValueError:  # as of [::1 without its other bracket, or a zero byte in a path
            return "a Host, Origin or path that is none"
        if not is_address(name) and name not in self.names:  # an address cannot be made to lead elsewhere
            return f"this page is not called {name}"
        if (origin or method not in ("GET", "HEAD")) and sender != host:  # browsers send it with every POST
            return "only the page itself may ask this"
        if method not in ("GET", "HEAD") and path not in SENT:
            return "the page itself does not ask this"
        if path.startswith(f"{API}/file") and not is_own:
            return "no file of this page"  # nor any address, which Gradio would fetch
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the start and the end
            return await self.app(scope, receive, send)
        path, headers = scope["path"], Headers(scope=scope)
        if refusal := self.refusal(scope["method"], path, headers):
            return await PlainTextResponse(refusal, 403)(scope, receive, send)
        if path != UPLOAD:
            return await self.app(scope, receive, send)
        length = int(headers.get("content-length", MOST_HELD + 1))  # browsers always say it
        if bytes_in(self.folder) + self.arriving + length > MOST_HELD:
            return await PlainTextResponse("Too many files are held: try again in an hour", 413)(scope, receive, send)
        self.arriving += length
        try:
            await self.app(scope, receive, send)
        finally:
            self.arriving -= length
