"""The table of archives, against TFDS' own."""

import contextlib
import hashlib

import pytest

from vtabflow.prepare.tfds import archives
from vtabflow.prepare.tfds.datasets import dataset_of, datasets, imagenet


def test_the_table_is_what_the_builders_ask_for(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.core.download.resource import get_dl_fname

    class CUDAGraphStep(Exception):
        pass

    class Recorder:
        """Stands for TFDS' download manager: notes the addresses, and ends the builder's work."""

        def __init__(self):
            import etils.epath

            self.urls, self.manual_dir = [], etils.epath.Path(tmp_path)

        def download(self, given):
            values = given.values() if isinstance(given, dict) else given if isinstance(given, list) else [given]
            self.urls += [value if isinstance(value, str) else value.url for value in values]
            raise CUDAGraphStep

        download_and_extract = download

    for name in ("NWPU-RESISC45/airplane", "train", "test", "sample"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"):
        (tmp_path / name).touch()
    known = {
        **{name: (each.builder, each.config) for name, each in datasets().items()},
    }
    for name, (builder_name, config) in known.items():
        builder = tfds.builder_cls(builder_name)(
            data_dir=str(tmp_path / "tfds"), **({"config": config} if config else {})
        )
        if name in datasets():
            assert str(builder.version) == datasets()[name].version
        recorder = Recorder()
        with contextlib.suppress(CUDAGraphStep):
            list(builder._split_generators(recorder))
        table = datasets()[name].archives
        assert sorted(recorder.urls) == sorted(archive.url for archive in table), name
        for archive in table:
            registered = builder.url_infos[archive.url]
            assert (archive.size, archive.sha256) == (int(registered.size), registered.checksum), archive.url
            assert archive.name == registered.filename
            assert archive.cached_name == get_dl_fname(archive.url, registered.checksum)
    # The sizes registered in TFDS' checksums.tsv.
    total = sum(archive.size for name in datasets() for archive in datasets()[name].archives)
    assert round(total / 1e9, 1) == 85.8
    infos = tfds.builder_cls("imagenet2012").url_infos
    assert sorted(file.size for file in imagenet().manual_downloads) == sorted(
        int(info.size) for info in infos.values()
    )


def test_every_dataset_has_sizes():
    assert [name for name in (*datasets(), "imagenet") if not dataset_of(name).records_bytes] == []
    manual = {name for name, each in datasets().items() if each.manual_downloads} | {"imagenet"}
    assert manual == {"resisc45", "diabetic-retinopathy", "imagenet"}


@pytest.mark.parametrize(
    "url",
    [
        "https://www.a.org/x_data_of_000123/" + "long" * 30 + "-part.tar.gz",
        "https://storage.googleapis.com/b/a.b/c d?e=f",
        "http://h.s3-website.eu-central-1.amazonaws.com/00/n.tbz2",
        "https://github.com/u/r/raw/x",
    ],
)
def test_names_are_those_of_tfds(url):
    resource = pytest.importorskip("tensorflow_datasets.core.download.resource")
    checksum = hashlib.sha256(url.encode()).hexdigest()
    assert archives.cached_name(url, checksum) == resource.get_dl_fname(url, checksum)
