"""What the files of a folder of images hold: a digest of their bytes and the header of the image, and what keys hold.

Planning imports this module, so it imports nothing heavy; the reader of headers is imported when a file is read.
"""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO

from vtabflow.contracts.specs import FolderDecoding, FolderSettings
from vtabflow.errors import UserError
from vtabflow.prepare.folders.entry import File, Layout, ListedFile
from vtabflow.prepare.folders.tree import Tree
from vtabflow.runtime.progress import Progress

DIGITS = 32  # of SHA-256, 128 bits
WHOLE = 1 << 26  # bytes; a larger file is read in blocks
BLOCK = 1 << 20
CHUNK = 64  # files that a thread reads before it reports
THREADS = 8  # of which most wait for a file server


@dataclass(frozen=True)
class Content:
    """What a file holds.

    Attributes:
        digest: SHA-256 of its bytes, 32 hex digits; "" where they cannot be read.
        height, width, grey: of the upright image.
        reason: why it gives no image, or None.
        passing: whether it may be readable the next time.
    """

    digest: str
    height: int = 0
    width: int = 0
    grey: bool = False
    reason: str | None = None
    passing: bool = False


@dataclass(frozen=True)
class FolderIdentity:
    """The fingerprint of a folder: digests of its images and of its labels, and its classes.

    `images` digests the split, the bytes and the group of every example, `labels` its class as well. Names and times
    are in neither. A folder and an archive of it have the same fingerprint.
    """

    images: str
    labels: str
    classes: int
    class_names: tuple[str, ...]


def identity_of(layout: Layout, contents: Sequence[Content]) -> FolderIdentity:
    """The fingerprint of examples whose contents are known, in the order of the layout."""
    images, labels = [], []
    for entry, content in zip(layout.entries, contents, strict=True):
        group = "" if entry.group is None else f"/{entry.group}"
        image = f"{entry.split}/{content.digest}{group}\n"
        images.append(image)
        labels.append(f"{entry.label}/{image}")
    return FolderIdentity(_digest(images), _digest(labels), len(layout.classes), layout.classes)


def readable(layout: Layout, contents: Sequence[Content]) -> tuple[list[File], dict[str, str]]:
    """The examples with a readable header, in the order of the layout, and name -> reason of the other files."""
    files, skipped = [], dict(layout.strays)
    for entry, found in zip(layout.entries, contents, strict=True):
        if found.reason is None:
            files.append(File(entry, found.digest, found.height, found.width, found.grey))
        else:
            skipped[entry.name] = found.reason
    return files, skipped


def check_readable(settings: FolderSettings, files: Sequence[File], skipped: Mapping[str, str]) -> None:
    """UserError if no file has the header of an image, or if some have none and `invalid` does not leave them out."""
    if not files:
        first = min(skipped)
        raise UserError(
            f"none of the {len(skipped)} files in {settings.path} is a readable image ({first} {skipped[first]})"
        )
    check_skipped(settings, skipped, ("refuse", "skip-task"))


def check_skipped(settings: FolderSettings, skipped: Mapping[str, str], refused: Sequence[str] = ("refuse",)) -> None:
    """UserError if files give no image and `invalid` is one of `refused`."""
    if skipped and settings.invalid in refused:
        first = min(skipped)
        what = f"{settings.path}: {first} {skipped[first]} (unusable files in all: {len(skipped)})"
        raise UserError(f"{what}: fix or remove them, or set `invalid: skip` to leave them out")


def read_contents(
    tree: Tree, files: Sequence[ListedFile], decoding: FolderDecoding, label: str | None = None
) -> list[Content]:
    """What `files` of a tree hold. Each is read once; `label` starts the lines about the progress."""
    progress = Progress(label or str(tree.path), len(files), "files")
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    found: list[Content] = []
    for contents in _in_threads(tree, chunks, decoding):
        found += contents
        progress.add(len(contents))
    return found


def _in_threads(
    tree: Tree, chunks: Sequence[Sequence[ListedFile]], decoding: FolderDecoding
) -> Iterator[list[Content]]:
    def read_chunk(chunk: Sequence[ListedFile]) -> list[Content]:
        return [_content(tree, file, decoding) for file in chunk]

    if len(chunks) < 2:
        yield from map(read_chunk, chunks)
        return
    with ThreadPoolExecutor(min(THREADS, 4 * len(os.sched_getaffinity(0)))) as threads:
        yield from threads.map(read_chunk, chunks)


def _content(tree: Tree, file: ListedFile, decoding: FolderDecoding) -> Content:
    from vtabflow.prepare.images import Unreadable, header

    if file.problem:
        return Content("", reason=file.problem)
    try:
        with tree.open(file) as stream:
            digest, whole, size = _read(stream, file.size)
            try:
                return Content(digest, *header(whole, size, decoding.max_pixels))
            except Unreadable as reason:
                return Content(digest, reason=str(reason))
    except MemoryError:
        raise
    except OSError as error:
        return Content("", reason=f"cannot be read ({error.strerror or error})", passing=True)
    except Exception as error:  # of zipfile and its decompressors: damaged, an unknown method
        return Content("", reason=f"cannot be read ({error or type(error).__name__})")


def _read(stream: IO[bytes], size: int) -> tuple[str, IO[bytes], int]:
    """The digest of a file, its content from the start, and its number of bytes."""
    if size <= WHOLE:
        data = stream.read()
        return hashlib.sha256(data).hexdigest()[:DIGITS], io.BytesIO(data), len(data)
    found, count = hashlib.sha256(), 0
    while block := stream.read(BLOCK):
        found.update(block)
        count += len(block)
    stream.seek(0)
    return found.hexdigest()[:DIGITS], stream, count


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]
