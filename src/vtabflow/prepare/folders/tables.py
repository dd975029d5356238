"""Tables that list images: CSV, TSV, JSON lines, and text lists of a path and a label."""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vtabflow.errors import UserError
from vtabflow.prepare.folders.names import listed, plain_split_of

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".lst")
# Headers, in lower case with _ for spaces and signs. Of several the first is taken whose values are images.
FILE = (
    *("file_name", "filename", "file", "file_path", "filepath", "path", "image_path", "image_file", "image_name"),
    *("image", "img", "img_path", "img_name", "image_id", "img_id", "relative_path", "fname", "name", "id"),
)
LABEL = (
    *("label", "labels", "class", "class_name", "classname", "class_id", "category", "category_name", "target"),
    *("label_name", "label_id", "species", "breed", "diagnosis", "dx", "y"),
)
SPLIT = ("split", "set", "subset", "partition", "usage", "fold", "data_set", "dataset_split")
GROUP = (
    *("group", "group_id", "groups", "patient", "patient_id", "subject", "subject_id", "person", "person_id"),
    *(
        "track",
        "track_id",
        "series",
        "series_id",
        "case",
        "case_id",
        "lesion_id",
        "individual",
        "individual_id",
        "video",
    ),
)
LINES = 20  # that decide how a list is separated
IMAGE_THEN_WORD = re.compile(r"(.+\.(?:png|jpe?g|gif|bmp|tiff?|webp|ppm|pgm|jp2|avif))[ \t]+(\S.*)", re.I)
IsImage = Callable[[str], bool]


class NoTable(Exception):
    """A file that lists no images; the text says why, to be read after its name."""


class UnclearTable(NoTable):
    """A file that lists images, and it cannot be told what else."""


@dataclass(frozen=True)
class Row:
    """A line of a table. A value that the table does not have is None, one that is left empty is ""."""

    file: str
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Table:
    """A file that lists images. `columns` are its headers, as they are written; empty where it has none."""

    name: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...] = ()

    @property
    def has_labels(self) -> bool:
        """Whether it says classes."""
        return any(row.label is not None for row in self.rows)

    @property
    def has_splits(self) -> bool:
        """Whether it has a split column."""
        return any(row.split is not None for row in self.rows)


def parse(name: str, data: bytes, is_image: IsImage) -> Table:
    """The table in a file.

    Args:
        name: of the file, for its suffix and for messages.
        data: the whole file.
        is_image: whether a text names an image of the folder.

    Raises:
        NoTable: it lists no images, or it cannot be told what else.
        UserError: several columns can be the classes.
    """
    try:
        text = unicodedata.normalize("NFC", data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise NoTable("is not UTF-8 text: save it as UTF-8") from error
    if "\0" in text:
        raise NoTable("is not text")
    if name.lower().endswith(".jsonl"):
        header, rows = _json_lines(text)
        return _with_header(name, header, rows, is_image)
    lines = _separated(text, is_image)
    if not lines:
        raise NoTable("is empty")
    first = lines[0]
    keys = {_key(cell) for cell in first}
    if keys.intersection(FILE) and (keys.intersection(LABEL) or not any(is_image(cell) for cell in first)):
        return _with_header(name, first, lines[1:], is_image)
    if any(is_image(cell) for cell in first):
        return _without_header(name, lines, is_image)
    if len(lines) > 1 and any(is_image(cell) for cell in lines[1]):
        known = listed(FILE[:3])
        raise NoTable(f"has no column for the files: call one {known} (it has {listed(first, 9)})")
    return _without_header(name, lines, is_image)


# ---- lines


def _json_lines(text: str) -> tuple[list[str], list[list[str]]]:
    records: list[dict[str, Any]] = []
    for line in text.splitlines():
        if line.strip():
            try:
                record = json.loads(line)
            except ValueError as error:
                raise NoTable(f"has a line that is not JSON ({error})") from error
            if not isinstance(record, dict):
                raise NoTable("has lines that are no JSON objects")
            records.append(record)
    header = list(dict.fromkeys(key for record in records for key in record))
    return header, [[_cell(record.get(key)) for key in header] for record in records]


def _cell(value: Any) -> str:
    if value is None or isinstance(value, (dict, list)):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _separated(text: str, is_image: IsImage) -> list[list[str]]:
    """The cells of each line: by tabs, semicolons or commas if all lines have equally many, or else by spaces."""
    start = "\n".join([line for line in text.splitlines() if line.strip()][:LINES])
    for delimiter in "\t;,":
        counts = {len(cells) for cells in csv.reader(io.StringIO(start), delimiter=delimiter)}
        if len(counts) == 1 and counts != {1}:
            reader = csv.reader(io.StringIO(text), delimiter=delimiter)
            return [[cell.strip() for cell in cells] for cells in reader if any(cell.strip() for cell in cells)]
    lines = [_words(line.strip(), is_image) for line in text.splitlines() if line.strip()]
    rest = [cells[1].split() for cells in lines[:LINES] if len(cells) > 1]
    if len({len(words) for words in rest}) == 1 < len(rest[0]) and _are_numbers([words[-1] for words in rest]):
        # Columns, and not a label of several words.
        return [[*cells[:1], *(word for cell in cells[1:] for word in cell.split())] for cells in lines]
    return lines


def _words(line: str, is_image: IsImage) -> list[str]:
    """The path and what follows, or what comes before the path; a path or a label may have spaces in it."""
    if is_image(line):
        return [line]
    if found := IMAGE_THEN_WORD.fullmatch(line):
        return [found[1], found[2].strip()]
    cells = line.rsplit(None, 1)
    return cells if len(cells) < 2 or is_image(cells[0]) else line.split(None, 1)


# ---- columns


def _with_header(name: str, header: Sequence[str], rows: Sequence[Sequence[str]], is_image: IsImage) -> Table:
    keys = [_key(cell) for cell in header]
    columns = tuple(cell.strip() for cell in header)
    file = _file_column(keys, rows, is_image)
    label = _label_column(name, columns, keys, rows, file)
    split = _column(keys, SPLIT, file, label)
    if split is not None and not any(plain_split_of(cell) for cell in _values(rows, split)[:LINES]):
        # "fold" and "set" also number things.
        split = split if keys[split] == "split" else None
    group = _column(keys, GROUP, file, label)
    return Table(name, tuple(_rows(rows, file, label, split, group)), columns)


def _file_column(keys: Sequence[str], rows: Sequence[Sequence[str]], is_image: IsImage) -> int:
    known = [keys.index(key) for key in FILE if key in keys]
    if not known:
        raise NoTable(f"has no column for the files: call one {listed(FILE[:3])}")
    hits = {index: sum(map(is_image, _values(rows, index)[:LINES])) for index in known}
    best = max(known, key=lambda index: hits[index])
    if not hits[best] and keys[best] in ("name", "id"):
        raise NoTable("lists no image of the folder")
    return best


def _label_column(
    name: str, columns: Sequence[str], keys: Sequence[str], rows: Sequence[Sequence[str]], file: int
) -> int | None:
    known = [keys.index(key) for key in LABEL if key in keys and keys.index(key) != file]
    if len(known) > 1:
        # label and label_name may say the same twice; words are better to read than numbers.
        first = known[0]
        pairs = [set(zip(_values(rows, first), _values(rows, index), strict=True)) for index in known]
        counts = [len(set(_values(rows, index))) for index in known]
        if all(len(pair) == count == counts[0] for pair, count in zip(pairs, counts, strict=True)):
            return next((index for index in known if not _are_numbers(_values(rows, index))), first)
        if keys[first] not in ("label", "labels"):
            several = listed((columns[index] for index in known), 9)
            raise UserError(f"{name}: any of the columns {several} can be the class: call one of them label")
    return known[0] if known else None


def _column(keys: Sequence[str], known: Sequence[str], *taken: int | None) -> int | None:
    return next((keys.index(key) for key in known if key in keys and keys.index(key) not in taken), None)


def _without_header(name: str, rows: Sequence[Sequence[str]], is_image: IsImage) -> Table:
    """A list without headers: a path alone, path and label in either order, with a split, or with a box."""
    few, width = rows[:LINES], len(rows[0])
    hits = [sum(is_image(cells[index]) for cells in few if len(cells) > index) for index in range(width)]
    file = max(range(width), key=lambda index: (hits[index], -index))
    if not hits[file]:
        raise NoTable("lists no image of the folder")
    others = [index for index in range(width) if index != file]
    splits = [index for index in others if all(plain_split_of(cell) for cell in _values(few, index))]
    split = splits[0] if len(splits) == 1 and width == 3 else None
    labels = [index for index in others if index != split]
    # The annotations of Tiny ImageNet: file, class, and a box of four numbers.
    if len(labels) == 5 and all(_are_numbers(_values(few, index)) for index in labels[1:]):
        labels = labels[:1]
    if len(labels) > 1:
        raise UnclearTable(
            f"has {width} columns without headers: write headers in its first line, such as "
            f"{','.join(['file', 'label', 'split', *(f'column{i}' for i in range(4, width + 1))][:width])}"
        )
    return Table(name, tuple(_rows(rows, file, labels[0] if labels else None, split, None)))


def _rows(
    rows: Sequence[Sequence[str]], file: int, label: int | None, split: int | None, group: int | None
) -> list[Row]:
    def at(cells: Sequence[str], index: int | None) -> str | None:
        if index is None:
            return None
        return cells[index].strip() if index < len(cells) else ""

    return [Row(at(cells, file) or "", at(cells, label), at(cells, split), at(cells, group)) for cells in rows]


def _values(rows: Sequence[Sequence[str]], index: int) -> list[str]:
    return [cells[index] if index < len(cells) else "" for cells in rows]


def _are_numbers(cells: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?\d+(\.\d+)?", cell.strip()) for cell in cells)


def _key(cell: str) -> str:
    return re.sub(r"\W+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cell.strip())).strip("_").lower()
