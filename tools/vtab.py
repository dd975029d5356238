"""The tables of the documents on the preparation of VTAB's datasets, measured on miniatures. Needs `make tfds`.

    python tools/vtab.py table            builder, version, splits, counts, label rule of the 19 tasks, as Markdown
    python tools/vtab.py speed [IMAGES]   DMLab (JPEG, 360 x 480) scaled up: images/s of one thread, and memory
    python tools/vtab.py packed           an upstream of 500 x 375 px, 80 kB: images/s of one thread, packed and read
    python tools/vtab.py decoders ZIP     every 50th JPEG of a zip: how far Pillow's pixels are from TensorFlow's

Miniatures (tests/miniatures) are prepared in a temporary folder through TFDS' own builders.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tests/prepare")]

from test_vtab import spec_of  # noqa: E402

from miniatures.place import Places  # noqa: E402
from vtabflow.contracts.specs import ImagenetSettings, PackedImageSpec, StoreSpec  # noqa: E402
from vtabflow.contracts.typed_json import to_json  # noqa: E402
from vtabflow.planning.tasks import vtab  # noqa: E402
from vtabflow.prepare import step  # noqa: E402
from vtabflow.prepare.tfds.datasets import Dataset, datasets  # noqa: E402
from vtabflow.prepare.tfds.splits import expressions, parts  # noqa: E402


def sizes(dataset: Dataset, counts: dict[str, int]) -> str:
    """Examples of train, val and test."""
    found = parts(dataset.split, counts)
    return " / ".join(f"{stop - start:,}" for _, start, stop in (found[name] for name in ("train", "val", "test")))


def prepared_sizes(dataset: Dataset) -> str:
    """Examples of train, val and test in the store of the miniature."""
    with tempfile.TemporaryDirectory() as folder:
        places = Places.under(Path(folder))
        importlib.import_module(f"miniatures.{dataset.id.replace('-', '_')}").make(places)
        spec = spec_of(dataset.id, places, Path(folder))
        step.run(spec)
        counts = json.loads(Path(spec.manifest).read_text("utf-8"))["counts"]
    return " / ".join(f"{counts[split]:,}" for split in ("train", "val", "test"))


def speed(images: int) -> None:
    """Prepare DMLab with `images` training images at 224 px in a process of its own; print its rate and memory."""
    from miniatures import dmlab

    with tempfile.TemporaryDirectory() as folder:
        places = Places.under(Path(folder))
        dmlab.make(places, train=images)
        spec = to_json(spec_of("dmlab", places, Path(folder), size=224))
        (Path(folder) / "spec.json").write_text(json.dumps(spec), "utf-8")
        command = [sys.executable, "-m", "vtabflow", "prepare", "--spec", f"{folder}/spec.json", "--threads", "1"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})


def packed() -> None:
    """Pack a tree of 2,000 files as they are, and shortened to 256; then draw 512 of them at 224 and at 64 px."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import numpy as np

    from miniatures.drawing import jpeg
    from vtabflow.prepare import store
    from vtabflow.prepare.imagenet import source as imagenet
    from vtabflow.pretrain.image_loader import open_images

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        tree, root = Path(folder, "tree"), Path(folder)
        for index in range(2000):
            path = tree / f"n{index % 10:08}" / f"n{index % 10:08}_{index}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            # Noise over a shade: as many bytes a pixel as ImageNet's photographs have.
            coarse = np.kron(rng.normal(0, 22, (188, 250, 3)), np.ones((2, 2, 1)))[:375]
            shade = np.linspace(40, 210, 500)[None, :, None]
            path.write_bytes(jpeg(np.clip(shade + coarse, 0, 255).astype(np.uint8), 85))
        size = sum(path.stat().st_size for path in tree.rglob("*.JPEG")) / 2000
        print(f"{size / 1e3:.0f} kB an image")
        for side, quality in ((None, None), (256, 95)):
            spec = StoreSpec(
                key="k",
                dataset="imagenet",
                folder=str(root / f"store-{side}"),
                receipt="",
                manifest=str(root / f"manifest-{side}.json"),
                source="imagenet",
                settings=ImagenetSettings("tree", "5.1.0", "any"),
                image=PackedImageSpec(side, quality),
                rows="all",
                tasks=("imagenet",),
                classes={"imagenet": 10},
                identity={},
                code="",
                places=Places.under(root).spec(tree),
            )
            begun = time.process_time()
            imagenet.make(spec)
            print(f"packed, longest side {side}: {2000 / (time.process_time() - begun):.0f} images/s")
            for drawn_at in (224, 64):
                images = open_images(store.open_store(spec.folder), "train", drawn_at)
                rows = rng.permutation(len(images))[:512]
                images[rows[:20]]
                begun = time.process_time()
                images[rows]
                print(f"drawn at {drawn_at}, longest side {side}: {512 / (time.process_time() - begun):.0f} images/s")


def decoders(path: str) -> None:
    """How far Pillow is from TensorFlow's default (the fast integer transform) and from its accurate one."""
    import io
    import zipfile

    import numpy as np
    import tensorflow as tf
    from PIL import Image

    off: dict[str, list[np.ndarray]] = {"default": [], "INTEGER_ACCURATE": []}
    with zipfile.ZipFile(path) as archive:
        for name in [name for name in archive.namelist() if name.endswith(".jpg")][::50]:
            data = archive.read(name)
            pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
            for method, found in off.items():
                asked = "" if method == "default" else method
                pixels = tf.io.decode_jpeg(data, channels=3, dct_method=asked).numpy()
                found.append(np.abs(pixels - pillow).ravel())
    for method, found in off.items():
        every = np.concatenate(found)
        differ = (
            f"{(every > 0).mean():.1%} of the values differ, by {every.mean():.2f} levels in the mean and {every.max()}"
        )
        print(f"{method}: {len(found)} images, {differ} at the most")


def table() -> None:
    """Print the table of the 19 tasks."""
    made: dict[str, str] = {}
    print("| task | builder, version | train; val; test | VTAB's counts | miniature's | label | classes |")
    print("|---|---|---|---:|---:|---|---:|")
    for name, task in vtab().items():
        dataset = datasets()[task.dataset]
        label = dataset.tasks[name].label
        made.setdefault(dataset.id, prepared_sizes(dataset))
        cut = expressions(dataset.split, dataset.counts)
        row = [
            task.display,
            f"`{'/'.join(filter(None, [dataset.builder, dataset.config]))}` {dataset.version}",
            "; ".join(f"`{cut[split]}`" for split in ("train", "val", "test")),
            sizes(dataset, dataset.counts),
            made[dataset.id],
            f"`{label}`",
            str(task.classes),
        ]
        print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["speed"]:
        speed(int((*sys.argv[2:], "14000")[0]))
    elif sys.argv[1:2] == ["packed"]:
        packed()
    elif sys.argv[1:2] == ["decoders"]:
        decoders(sys.argv[2])
    elif not sys.argv[1:] or sys.argv[1:] == ["table"]:
        table()
    else:
        sys.exit(__doc__)
