"""As much of S3's protocol as a client needs to fetch files, on this machine."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY_NOT_FOUND = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>no such key</Message></Error>"


@contextmanager
def s3_server(folder: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Serves `folder`/BUCKET/KEY; gives its address, and who asked for which key, as they come."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.answer(True)

        def do_HEAD(self) -> None:
            self.answer(False)

        def answer(self, whole: bool) -> None:
            path = folder / self.path.partition("?")[0].lstrip("/")
            if whole:
                user = self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
                asked.append((user, "/".join(path.relative_to(folder).parts[1:])))
            if not path.is_file():
                self.reply(404, KEY_NOT_FOUND if whole else b"", {"Content-Type": "application/xml"})
                return
            data, total = path.read_bytes(), path.stat().st_size
            headers = {"ETag": '"0"', "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT", "Accept-Ranges": "bytes"}
            status = 200
            if given := self.headers.get("Range"):
                first, _, last = given.removeprefix("bytes=").partition("-")
                begin, end = int(first), min(int(last) if last else total - 1, total - 1)
                data, status = data[begin : end + 1], 206
                headers["Content-Range"] = f"bytes {begin}-{end}/{total}"
            self.reply(status, data if whole else b"", headers | {"Content-Length": str(len(data))})

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for key, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
