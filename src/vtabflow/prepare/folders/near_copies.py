"""Images that look the same although their bytes differ: resized or saved again as a JPEG.

The perceptual hash is pHash: the image in grey at 32 x 32 pixels, its discrete cosine transform, of that the 8 x 8
lowest frequencies, and for each whether it is above their median. Source: `phash` of JohannesBuchner/imagehash at
054216f, imagehash/__init__.py. Here the transform is in whole numbers, so that every machine has the same hashes.

Two images are near copies if at most BITS of the 64 bits differ and no channel's mean by more than LEVELS. How often
that is wrong: docs/own-images.md#near-copies.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vtabflow.contracts.specs import FolderDecoding
from vtabflow.prepare.folders.decode import PIXELS_AT_ONCE, Room, read_image
from vtabflow.prepare.folders.entry import File
from vtabflow.prepare.folders.tree import Tree
from vtabflow.prepare.images import Unreadable
from vtabflow.runtime import threads
from vtabflow.runtime.progress import Progress

SIDE, LOW = 32, 8  # pixels that are transformed, and frequencies that are kept, along each axis
BITS = 4  # that may differ
LEVELS = 8  # by which the mean of a channel may differ
FLAT = 2  # standard deviation in levels below which an image has no structure to compare
BLOCK = 64  # files that a thread reads before it reports
AHEAD = 2


@dataclass(frozen=True)
class Look:
    """How an image looks: pHash in 64 bits, and the mean of red, green and blue."""

    hash: int
    mean: tuple[float, float, float]


def near_copies(tree: Tree, files: Sequence[File], decoding: FolderDecoding, label: str) -> dict[str, str]:
    """Digest -> cluster of the images that look like another one. A cluster is called after its first digest.

    Near copies of near copies are of one cluster.

    Args:
        tree: where the files are read.
        files: images with a readable header; those of equal bytes are read once.
        decoding: how they are read; what gives no image has no near copies.
        label: how the lines about the progress start.
    """
    different = {file.digest: file for file in sorted(files, key=lambda file: file.entry.name, reverse=True)}
    looks: dict[str, Look] = {}
    progress = Progress(label, len(different), "images")
    members = list(different.values())
    blocks = [members[start : start + BLOCK] for start in range(0, len(members), BLOCK)]

    room = Room(PIXELS_AT_ONCE)

    def work(block: Sequence[File]) -> list[Look | None]:
        return [_look_of(tree, file, decoding, room) for file in block]

    count = threads.number()
    with ThreadPoolExecutor(count) as pool:
        found = threads.in_order(pool, work, blocks, AHEAD * count)
        for block, of_block in zip(blocks, found, strict=True):
            looks |= {file.digest: look for file, look in zip(block, of_block, strict=True) if look}
            progress.add(len(block))
    return clusters(looks)


def _look_of(tree: Tree, file: File, decoding: FolderDecoding, room: Room) -> Look | None:
    try:
        with room.taken(file.height * file.width):
            return look(read_image(tree, file, decoding).pixels)
    except Unreadable:
        return None


def look(pixels: np.ndarray) -> Look | None:
    """The look of uint8 (H, W, 1 or 3); None if the image has too little structure to compare."""
    whole = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L")
    grey = np.asarray(whole.resize((SIDE, SIDE), Image.Resampling.LANCZOS)).astype(np.int64)
    # The variance, with nothing rounded.
    if grey.size * (grey**2).sum() - grey.sum() ** 2 < (FLAT * grey.size) ** 2:
        return None
    frequencies = (COSINES @ grey @ COSINES.T).reshape(-1)
    bits = frequencies > np.median(frequencies)
    red, green, blue = np.broadcast_to(pixels.reshape(-1, pixels.shape[2]).mean(0), 3).tolist()
    return Look(int.from_bytes(np.packbits(bits).tobytes()), (red, green, blue))


def _cosines() -> np.ndarray:
    """(LOW, SIDE): the lowest frequencies of the discrete cosine transform (type 2), times 4,096 and rounded."""
    position, frequency = np.arange(SIDE), np.arange(LOW)[:, None]
    return np.rint(4096 * np.cos(np.pi * frequency * (2 * position + 1) / (2 * SIDE))).astype(np.int64)


COSINES = _cosines()


def clusters(looks: dict[str, Look]) -> dict[str, str]:
    """Digest -> the first digest of its cluster, for all that have a near copy."""
    digests = sorted(looks)
    hashes = np.array([looks[digest].hash for digest in digests], np.uint64)
    means = np.array([looks[digest].mean for digest in digests]).reshape(-1, 3)
    first = list(range(len(digests)))

    def root(place: int) -> int:
        while first[place] != place:
            first[place] = first[first[place]]
            place = first[place]
        return place

    for here, there in _pairs(hashes, means):
        one, two = sorted((root(here), root(there)))
        first[two] = one
    found = {digest: digests[root(place)] for place, digest in enumerate(digests)}
    names = {name for digest, name in found.items() if name != digest}
    return {digest: name for digest, name in found.items() if name in names}


def _pairs(hashes: np.ndarray, means: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs that connect near copies. Hashes with at most BITS different bits are equal in one of BITS + 1 bands."""
    width = -(-64 // (BITS + 1))
    for start in range(0, 64, width):
        bands = (hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)
        order = np.argsort(bands, kind="stable")
        borders = np.flatnonzero(np.diff(bands[order])) + 1
        for bucket in np.split(order, borders):
            yield from _tree(bucket, hashes, means)


def _tree(bucket: np.ndarray, hashes: np.ndarray, means: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs that connect the near copies in a bucket, one fewer than images: a picture may be there many times."""
    while len(bucket) > 1:
        seen, bucket = [bucket[0]], bucket[1:]
        while seen and len(bucket):
            here = seen.pop()
            same = np.bitwise_count(hashes[bucket] ^ hashes[here]) <= BITS
            same &= (np.abs(means[bucket] - means[here]) <= LEVELS).all(1)
            for there in bucket[same]:
                seen.append(there)
                yield int(here), int(there)
            bucket = bucket[~same]
