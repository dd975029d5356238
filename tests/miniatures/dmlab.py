"""DMLab: a gzipped tar of TFRecord files, each record with a JPEG of 360 by 480 pixels, its name and its class."""

import tarfile
import tempfile
from pathlib import Path

import numpy as np

from miniatures.drawing import decoded, drawn, jpeg
from miniatures.place import Example, Places, Truth, put

URL = "https://storage.googleapis.com/dmlab-vtab/dmlab.tar.gz"
COUNTS = {"train": 60, "validation": 24, "test": 24}
CLASSES = 6  # (close, far, very far) x (positive, negative reward)
SHARDS = 2
DRAWN = 24  # different images; more examples show them again under other names


def make(places: Places, seed: int = 0, train: int = COUNTS["train"]) -> Truth:
    """`train` scales the training split: the builder streams it, and an image costs this file nothing but its bytes."""
    rng = np.random.default_rng(seed)
    files = [jpeg(drawn(rng, 360, 480)) for _ in range(DRAWN)]
    pixels = [decoded(data) for data in files]
    truth: Truth = {}
    with tempfile.TemporaryDirectory(dir=places.downloads) as scratch:
        for split, count in {**COUNTS, "train": train}.items():
            shown, labels = rng.integers(DRAWN, size=count), rng.integers(CLASSES, size=count)
            names = [f"{split}_{i:06d}.jpg" for i in range(count)]
            records = [_record(files[shown[i]], names[i], int(labels[i])) for i in range(count)]
            for shard in range(SHARDS):
                path = Path(scratch) / f"dmlab-{split}.tfrecord-{shard:05d}-of-{SHARDS:05d}"
                _write(path, records[shard::SHARDS])
            truth[split] = [Example(names[i], {"dmlab": int(labels[i])}, pixels[shown[i]]) for i in range(count)]
        archive = Path(scratch) / "dmlab.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=0) as tar:
            for path in sorted(Path(scratch).glob("*.tfrecord-*")):
                tar.add(path, path.name)
        put(places, "dmlab", URL, archive, "dmlab.tar.gz")
    return truth


def _record(image: bytes, name: str, label: int) -> bytes:
    import tensorflow as tf

    def text(value: bytes) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    number = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    features = tf.train.Features(feature={"image": text(image), "filename": text(name.encode()), "label": number})
    return tf.train.Example(features=features).SerializeToString()


def _write(path: Path, records: list[bytes]) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
