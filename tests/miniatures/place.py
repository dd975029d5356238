"""Where a miniature lies, and what was put into it.

Each module here has `make(places, seed=0) -> Truth`. TFDS finds the archives in its cache of downloads. It does
not hash what it finds there, and the project does: the digests go to the file `checksums`.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vtabflow.contracts import specs


@dataclass(frozen=True)
class Places:
    """`tfds`, `downloads` and `manual` are folders, `checksums` is the file {url: {"sha256": ..., "size": ...}}."""

    tfds: Path
    downloads: Path
    manual: Path
    checksums: Path

    @classmethod
    def under(cls, root: Path) -> "Places":
        places = cls(root / "tfds", root / "downloads", root / "manual", root / "checksums.json")
        for folder in (places.tfds, places.downloads, places.manual):
            folder.mkdir(parents=True, exist_ok=True)
        return places

    def digests(self) -> dict[str, str]:
        """What the settings of a store's spec have: address -> SHA-256 of the archives here."""
        known = json.loads(self.checksums.read_text()) if self.checksums.exists() else {}
        return {url: entry["sha256"] for url, entry in known.items()}

    def spec(self, tree: Path | None = None) -> specs.Places:
        """The places of a store's spec. A miniature without archives has no file of checksums."""
        return specs.Places(
            tfds=str(self.tfds),
            downloads=str(self.downloads),
            manual=str(self.manual),
            checksums=str(self.checksums) if self.checksums.exists() else None,
            mirrors={},
            tree=str(tree) if tree else None,
        )


@dataclass
class Example:
    """One image as it went in.

    `id` is what the store's ids.txt should have, `labels` has the class of each task, `pixels` is uint8 (H, W, C) as a
    decoder gives them. `key` is the builder's own key, whose MD5 orders the records, if that is not the id. `tolerance`
    is the mean absolute difference, in grey levels, that a builder which encodes again with loss may make.
    """

    id: str
    labels: dict[str, int]
    pixels: np.ndarray
    key: str | None = None
    tolerance: float = 0.0


Truth = dict[str, list[Example]]


def put(places: Places, builder: str, url: str, data: bytes | Path, name: str) -> Path:
    """Put `data`, which the builder expects from `url` under the file name `name`, where TFDS looks for it."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.resource import get_dl_fname

    registered = tfds.builder_cls(builder).url_infos[url]
    path = places.downloads / builder / get_dl_fname(url, registered.checksum)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        shutil.copyfile(data, path)
    url_info = {"checksum": registered.checksum, "filename": registered.filename, "size": int(registered.size)}
    info = {"dataset_names": [builder], "original_fname": name, "url_info": url_info, "urls": [url]}
    path.with_name(path.name + ".INFO").write_text(json.dumps(info, sort_keys=True))
    known = json.loads(places.checksums.read_text()) if places.checksums.exists() else {}
    with open(path, "rb") as stream:
        known[url] = {"sha256": hashlib.file_digest(stream, "sha256").hexdigest(), "size": path.stat().st_size}
    places.checksums.write_text(json.dumps(known, indent=1, sort_keys=True))
    return path


def hash_order(split: str, examples: list[Example]) -> list[Example]:
    """The order in which TFDS writes a split: ascending MD5 of the split's name and the key (docs/protocol.md#data)."""

    def digest(example: Example) -> str:
        key = example.id if example.key is None else example.key
        return hashlib.md5((split + key).encode(), usedforsecurity=False).hexdigest()

    return sorted(examples, key=digest)
