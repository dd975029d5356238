"""The files of a folder of images: as they are listed, as examples of classes, and as images whose content is known."""

import tarfile
import zipfile
from dataclasses import dataclass
from functools import cached_property

from vtabflow.contracts.results import Remark


@dataclass(frozen=True)
class ListedFile:
    """A file as the folder or archive lists it.

    Attributes:
        parts: its path below the folder.
        size: bytes.
        place: where it is read: a path, or a member of an archive.
        mtime_ns, ctime_ns: its times, 0 in an archive.
        problem: why it cannot be read ("is a FIFO and not a file"), or None.
    """

    parts: tuple[str, ...]
    size: int
    place: str | zipfile.ZipInfo | tarfile.TarInfo
    mtime_ns: int = 0
    ctime_ns: int = 0
    problem: str | None = None

    @cached_property
    def name(self) -> str:
        """The path below the folder, with slashes: the id of the example."""
        return "/".join(self.parts)


@dataclass(frozen=True)
class Entry:
    """An example: a file with its class.

    Attributes:
        split: train, val or test, or "" where the folder has no splits.
        label: the name of its class.
        group: examples of one group stay in one split; None: no group.
    """

    split: str
    label: str
    file: ListedFile
    group: str | None = None

    @property
    def name(self) -> str:
        """The example's id: the file's path below the folder."""
        return self.file.name


@dataclass(frozen=True)
class Layout:
    """How a folder was understood, before any image is decoded.

    Attributes:
        kind: in a few words, such as "class folders", "class folders in train and test" or "labels.csv".
        entries: the examples, by name.
        classes: the names of the classes, sorted; an entry's label is one of them.
        strays: name -> why an image file is no example, such as "lies in no class folder".
        remarks: what a reader has to know: empty classes, folders that were left out.
        sources: files that were read to understand the folder (tables, lists), by name.
    """

    kind: str
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    strays: dict[str, str]
    remarks: tuple[Remark, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def splits(self) -> list[str]:
        """The splits that the folder has itself, sorted; [""] where it has none."""
        return sorted({entry.split for entry in self.entries})


@dataclass(frozen=True)
class File:
    """An example whose image has been read as far as its header. `digest`: SHA-256 of the bytes, 32 hex digits."""

    entry: Entry
    digest: str
    height: int
    width: int
    grey: bool
