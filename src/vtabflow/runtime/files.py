"""Writing results so that an existing file is a whole one: big files first, the small JSON last, each by rename."""

import glob
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vtabflow.errors import RunError


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(value: Any) -> str:
    """The key of a value: 16 hexadecimal digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def seed_of(*parts: Any) -> int:
    """A seed in [0, 2^63) from whatever names it, for example (seed, "order", trial): equal parts, equal seed."""
    return int.from_bytes(hashlib.sha256(canonical(parts).encode()).digest()[:8], "big") >> 1


def read_json(path: Path | str) -> Any:
    """The parsed content of a JSON file."""
    return json.loads(Path(path).read_text("utf-8"))


@contextmanager
def writing(path: Path | str) -> Iterator[IO[bytes]]:
    """Open a temporary file next to `path`, flush it to the disk and rename it over `path` when the block succeeds.

    If the block fails, nothing is left behind.

    Raises:
        RunError: the disk is full or a permission is missing; names `path`.
    """
    path = Path(path)
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.{socket.gethostname()}-{os.getpid()}."
        )
    try:
        with _write_errors(path), os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        with _write_errors(path):
            # mkstemp makes files private; results are as open as the user's umask says.
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers of `path` that were killed on this host."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(socket.gethostname())}-*"):
        writer = left.name.rpartition(".")[0].rpartition("-")[2]
        if writer.isdigit() and not Path(f"/proc/{writer}").exists() and Path("/proc/self").exists():
            left.unlink(missing_ok=True)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}; free the disk or fix the permission, then run again"
        ) from error


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, by rename. NaN and infinity are refused: say null instead."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with writing(path) as stream:
        stream.write(text.encode())


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_with(path: Path | str, write: Callable[[IO[bytes]], Any]) -> None:
    """Give `write` a binary stream whose content replaces `path` when it returns.

    Example:
        write_with(path, lambda stream: np.save(stream, array))
    """
    with writing(path) as stream:
        write(stream)
