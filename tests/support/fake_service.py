"""A service for tests: `fake_service.py PORT DIRECTORY` answers on a port of loopback.

It has a grandchild that lost its parent, its session and its environment, as some of Ray's do.
`DIRECTORY/broken` makes it end at once, `DIRECTORY/sick` makes it answer that it is not well.
"""

import http.server
import os
import subprocess
import sys
from pathlib import Path

ESCAPE = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={}, close_fds=True,
                 start_new_session=True)
"""


class Handler(http.server.BaseHTTPRequestHandler):
    directory: Path

    def do_GET(self) -> None:
        self.send_response(503 if (self.directory / "sick").exists() else 200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def main() -> None:
    Handler.directory = Path(sys.argv[2])
    if (Handler.directory / "broken").exists():
        sys.exit("the database is broken")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    subprocess.run([sys.executable, "-c", ESCAPE], env=dict(os.environ), check=True)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
