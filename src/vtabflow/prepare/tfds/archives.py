"""Files that datasets are downloaded as: address, name, size, checksum, and the name under which TFDS keeps them."""

import base64
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlparse


@dataclass(frozen=True)
class Archive:
    """A file that a builder downloads.

    Attributes:
        name: the file's own name, under which a browser would save it.
        size: bytes, as TFDS has registered them.
        sha256: likewise.
    """

    url: str
    name: str
    size: int
    sha256: str

    @property
    def cached_name(self) -> str:
        """The name under which TFDS keeps it in <downloads>/<builder>/."""
        return cached_name(self.url, self.sha256)


@dataclass(frozen=True)
class ManualDownload:
    """A file that only a person can download: it needs an account, or no program gets at it.

    Attributes:
        size: bytes.
        exact: whether the size is exact, or an estimate.
        source: where it is downloaded.
    """

    name: str
    size: int
    source: str
    exact: bool = True


SCHEMES = ("http", "https", "file")  # what download.py can fetch from

_ENDINGS = (".tar.gz", ".tgz", ".tar", ".tar.bz2", ".tbz2", ".tbz", ".tb2", ".zip", ".gz", ".bz2")
_NAME_LENGTH = 46


def is_address(text: str) -> bool:
    """Whether `text` is an http, https or file address, or the start of one, that can be parsed."""
    with suppress(ValueError):  # of a bracket that is not closed, and of a port that is no number
        parts = urlparse(text)
        return parts.scheme in SCHEMES and parts.port != 0
    return False


def cached_name(url: str, sha256: str) -> str:
    """The file name that TFDS computes from an address and the registered checksum (its resource.get_dl_fname)."""
    parts = urlparse(url)
    host = parts.netloc
    for prefix in ("www.", "storage.googleapis.com", "drive.google.com", "github.com"):
        host = host.removeprefix(prefix)
    for suffix in (".github.io", ".s3-website.eu-central-1.amazonaws.com", ".amazonaws.com"):
        host = host.removesuffix(suffix)
    name = f"{host}{parts.path}{parts.params}{parts.query}"
    ending = next((ending for ending in _ENDINGS if name.endswith(ending)), PurePosixPath(name).suffix)
    name = name[: len(name) - len(ending)]
    name = re.sub(r"[^a-zA-Z0-9.\-_]+", "_", name)
    for word in ("_data_", "_dataset_", "_static_", "_of_", "-of-"):
        name = name.replace(word, "_")
    name = re.sub(r"(?<![0-9])0+(?=[0-9])", "", name.strip("_"))
    room = _NAME_LENGTH - len(ending)
    longest = max(len(part) for part in re.split(r"[.\-_]", name))
    while longest > 4 and len(name) > room:
        longest -= 1
        name = re.sub(r"[^.\-_]{4,}", lambda found, keep=longest: found.group(0)[:keep], name)  # type: ignore[misc]
    checksum = base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode()[:-1]
    return f"{name[:room]}{checksum}{ending}"
