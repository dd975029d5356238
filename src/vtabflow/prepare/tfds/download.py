"""One file from one address: resumed where it broke off, tried again, hashed while it streams, with progress lines.

Only http, https and file addresses. Nothing of what comes is believed: the caller compares the SHA-256.
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

BLOCK = 1 << 20
TIMEOUT = 60.0  # seconds without a byte
PAUSES = (1.0, 3.0, 10.0, 30.0, 60.0)  # seconds before the next of the attempts that bring nothing
LONGEST_PAUSE = 120.0  # the most of a Retry-After that is waited for
PROGRESS_SECONDS = 10.0
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that another attempt may not get


class DownloadError(Exception):
    """An address that does not give the file; the text is what was found there."""


class _Retry(Exception):
    """An attempt that ended before the file did; the text is the reason."""

    def __init__(self, reason: str, wait: float = 0.0):
        super().__init__(reason)
        self.wait = wait


class _Source(Protocol):
    def read(self, amount: int, /) -> bytes: ...


@dataclass
class _Part:
    """What is there of a file: `path` (the .part file), its length and the running digest of its bytes.

    Beside it lies <path>.json with the address it came from and that server's mark of the file's version.
    """

    path: Path
    label: str
    size: int | None
    length: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    resumed: bool = False

    def take_up(self) -> None:
        """Go on with what an earlier run left."""
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
            print(f"{self.label}: going on after {gigabytes(self.length)}", flush=True)

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
    """Where `url` is to be looked for: at each mirror whose prefix it has, in order, and at last at itself.

    Raises UserError for one that is not a whole http, https or file address.
    """
    found = [other + url[len(prefix) :] for prefix, other in mirrors.items() if url.startswith(prefix)]
    for address in [*found, url]:
        if not is_address(address):
            raise UserError(f"prepare.tfds.mirrors: {address} is no http, https or file address: correct the mirror")
    return [*dict.fromkeys([*found, url])]


def download(url: str, path: Path, size: int | None, sha256: str, label: str) -> None:
    """Bring the file at `url` to `path`, going on where an earlier call or another address broke off.

    Args: size in bytes, None if not known; `label` starts the progress lines ("cifar100: cifar-100-binary.tar.gz").
    Raises: Dead with what was found instead (then nothing wrong is left at `path`); RunError if the disk is full.
    """
    part = _Part(path, label, size)
    part.take_up()
    while True:
        resumed = part.resumed
        _bring(url, part)
        if part.digest.hexdigest() == sha256:
            _notes(path).unlink(missing_ok=True)
            return
        found, length = part.digest.hexdigest(), part.length
        part.start_over()
        if not resumed:
            raise DownloadError(f"it gives another file ({length:,} bytes, SHA-256 {found})")
        # What was there from before may be of another version: once more, from the start.


def _bring(url: str, part: _Part) -> None:
    """Attempts until the file is whole. One that brings nothing new is followed by a longer pause."""
    idle, most = 0, part.length  # a server without ranges starts over: only what no attempt had before is new
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
    """One connection. Returns whether the file is whole; raises Dead or _Again."""
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
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the opener knows http and https alone
        answer = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with closing(error):
            if error.code == 416:
                part.start_over()
                raise _Retry("the server has less than was there") from error
            if error.code in PASSING:
                raise _Retry(f"HTTP {error.code} {error.reason}", _retry_after(error.headers)) from error
            raise DownloadError(f"HTTP {error.code} {error.reason}") from error
    except (ValueError, http.client.InvalidURL) as error:
        raise DownloadError(f"it is no address ({error})") from error
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
    """The length of the whole file as the server says it; the part starts over where the server does."""
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
    clock = _Clock(part.label, part.length, total or part.size)
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
            clock.tick(part.length)
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
    return RunError(f"cannot write {path}: {reason}; free the disk or mend the permission, then run again to go on")


def _notes(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _retry_after(headers: Any) -> float:
    value = headers.get("Retry-After") or ""
    return float(value) if value.isdigit() else 0.0


def _opener() -> urllib.request.OpenerDirector:
    """An opener that knows http and https alone, redirects and the proxies that the environment names."""
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


class _Clock:
    """A progress line about every ten seconds: how much, how fast, how long still."""

    def __init__(self, label: str, start: int, total: int | None):
        self.label, self.start, self.total = label, start, total
        self.began = self.said = time.monotonic()

    def tick(self, length: int) -> None:
        now = time.monotonic()
        if now - self.said < PROGRESS_SECONDS:
            return
        self.said = now
        rate = (length - self.start) / (now - self.began)
        line = f"{self.label}: {gigabytes(length)}"
        if self.total:
            line += f" of {gigabytes(self.total)}"
        line += f", {rate / 1e6:.1f} MB/s"
        if self.total and rate:
            line += f", {duration((self.total - length) / rate)} left"
        print(line, flush=True)


def gigabytes(count: float) -> str:
    """Bytes as people say them: "1.2 GB", "344.9 MB", "502 bytes"."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
