"""A web server for tests, on this machine."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODIFIED = "Mon, 02 Nov 2026 10:00:00 GMT"


class Host(ThreadingHTTPServer):
    """Serves `files` and misbehaves as `faults` say: a list for each path, one entry a request, then all is well.

    An entry is a status, a status with the seconds of its Retry-After, or the part of what is asked for that comes.

    Attributes:
        ranges, lengths: whether it answers Range and sends Content-Length.
        marks: whether it sends an ETag; "weak" for a weak one and Last-Modified.
        asked: path and Range of each request; conditions: its If-Range.
    """

    daemon_threads = True

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list] = {}
        self.ranges, self.pause, self.lengths = True, 0.0, True
        self.marks: bool | str = True
        self.conditions: list[str | None] = []
        self.asked: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), Answer)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        host = self.server
        host.asked.append((self.path, self.headers["Range"]))
        host.conditions.append(self.headers["If-Range"])
        fault = host.faults.get(self.path, []).pop(0) if host.faults.get(self.path) else None
        data = host.files.get(self.path)
        if isinstance(fault, tuple):
            self.send_response(fault[0])
            self.send_header("Retry-After", fault[1])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if data is None or isinstance(fault, int):
            return self.send_error(fault or 404)
        mark = f'"{hashlib.md5(data).hexdigest()}"'
        start = 0
        found = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if found and host.ranges and self.headers["If-Range"] in (None, mark, MODIFIED):
            start = int(found.group(1))
            if start >= len(data):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        if host.lengths:
            self.send_header("Content-Length", str(len(data) - start))
        else:
            self.send_header("Connection", "close")
        if host.marks == "weak":
            self.send_header("ETag", f"W/{mark}")
            self.send_header("Last-Modified", MODIFIED)
        elif host.marks:
            self.send_header("ETag", mark)
        self.end_headers()
        stop = len(data) if fault is None else start + int(fault * (len(data) - start))
        for at in range(start, stop, 1 << 16):
            self.wfile.write(data[at : min(at + (1 << 16), stop)])
            time.sleep(host.pause)
        self.wfile.flush()
        if stop < len(data):
            self.connection.close()

    def log_message(self, *_):
        pass


@contextmanager
def serving() -> Iterator[Host]:
    server = Host()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
