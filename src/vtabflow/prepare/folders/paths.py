"""Which file a table means by a path: from its own folder, the top, or further up, with the image's suffix or not."""

import posixpath
from collections.abc import Callable, Sequence
from functools import cached_property

from vtabflow.prepare.folders.entry import ListedFile
from vtabflow.prepare.folders.names import is_image

Same = Callable[[str, str], bool]


class AmbiguousPath(Exception):
    """A path that can mean two files; the text names them."""


class Paths:
    """The image files of a folder, to be found by paths that people write."""

    def __init__(self, files: Sequence[ListedFile]):
        self.files = files

    @cached_property
    def by_name(self) -> dict[str, ListedFile]:
        """The images by their whole names."""
        return {file.name: file for file in self.files if is_image(file.parts[-1])}

    @cached_property
    def by_stem(self) -> dict[str, list[ListedFile]]:
        """The images by their names without suffix, in lower case."""
        found: dict[str, list[ListedFile]] = {}
        for file in self.files:
            if is_image(file.parts[-1]):
                found.setdefault(_stem(file.parts[-1]).casefold(), []).append(file)
        return found

    def is_image(self, path: str, folder: tuple[str, ...] = ()) -> bool:
        """Whether a path in a table in `folder` means an image."""
        try:
            return self.find(path, folder) is not None
        except AmbiguousPath:
            return True

    def find(self, path: str, folder: tuple[str, ...] = ()) -> ListedFile | None:
        """The file that a path in a table in `folder` means, or None.

        Case counts only where it decides. A path may lack folders at its start or have more of them ("/home/me/birds/
        cat/0.png" for cat/0.png), and lack the suffix of the image.

        Raises:
            AmbiguousPath: several files fit equally well.
        """
        for name in ("/".join((*folder, path)), path):
            if name in self.by_name:
                return self.by_name[name]
        path = path.replace("\\", "/").strip()
        parts = tuple(part for part in posixpath.normpath(path).split("/") if part not in ("", ".", "..", "/"))
        if not parts or path.endswith("/"):
            return None
        near = self.by_stem.get(_stem(parts[-1]).casefold(), [])
        from_table = tuple(posixpath.normpath("/".join((*folder, path))).split("/"))
        for same in (_is_same, _is_same_but_for_case):
            for wanted in (from_table, parts):
                exact = [file for file in near if _equal(file.parts, wanted, same)]
                if exact:
                    return _only(path, exact)
            tails = [file for file in near if _is_tail(file.parts, parts, same)]
            if tails:
                return _only(path, tails)
        return None


def _only(path: str, files: Sequence[ListedFile]) -> ListedFile:
    if len(files) > 1:
        raise AmbiguousPath(f"{path} can be {files[0].name} or {files[1].name}")
    return files[0]


def _equal(parts: tuple[str, ...], wanted: tuple[str, ...], same: Same) -> bool:
    return len(parts) == len(wanted) and _is_tail(parts, wanted, same)


def _is_tail(parts: tuple[str, ...], wanted: tuple[str, ...], same: Same) -> bool:
    """Whether the shorter of two paths is the end of the longer one; `wanted` may lack the suffix of the image."""
    depth = min(len(parts), len(wanted))
    name = parts[-1] if is_image(wanted[-1]) else _stem(parts[-1])
    return same(name, wanted[-1]) and all(map(same, parts[-depth:-1], wanted[-depth:-1]))


def _is_same(one: str, two: str) -> bool:
    return one == two


def _is_same_but_for_case(one: str, two: str) -> bool:
    return one.casefold() == two.casefold()


def _stem(name: str) -> str:
    """A name without the suffix of an image."""
    return name.rpartition(".")[0] if is_image(name) else name
