"""A web server for the files of a folder, which can be told to break connections."""

import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FileServer(http.server.ThreadingHTTPServer):
    """Serves files by range, as the servers of the large corpora do.

    Attributes:
        address: of the folder.
        breaks: answers that end in the middle before one is whole.
        requests: methods and ranges asked for.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.breaks = 0
        self.requests: list[tuple[str, str | None]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append((self.command, asked))
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        if asked and (match := re.fullmatch(r"bytes=(\d+)-(\d*)", asked)):
            first, last = int(match[1]), min(int(match[2] or last), last)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if not body:
            return
        if asked and self.server.breaks and last - first > 1:
            self.server.breaks -= 1
            self.wfile.write(content[first : (first + last) // 2])
            self.close_connection = True
            return
        self.wfile.write(content[first : last + 1])


@contextmanager
def serving(folder: Path) -> Iterator[FileServer]:
    """A running server of `folder`."""
    server = FileServer(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
