"""Download of one file: resumed after an interruption, retried, hashed while it streams, with progress lines.

Only http, https and file addresses. The SHA-256 decides whether it is the right file.
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import unquote, urlparse

from vtabflow import __version__
from vtabflow.errors import RunError, UserError
from vtabflow.prepare.tfds.archives import is_address
from vtabflow.runtime.files import read_json, write_json
from vtabflow.runtime.progress import Progress, gigabytes

BLOCK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
PAUSES = (1.0, 3.0, 10.0, 30.0, 60.0)  # seconds before the next attempt, by the number of attempts without a new byte
LONGEST_PAUSE = 120.0  # at most, whatever Retry-After says
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # statuses that may pass


class DownloadError(Exception):
    """An address that does not give the file; the text is the reason."""


class _Retry(Exception):
    """An attempt that ended before the file was complete; the text is the reason."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class _Source(Protocol):
    def read(self, amount: int, /) -> bytes: ...


@dataclass
class _Part:
    """An incomplete download: `path` (the .part file), its length and the running digest of its bytes.

    <path>.json has the address that it came from and the server's mark of the file's version (ETag or Last-Modified).
    """

    path: Path
    label: str
    size: int | None
    length: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    resumed: bool = False

    def resume(self) -> None:
        """Read what an earlier run has downloaded."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            return
        if self.size is not None and self.path.stat().st_size > self.size:
            return self.start_over()
        with open(self.path, "rb") as stream:
            while block := stream.read(BLOCK):
                self.digest.update(block)
                self.length += len(block)
        self.resumed = self.length > 0
        if self.resumed:
            print(f"{self.label}: resuming after {gigabytes(self.length)}", flush=True)

    def start_over(self) -> None:
        self.path.unlink(missing_ok=True)
        self.length, self.digest, self.resumed = 0, hashlib.sha256(), False

    def mark(self, url: str) -> str | None:
        """The version mark that `url` gave when it sent what is here."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            noted = read_json(_notes(self.path))
            if noted["url"] == url and isinstance(noted["mark"], str):
                return noted["mark"]
        return None


def addresses(url: str, mirrors: Mapping[str, str]) -> list[str]:
    """The addresses to try for `url`: at each mirror whose prefix it has, in order, and its own.

    Raises:
        UserError: one is not a complete http, https or file address.
    """
    found = [other + url[len(prefix) :] for prefix, other in mirrors.items() if url.startswith(prefix)]
    for address in [*found, url]:
        if not is_address(address):
            raise UserError(
                f"prepare.tfds.mirrors: {address} is not an http, https or file address: correct the mirror"
            )
    return [*dict.fromkeys([*found, url])]


def download(url: str, path: Path, size: int | None, sha256: str, label: str) -> None:
    """Download `url` to `path`, resuming what an earlier call or another address has left there.

    Args:
        url: an http, https or file address.
        path: of the file, incomplete until this returns.
        size: bytes, None if not known.
        sha256: the digest that the file should have.
        label: how the progress lines start ("cifar100: cifar-100-binary.tar.gz").

    Raises:
        DownloadError: the address does not give the file. A wrong file is removed from `path`.
        RunError: the file cannot be written.
    """
    part = _Part(path, label, size)
    part.resume()
    while True:
        resumed = part.resumed
        _attempts(url, part)
        if part.digest.hexdigest() == sha256:
            _notes(path).unlink(missing_ok=True)
            return
        found, length = part.digest.hexdigest(), part.length
        part.start_over()
        if not resumed:
            raise DownloadError(f"it gives another file ({length:,} bytes, SHA-256 {found})")
        # The resumed part may be of another version of the file: once more, from the start.


def _attempts(url: str, part: _Part) -> None:
    """Try until the file is complete. An attempt without a new byte is followed by a longer pause."""
    idle, most = 0, part.length  # a server without ranges starts over: new is what no attempt had before
    while part.size is None or part.length != part.size:
        try:
            if _attempt(url, part):
                return
        except _Retry as reason:
            idle = 0 if part.length > most else idle + 1
            most = max(most, part.length)
            if idle > len(PAUSES):
                raise DownloadError(f"{reason}, {idle} times") from reason
            pause = max(PAUSES[max(idle - 1, 0)], min(reason.wait, LONGEST_PAUSE))
            print(f"{part.label}: {reason}; trying again in {pause:g} s", flush=True)
            time.sleep(pause)


def _attempt(url: str, part: _Part) -> bool:
    """Make one connection. Returns whether the file is complete; raises DownloadError or _Retry."""
    if url.partition(":")[0].lower() == "file":
        with _local(url) as stream:
            total = os.fstat(stream.fileno()).st_size
            stream.seek(part.length)
            return _receive(stream, part, total)
    headers: dict[str, str] = {"User-Agent": f"vtabflow/{__version__}"}
    if part.length:
        headers["Range"] = f"bytes={part.length}-"
        if mark := part.mark(url):
            headers["If-Range"] = mark
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the opener has http and https alone
        answer = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with closing(error):
            if error.code == 416:
                part.start_over()
                raise _Retry("the server has less than was there") from error
            if error.code in TRANSIENT:
                raise _Retry(f"HTTP {error.code} {error.reason}", _retry_after(error.headers)) from error
            raise DownloadError(f"HTTP {error.code} {error.reason}") from error
    except (ValueError, http.client.InvalidURL) as error:
        raise DownloadError(f"it is not an address ({error})") from error
    except (OSError, http.client.HTTPException) as error:
        raise _Retry(f"no connection ({getattr(error, 'reason', error) or type(error).__name__})") from error
    with closing(answer):
        whole = _total(answer, part)
        mark = answer.headers.get("ETag") or "W/"
        if mark.startswith("W/"):  # a weak mark does not promise equal bytes (RFC 9110, 13.1.5)
            mark = answer.headers.get("Last-Modified")
        write_json(_notes(part.path), {"url": url, "mark": mark})
        return _receive(answer, part, whole)


def _local(url: str) -> BinaryIO:
    try:
        return open(unquote(urlparse(url).path), "rb")
    except FileNotFoundError as error:
        raise DownloadError("there is no such file") from error
    except (OSError, ValueError) as error:
        raise DownloadError(f"it cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _total(answer: Any, part: _Part) -> int | None:
    """The length of the whole file by the server's headers; starts over if the server does."""
    length = answer.headers.get("Content-Length")
    if answer.status == 206:
        span, _, whole = (answer.headers.get("Content-Range") or "").partition("/")
        if span.split("-")[0].strip() != f"bytes {part.length}":
            part.start_over()
            raise _Retry("the server sent another range than was asked for")
        return int(whole) if whole.isdigit() else None
    if part.length:
        part.start_over()
    return int(length) if length and length.isdigit() else None


def _receive(source: _Source, part: _Part, total: int | None) -> bool:
    if total is not None and part.size is not None and total != part.size:
        part.start_over()
        raise DownloadError(f"it gives another file ({total:,} bytes instead of {part.size:,})")
    progress = Progress(part.label, total or part.size, "bytes", done=part.length)
    with _opened(part.path) as target:
        while True:
            try:
                block = source.read(BLOCK)
            except (OSError, http.client.HTTPException) as error:
                raise _Retry(f"the connection broke off after {gigabytes(part.length)}") from error
            if not block:
                break
            if part.size is not None and part.length + len(block) > part.size:
                part.start_over()
                raise DownloadError(f"it gives another file (more than {part.size:,} bytes)")
            _write(target, block, part)
            progress.add(len(block))
        _write(target, b"", part)
    if total is not None and part.length < total:
        raise _Retry(f"the connection broke off after {gigabytes(part.length)}")
    if part.size is not None and part.length < part.size:
        raise _Retry(f"the file ended after {gigabytes(part.length)} of {gigabytes(part.size)}")
    return True


def _opened(path: Path) -> BinaryIO:
    try:
        return open(path, "ab", buffering=0)
    except OSError as error:
        raise _not_written(path, error) from error


def _write(target: BinaryIO, block: bytes, part: _Part) -> None:
    try:
        rest = memoryview(block)
        while rest:
            rest = rest[target.write(rest) :]
        if not block:
            os.fsync(target.fileno())
    except OSError as error:
        raise _not_written(part.path, error) from error
    part.digest.update(block)
    part.length += len(block)


def _not_written(path: Path, error: OSError) -> RunError:
    reason = error.strerror or error
    return RunError(f"cannot write {path}: {reason}; free the disk or correct the permission, then run again to resume")


def _notes(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _retry_after(headers: Any) -> float:
    value = headers.get("Retry-After") or ""
    return float(value) if value.isdigit() else 0.0


def _opener() -> urllib.request.OpenerDirector:
    """An opener with http, https, redirects and the proxies of the environment, and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
