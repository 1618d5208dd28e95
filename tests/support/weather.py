"""Bad weather on the way to an S3 server: answers of 503, and connections that are cut."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

BUSY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>slow down</Message></Error>"
Weather = Callable[[int, str], str]
"""What happens to the n-th GET of a path: `fair`, `busy` (503) or `cut` in the middle of the body."""


@contextmanager
def weather_before(endpoint: str, weather: Weather) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a proxy before an S3 server, and what happened to each GET so far."""
    happened: list[str] = []
    lock = threading.Lock()
    target = urlsplit(endpoint)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with lock:
                kind = weather(len(happened), self.path)
                happened.append(kind)
            if kind == "busy":
                self.send_response(503)
                self.send_header("Content-Length", str(len(BUSY)))
                self.end_headers()
                self.wfile.write(BUSY)
                return
            self._forward(is_cut=kind == "cut")

        def do_HEAD(self) -> None:
            self._forward(is_cut=False)

        def _forward(self, *, is_cut: bool) -> None:
            connection = http.client.HTTPConnection(target.hostname or "", target.port)
            connection.request(self.command, self.path, headers=dict(self.headers))
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if is_cut else body)
            if is_cut:
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", happened
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
