"""A web server on loopback whose answers a test decides, and which remembers what it was asked."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Answer:
    """What the server says."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = 0
    """How many bytes at the end are promised and not sent."""
    wait_seconds: float = 0.0
    says_length: bool = True
    """Else the body ends where the connection does."""


@dataclass
class WebServer:
    """Answers by path; 404 for what it does not know."""

    url: str = ""
    answers: dict[str, Answer | Callable[[], Answer]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    most_at_once: int = 0
    """How many requests it was busy with at one time."""

    def take(self) -> list[str]:
        """Return what was asked since the last time, sorted."""
        asked, self.asked = sorted(self.asked), []
        return asked


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Serve until the block ends."""
    known = WebServer()
    lock = threading.Lock()
    busy = [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with lock:
                busy[0] += 1
                known.most_at_once = max(known.most_at_once, busy[0])
                known.asked.append(self.path)
            answer = known.answers.get(self.path, Answer(status=404))
            answer = answer if isinstance(answer, Answer) else answer()
            time.sleep(answer.wait_seconds)
            try:
                self.send_response(answer.status)
                if answer.says_length:
                    self.send_header("Content-Length", str(len(answer.body) + answer.cut))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)
            except OSError:
                pass  # the client has had enough
            self.close_connection = bool(answer.cut) or not answer.says_length
            with lock:
                busy[0] -= 1

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    known.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
