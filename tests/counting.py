"""An HTTP server that counts what is asked of it: of a folder, or of another server behind it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Counted:
    """What a server was asked: (method, path, bytes of the answer)."""

    url: str = ""
    requests: list[tuple[str, str, int]] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(size for _, _, size in self.requests)

    def clear(self) -> None:
        self.requests.clear()

    def __str__(self) -> str:
        return "\n".join(f"{method:<5} {size:>8} {path}" for method, path, size in self.requests)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a Range header."""
    if not header:
        return None
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1


class _Folder(BaseHTTPRequestHandler):
    folder: Path
    counted: Counted
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        file = self.folder / path
        if not file.is_file():
            self.counted.requests.append((self.command, path, 0))
            self.send_error(404)
            return
        data = file.read_bytes()
        part = _range(self.headers.get("Range"), len(data))
        self.send_response(206 if part else 200)
        sent = data[part[0] : part[1] + 1] if part else data
        if part:
            self.send_header("Content-Range", f"bytes {part[0]}-{part[1]}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.counted.requests.append((self.command, path, len(sent) if body else 0))
        if body:
            self.wfile.write(sent)

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)


class _Proxy(BaseHTTPRequestHandler):
    behind: str
    counted: Counted
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return

    def _forward(self) -> None:
        connection = http.client.HTTPConnection(self.behind)
        length = int(self.headers.get("Content-Length") or 0)
        connection.request(self.command, self.path, self.rfile.read(length), dict(self.headers.items()))
        answer = connection.getresponse()
        body = answer.read()
        self.counted.requests.append((self.command, self.path, len(body)))
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", size or "0")
        self.end_headers()
        self.wfile.write(body)
        connection.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward


@contextmanager
def _serve(handler: type[BaseHTTPRequestHandler], counted: Counted) -> Iterator[Counted]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    counted.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield counted
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serve_folder(folder: Path) -> Iterator[Counted]:
    """Serve a folder over HTTP, with Range and HEAD."""
    counted = Counted()
    with _serve(type("Folder", (_Folder,), {"folder": folder, "counted": counted}), counted) as found:
        yield found


@contextmanager
def proxy(url: str) -> Iterator[Counted]:
    """Pass every request on to another server."""
    counted = Counted()
    with _serve(type("Proxy", (_Proxy,), {"behind": urlsplit(url).netloc, "counted": counted}), counted) as found:
        yield found
