"""Files over HTTP on loopback, and each way of serving them wrongly that a test asks for."""

from __future__ import annotations

import re
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Manner:
    """How one request is answered; as it stands, rightly."""

    status: int = 200
    location: str = ""  # of a redirect
    ranges: bool = True  # False: "Range" is not understood, and all is sent
    shifted: int = 0  # bytes by which a range begins elsewhere than it was asked to
    claim: int = 0  # added to the true Content-Length
    before: Callable[[], object] = lambda: None  # called before it is answered
    stop_after: int | None = None  # bytes of the body; then the connection ends
    at_stop: Callable[[], object] = lambda: None  # called before it ends


class FilesServer:
    """``files`` by path; ``manners`` by path, one a request, then rightly; ``asked`` by path, each
    request's Range header."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.manners: dict[str, list[Manner]] = defaultdict(list)
        self.always: dict[str, Manner] = {}
        self.asked: dict[str, list[str]] = defaultdict(list)
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), self._handler())
        if context:
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        scheme = "https" if context else "http"
        self.url = f"{scheme}://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def manner(self, path: str, asked: str) -> Manner:
        with self._lock:
            self.asked[path].append(asked)
            if path in self.always:
                return self.always[path]
            return self.manners[path].pop(0) if self.manners[path] else Manner()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range", "")
                manner = server.manner(self.path, asked)
                manner.before()
                if manner.status != 200 or self.path not in server.files:
                    self.send_response(manner.status if manner.status != 200 else 404)
                    if manner.location:
                        self.send_header("Location", manner.location)
                    self.end_headers()
                    return
                self._send(server.files[self.path], asked if manner.ranges else "", manner)

            def _send(self, content: bytes, asked: str, manner: Manner) -> None:
                start = 0
                if match := re.fullmatch(r"bytes=(\d+)-", asked):
                    start = int(match[1]) + manner.shifted
                    if start >= len(content):
                        self.send_response(416)
                        self.send_header("Content-Range", f"bytes */{len(content)}")
                        self.end_headers()
                        return
                    self.send_response(206)
                    end = len(content)
                    self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
                else:
                    self.send_response(200)
                body = content[start:]
                self.send_header("Content-Length", str(len(body) + manner.claim))
                self.end_headers()
                self.wfile.write(body[: manner.stop_after])
                self.wfile.flush()
                if manner.stop_after is not None:
                    manner.at_stop()

            def log_message(self, *args: Any) -> None:
                pass

        return Handler


class _Http(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, *args: Any) -> None:
        """A client that was killed; what else goes wrong here shows in the test's own client."""
