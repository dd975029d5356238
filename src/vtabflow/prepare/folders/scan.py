"""A folder or archive of images as planning sees it, with what its files hold; the second time no image is opened.

What is known is kept in scratch/fingerprints, in one file for each folder or archive: a line that says of what it is,
and a line with the content. A file of a folder is known by its size and times, an archive with all that is in it by the
size and times of the archive. Planning imports this module, so it imports nothing heavy.
"""

import json
import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import __version__ as pillow

from vtabflow.contracts.results import Remark
from vtabflow.contracts.specs import FolderDecoding, FolderLayout
from vtabflow.contracts.typed_json import from_json, to_json
from vtabflow.prepare.folders.entry import Entry, File, Layout, ListedFile
from vtabflow.prepare.folders.fingerprint import Content, FolderIdentity, identity_of, read_contents, readable
from vtabflow.prepare.folders.layout import understand
from vtabflow.prepare.folders.tree import Tree, open_tree
from vtabflow.runtime.files import digest, writing

# Modification times are this coarse at worst (FAT: 2 s). A younger file may change again and keep its time: not cached.
MTIME_GRANULARITY_NS = 2_000_000_000
FINGERPRINTS = Path("scratch/fingerprints")  # the caches of a project
FORMAT = 1  # of the cache, which is made anew when this changes: to be raised when images.header finds something else
LAYOUT, DECODING = FolderLayout(), FolderDecoding()
Rows = dict[str, list[Any]]


@dataclass(frozen=True)
class Scan:
    """A folder or archive of images.

    Attributes:
        layout: how it was understood. Of an archive that was known the files cannot be opened.
        files: the examples with a readable header.
        skipped: name -> reason of the other files.
        identity: what keys hold of it.
    """

    layout: Layout
    files: list[File]
    skipped: dict[str, str]
    identity: FolderIdentity


def scan(
    path: Path | str,
    settings: FolderLayout = LAYOUT,
    decoding: FolderDecoding = DECODING,
    cache: Path | str | None = None,
    code: str = "",
) -> Scan:
    """List and understand a folder or archive, and read the files that are not known.

    Args:
        path: the folder or archive.
        settings: how its files become examples.
        decoding: how they are read.
        cache: the folder of the caches; None: every file is read.
        code: the identity of the code; an archive is listed again if it has changed.

    Raises:
        UserError: no such path, or what is wrong with it.
    """
    path = Path(path)
    place = None if cache is None else cache_file(cache, path, decoding)
    archive = _state_of_archive(path)
    head = {**_head(path, decoding), "layout": [to_json(settings), code] if archive else None}
    before, body = _read_cache(place)
    rows = _rows(before, body, head)
    if archive and before == head:
        layout = _layout_from(body["layout"])
        return _result(layout, [_content(rows[entry.name]) for entry in layout.entries])
    with open_tree(path, cache) as tree:
        layout = understand(tree, settings, str(path))
        contents, now = _contents(tree, layout, decoding, rows)
    # An archive of which something could not be read this time is looked at again.
    is_known = archive is None or not (_is_young(archive) or any(found.passing for found in contents))
    if place is not None and (now != rows or head != before) and is_known:
        body = {"contents": now, "layout": _layout_to(layout) if archive else None}
        _prune(place.parent)
        with writing(place) as stream:
            for value in (head, body):
                stream.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
    return _result(layout, contents)


def contents_of(
    tree: Tree, layout: Layout, path: Path | str, decoding: FolderDecoding, cache: Path | str, label: str
) -> list[Content]:
    """What the examples of an open tree hold, of which planning has read most: for the job.

    Args:
        tree: the folder or archive.
        layout: how it was understood.
        path: where it lies, as the study has it.
        decoding: how files are read.
        cache: the folder of the caches. Nothing is written to it.
        label: of the lines about the progress.
    """
    before, body = _read_cache(cache_file(cache, path, decoding))
    return _contents(tree, layout, decoding, _rows(before, body, _head(Path(path), decoding)), label)[0]


def _head(path: Path, decoding: FolderDecoding) -> dict[str, Any]:
    """What the rows of a cache depend on."""
    return {
        "format": [FORMAT, pillow, decoding.max_pixels],
        "path": str(path.absolute()),
        "archive": _state_of_archive(path),
    }


def _rows(before: dict[str, Any], body: dict[str, Any], head: dict[str, Any]) -> Rows:
    """The rows of a cache with the first line `before`; none if they are not of `head`."""
    rows: Rows = body["contents"] if {**before, "layout": 0} == {**head, "layout": 0} else {}
    return rows


def identity(path: Path | str, cache: Path | str | None = None) -> FolderIdentity:
    """The fingerprint of a folder or archive at the default settings. Arguments as in `scan`."""
    return scan(path, cache=cache).identity


def _result(layout: Layout, contents: Sequence[Content]) -> Scan:
    return Scan(layout, *readable(layout, contents), identity_of(layout, contents))


# ---- the cache


def cache_file(cache: Path | str, path: Path | str, decoding: FolderDecoding = DECODING) -> Path:
    """Where the fingerprints of a folder or archive are kept."""
    return Path(cache) / f"{digest([str(Path(path).absolute()), decoding.max_pixels])}.jsonl"


def of_what(place: Path) -> Path | None:
    """The folder or archive of which `place` holds the fingerprints; None if that cannot be told."""
    try:
        with open(place, "rb") as stream:
            return Path(json.loads(stream.readline())["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _prune(cache: Path) -> None:
    """Remove the fingerprints of folders and archives that are gone."""
    for place in cache.glob("*.jsonl"):
        of = of_what(place)
        if of is None or not of.exists():
            place.unlink(missing_ok=True)


def _read_cache(place: Path | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two lines of a cache; two empty dicts if there is none that can be read."""
    if place is None:
        return {}, {}
    try:
        with open(place, "rb") as stream:
            head, body = json.loads(stream.readline()), json.loads(stream.readline())
        is_right = isinstance(head, dict) and all(len(row) in (5, 7) for row in body["contents"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}, {}
    return (head, body) if is_right else ({}, {})


def _contents(
    tree: Tree, layout: Layout, decoding: FolderDecoding, known: Rows, label: str | None = None
) -> tuple[list[Content], Rows]:
    """What the examples hold, and the rows of the cache: what is known of the tree's files."""
    root, rows = f"{tree.path}{os.sep}", known
    if tree.archive is None:
        states = {file.place: [file.size, file.mtime_ns, file.ctime_ns] for file in tree.files}
        rows = {key: row for key, row in known.items() if row[:3] == states.get(root + key)}
    keys = [_key(entry.file, root) for entry in layout.entries]
    unknown = [(key, entry.file) for key, entry in zip(keys, layout.entries, strict=True) if key not in rows]
    read = read_contents(tree, [file for _, file in unknown], decoding, label)
    new = {key: content for (key, _), content in zip(unknown, read, strict=True)}
    lasting = {
        key: _row(file, new[key]) for key, file in unknown if not (new[key].passing or _is_young([0, file.mtime_ns]))
    }
    return [new[key] if key in new else _content(rows[key]) for key in keys], rows | lasting


def _key(file: ListedFile, root: str) -> str:
    """The name of a file in the cache: its path, or its name in an archive."""
    return file.place.removeprefix(root) if isinstance(file.place, str) else file.name


def _row(file: ListedFile, found: Content) -> list[Any]:
    image = [found.height, found.width, found.grey]
    return [file.size, file.mtime_ns, file.ctime_ns, found.digest, *([found.reason] if found.reason else image)]


def _content(row: list[Any]) -> Content:
    return Content(row[3], reason=row[4]) if len(row) == 5 else Content(*row[3:])


def _layout_to(layout: Layout) -> dict[str, Any]:
    return {
        "kind": layout.kind,
        "classes": layout.classes,
        "strays": layout.strays,
        "remarks": to_json(layout.remarks),
        "sources": layout.sources,
        "entries": [[e.name, e.split, e.label, e.group, e.file.size] for e in layout.entries],
    }


def _layout_from(data: dict[str, Any]) -> Layout:
    entries = (
        Entry(split, label, ListedFile(tuple(name.split("/")), size, ""), group)
        for name, split, label, group, size in data["entries"]
    )
    return Layout(
        kind=data["kind"],
        entries=tuple(entries),
        classes=tuple(data["classes"]),
        strays=data["strays"],
        remarks=tuple(from_json(Remark, remark, "remark") for remark in data["remarks"]),
        sources=tuple(data["sources"]),
    )


def _state_of_archive(path: Path) -> list[int] | None:
    """Size and times of an archive; None of a folder, and where nothing can be found out."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns] if stat.S_ISREG(state.st_mode) else None


def _is_young(state: Any) -> bool:
    return bool(state and state[1]) and time.time_ns() - state[1] <= MTIME_GRANULARITY_NS
