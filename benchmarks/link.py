"""A web server whose only limits are those of a line: so many megabytes a second, and milliseconds before each answer.

    python benchmarks/link.py FOLDER MEGABYTES MILLISECONDS

Prints its port, and serves files and ranges of them until its input ends. It needs next to no time of processors, which
a client on the same machine would lack.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# What of an answer goes over the line before that of another may.
PIECE = 256 * 1024


class Line:
    """Bytes go one after the other, whichever answer they are of."""

    def __init__(self, megabytes: float, milliseconds: float) -> None:
        self._rate, self.delay = megabytes * 1e6, milliseconds / 1e3
        self._free, self._lock = 0.0, threading.Lock()

    def wait(self, size: int) -> None:
        """Until so many bytes are through."""
        with self._lock:
            self._free = max(self._free, time.monotonic()) + size / self._rate
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


class Handler(SimpleHTTPRequestHandler):
    """Files, and ranges of them."""

    protocol_version = "HTTP/1.1"

    def __init__(self, line: Line, *args: Any, **options: Any) -> None:
        self.line = line
        super().__init__(*args, **options)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with a file or a range of it."""
        time.sleep(self.line.delay)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        size, asked = path.stat().st_size, self.headers.get("Range")
        start, stop = 0, size
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, size - int(last))
            stop = min(size, int(last) + 1) if first and last else size
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with path.open("rb") as file:
            file.seek(start)
            while start < stop:
                piece = min(PIECE, stop - start)
                self.line.wait(piece)
                self.wfile.write(file.read(piece))
                start += piece


class Server(ThreadingHTTPServer):
    """Takes many connections at one time."""

    request_queue_size = 256
    daemon_threads = True


@contextmanager
def served(folder: Path, megabytes: float, milliseconds: float) -> Iterator[str]:
    """URL of a folder that a process of its own serves."""
    command = [sys.executable, __file__, str(folder), str(megabytes), str(milliseconds)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.stdin.close()
        server.wait()
        server.stdout.close()


def main() -> None:
    """Serve."""
    folder, megabytes, milliseconds = sys.argv[1:]
    line = Line(float(megabytes), float(milliseconds))
    server = Server(("127.0.0.1", 0), partial(Handler, line, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
