"""Pre-training on a packed store: the same batches as from arrays, the step from spec to card, interrupted runs."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vtabflow.contracts.specs import (
    ImagenetSettings,
    ImageSpec,
    PackedImageSpec,
    Places,
    StoreSpec,
    SubsetDraw,
    SubsetFile,
    UpstreamSpec,
)
from vtabflow.errors import UserError
from vtabflow.networks import registry
from vtabflow.planning import catalogue
from vtabflow.prepare import store
from vtabflow.prepare.imagenet import source as imagenet
from vtabflow.prepare.resize import resize
from vtabflow.prepare.store import HALF
from vtabflow.pretrain import image_loader, loop, step
from vtabflow.pretrain.probe import probe
from vtabflow.pretrain.upstream import Upstream
from vtabflow.runtime.files import read_json, sha256

SIZE, CLASSES, EACH = 32, 4, 90
COUNT = CLASSES * EACH * 984 // 1024  # of train
CPU = torch.device("cpu")
IMAGENET = UpstreamSpec(dataset="imagenet", folder="x", receipt="", task="imagenet", classes=CLASSES)


def store_spec(root, name, source, settings, image, places=None):
    return StoreSpec(
        key="0",
        dataset="imagenet",
        folder=str(root / name),
        receipt=str(root / f"{name}.json"),
        manifest=str(root / f"{name}.manifest.json"),
        source=source,
        settings=settings,
        image=image,
        rows="all",
        tasks=("imagenet",),
        classes={"imagenet": CLASSES},
        identity={},
        code="",
        places=places,
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The packed store of a tree of images of many sizes, and its images as an array, resized once."""
    root = tmp_path_factory.mktemp("packed")
    rng = np.random.default_rng(0)
    for k in range(CLASSES):
        folder = root / f"tree/train/n0000000{k}"
        folder.mkdir(parents=True)
        for i in range(EACH):
            height, width = rng.integers(30, 70, 2)
            pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
            y, x = divmod(k, 2)
            pixels[y * height // 2 :][: height // 3, x * width // 2 :][:, : width // 3] += 120
            Image.fromarray(pixels).save(folder / f"n0000000{k}_{i}.JPEG", quality=90)
    places = Places(tfds="", downloads="", manual="", checksums=None, mirrors={}, tree=str(root / "tree"))
    settings = ImagenetSettings("tree", "5.1.0", "any")
    imagenet.make(store_spec(root, "packed", "imagenet", settings, PackedImageSpec(None, None), places))
    made = store.open_store(root / "packed")
    store.write(
        store_spec(root, "arrays", "imagenet", settings, ImageSpec(SIZE, "legacy")),
        {split: image_loader.open_images(made, split, SIZE)[:] for split in store.SPLITS},
        {"imagenet": {split: made.labels("imagenet", split) for split in store.SPLITS}},
        {split: made.ids(split) for split in store.SPLITS},
        {"imagenet": CLASSES},
    )
    return made, store.open_store(root / "arrays")


@pytest.fixture
def packed_spec(stores, make_spec, tmp_path):
    """make_spec on the packed store; the subset is a list of file names, as S4L's."""
    made, _ = stores
    path = tmp_path / "subset.txt"
    path.write_text("".join(f"{name}\n" for name in sorted(made.ids("train"))[::4]))

    def make(method, **settings):
        spec = make_spec(method, **settings)
        subset = SubsetFile(str(path), sha256(path)) if spec.upstream.subset else None
        return replace(spec, upstream=replace(IMAGENET, folder=str(made.folder), size=SIZE, subset=subset))

    return make


def test_a_file_is_compared_with_the_manifest_once(stores, tmp_path, monkeypatch):
    """Else each process reads 138 GB. Again when the file or the manifest has changed, or the result is lost."""
    monkeypatch.chdir(tmp_path)
    folder, read = tmp_path / "copy", []
    shutil.copytree(stores[0].folder, folder)
    old = time.time() - 60
    monkeypatch.setattr(store, "sha256", lambda path: read.append(Path(path).name) or sha256(path))
    monkeypatch.setattr(image_loader, "MTIME_GRANULARITY_NS", -1)

    def opened():
        read.clear()
        images = image_loader.open_images(store.open_store(folder), "train", SIZE)[:2]
        return len(images), list(read)

    assert opened() == (2, ["train.array_record"])
    assert opened() == (2, [])
    os.utime(folder / "train.array_record", (old, old))
    assert opened() == (2, ["train.array_record"]) and opened() == (2, [])
    image_loader.VERIFIED.write_text("{")
    assert opened() == (2, ["train.array_record"])
    data = bytearray((folder / "train.array_record").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "train.array_record").write_bytes(data)
    for _ in range(2):
        with pytest.raises(UserError, match="SHA-256 differs"):
            opened()


def test_batches_are_those_of_an_array_of_the_same_images(stores):
    made, arrays = stores
    spec = replace(IMAGENET, subset=SubsetDraw(0.2, 0))
    streams = {"unlabelled": "images", "labelled": "subset"}
    one = Upstream(made, replace(spec, size=SIZE), streams, 24, 0, CPU)
    other = Upstream(arrays, spec, streams, 24, 0, CPU)
    for t in (0, 1, 2, 40, 3):
        first, second = one.draw(t), other.draw(t)
        assert first["unlabelled"][1] is None and torch.equal(first["labelled"][1], second["labelled"][1])
        assert all(torch.equal(first[name][0], second[name][0]) for name in streams)
    assert one.subset_ids == other.subset_ids and one.resident is None
    assert one.files == ["train.array_record", "labels/imagenet.train.npy"]
    one.close(), other.close()
    with pytest.raises(UserError, match="say at which size"):
        Upstream(made, spec, streams, 24, 0, CPU)


@pytest.mark.parametrize("method", ["sup-10", "semi-rotation-10", "uncond-biggan"])
def test_a_trained_encoder(stores, packed_spec, method):
    made, _ = stores
    spec = packed_spec(method)
    step.run(spec)
    card = read_json(Path(spec.folder) / "card.json")
    assert card["status"] == "ok" and card["probe"]["n_train"] + card["probe"]["n_test"] == CLASSES * EACH
    used = card["upstream"]["sha256"]
    assert used["train.array_record"] == made.manifest.sha256["train.array_record"] and "train.npy" not in used
    if spec.upstream.subset:
        listed = Path(spec.upstream.subset.file).read_text().splitlines()
        kept = (Path(spec.folder) / "subset.txt").read_text().splitlines()
        assert sorted(kept) == listed and card["upstream"]["subset"]["images"] == len(listed) == 87


def test_the_probe_is_that_of_the_same_images_in_an_array(stores):
    made, arrays = stores
    trunk = registry.build("resnet-small", 0)
    found = probe(trunk, made, "imagenet", SIZE, CPU)
    assert found == probe(trunk, arrays, "imagenet", SIZE, CPU) and found.n_test == CLASSES * EACH * 40 // 1024 + 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_a_row_alone_as_among_others_and_near_the_cpu(stores, monkeypatch):
    images, gpu = image_loader.open_images(stores[0], "train", SIZE), torch.device("cuda")
    rows = np.arange(200)
    together = images.to_device(rows, gpu)
    for row in (0, 127, 199):
        assert torch.equal(images.to_device(np.array([row]), gpu)[0], together[row])
    assert np.abs(together.cpu().numpy().astype(int) - images[rows]).mean() < 8  # noise has colours in every pixel
    monkeypatch.setattr(image_loader, "decodes", lambda device: False)
    assert np.array_equal(images.to_device(rows, gpu).cpu().numpy(), images[rows])


def test_rows_are_bit_identical_however_they_are_indexed(stores, monkeypatch):
    """Compared with a resize of each image alone; by number, slice, mask and list; one and three threads; all sizes."""
    made = stores[0]

    whole_file = image_loader.open_images(made, "train", 8).record

    def alone(row, size):
        whole = torch.from_numpy(image_loader.decode(whole_file(row)))[None]
        return np.floor(resize(whole, size, "legacy")[0].numpy() + HALF).clip(0, 255).astype(np.uint8)

    for size in (32, 75):
        images = image_loader.open_images(made, "train", size)
        assert (
            images.shape == (COUNT, size, size, 3) and images.nbytes == COUNT * size * size * 3 and len(images) == COUNT
        )
        rows = np.array([COUNT - 1, 0, 17, 17, 3])
        want = np.stack([alone(row, size) for row in rows])
        assert np.array_equal(images[rows], want) and np.array_equal(images[17], want[2])
        assert np.array_equal(images[-1], want[0]) and np.array_equal(images[:4][3], want[4])
        assert np.array_equal(images[np.arange(COUNT) == 17][0], want[2])
        assert torch.equal(images.to_device(rows, torch.device("cpu")), torch.from_numpy(want))
        planes = [torch.from_numpy(image_loader.decode(whole_file(row))).permute(2, 0, 1).contiguous() for row in rows]
        assert np.array_equal(image_loader.resize_batch(planes, size).numpy(), want)
    # What a GPU does with images that its decoder leaves to the CPU.
    monkeypatch.setattr(image_loader, "decodes", lambda device: False)
    every, drawn_together = np.arange(COUNT), torch.empty(COUNT, 75, 75, 3, dtype=torch.uint8)
    images._decode_into(images._records(every), drawn_together)
    assert np.array_equal(drawn_together.numpy(), images[every])
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert np.array_equal(image_loader.open_images(made, "train", 75)[rows], want)
    finally:
        torch.set_num_threads(threads)
    with pytest.raises(IndexError):
        images[COUNT]
    assert len(image_loader.open_images(made, "test", 8)) == 0
    with pytest.raises(UserError, match="say at which size"):
        image_loader.open_images(made, "train", None)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("method", ["sup-10", "semi-rotation-10"])
def test_interrupted_and_whole_runs_are_bit_identical(stores, packed_spec, tmp_path, monkeypatch, method):
    monkeypatch.setenv("VTABFLOW_CHECKPOINT_STEPS", "3")
    spec = packed_spec(method, steps=8)
    kind = catalogue.load(method)

    def trained(folder, stop_at=None):
        up = Upstream(stores[0], spec.upstream, kind.streams, spec.settings.batch, 0, CPU)
        network = kind(registry.build(spec.network, 0), spec.image_size, up.classes, spec.settings.flat(), 0)
        draw = up.draw

        def counted(t):
            if t == stop_at:
                raise Interrupted
            return draw(t)

        up.draw = counted
        try:
            return network, loop.train(network, up, spec.settings, 0, "k", folder)
        finally:
            up.close()

    whole, _ = trained(tmp_path / "whole")
    with pytest.raises(Interrupted):
        trained(tmp_path / "torn", stop_at=5)
    torn, outcome = trained(tmp_path / "torn")
    assert outcome.resumed == 1 and outcome.steps == 8
    want, have = whole.state_dict(), torn.state_dict()
    assert [key for key in want if not torch.equal(want[key], have[key])] == []
