"""Decoding a folder: threads, a killed job that goes on, bounds on memory, and what is said of unusual files."""

import io
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_folders import classes_of, encoded, noise, prepared, spec_for, write_files, zipped

from vtabflow.contracts.specs import FolderDecoding, ImageSpec
from vtabflow.errors import UserError
from vtabflow.prepare import images, store
from vtabflow.prepare.folders import decode
from vtabflow.prepare.folders import source as folder


def said(opened: store.Store) -> dict[str, str]:
    return {remark.kind: remark.text for remark in opened.manifest.remarks}


@pytest.mark.parametrize("kind", ["legacy", "antialias"])
def test_the_store_does_not_depend_on_the_number_of_threads(tmp_path, monkeypatch, kind):
    rng = np.random.default_rng(3)
    files = {
        f"{n % 3}/{n}.png": encoded(noise(*rng.integers(9, 40, 2), 1 if n % 7 == 0 else 3)) for n in range(120)
    } | {f"1/broken{n}.png": encoded(noise(64, 64))[:3000] for n in range(9)}
    path = zipped(tmp_path / "in.zip", files)
    found = []
    for threads in ("1", "2", "7"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        spec = spec_for(path, tmp_path / threads)
        folder.make(replace(spec, image=ImageSpec(8, kind, "float32")))
        found.append(store.open_store(spec.folder).manifest)
    assert found[0].sha256 == found[1].sha256 == found[2].sha256 and len(found[0].skipped) == 9
    assert found[0].skipped == found[2].skipped


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
sys.path[:0] = [{src!r}, {here!r}]
from pathlib import Path
from small_folders import spec_for
from vtabflow.prepare.folders import decode, source
decode.SECONDS = 0.0
add = decode.DoneList.add

def slowly(self, split, filled):
    add(self, split, filled)
    print(split, filled.files, flush=True)
    sys.stdin.readline()

decode.DoneList.add = slowly
source.make(spec_for(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def killed(path: Path, place: Path, lines: int, signal_: signal.Signals = signal.SIGKILL) -> list[str]:
    """Start the job, wait for so many lines of its list, and kill it; gives the last line: split and files."""
    script = SCRIPT.format(src=str(Path(store.__file__).parents[2]), here=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(path), str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdin is not None and job.stdout is not None
        seen = []
        while len(seen) < lines:
            words = job.stdout.readline().split()
            assert words, "the job has ended"
            if words[0] in store.SPLITS:
                seen.append(words)
                if len(seen) < lines:
                    job.stdin.write("\n")
                    job.stdin.flush()
        job.send_signal(signal_)
        assert job.wait(timeout=60) != 0
    return seen[-1]


@pytest.fixture
def counted(monkeypatch):
    """The sizes of the files that are decoded."""
    sizes: list[int] = []
    plain = images.decode

    def counting(data, decoding):
        sizes.append(len(data))
        return plain(data, decoding)

    monkeypatch.setattr(images, "decode", counting)
    return sizes


def test_a_killed_job_goes_on_with_the_rest(tmp_path, counted, capsys):
    files = classes_of({"a": 200, "b": 200}) | {f"a/x{n}.png": encoded(noise())[:200] for n in range(40)}
    path = write_files(tmp_path / "in", files)
    whole = prepared(path, tmp_path / "whole")
    assert len(counted) == 440
    for lines in (2, 5, 12):  # in train, and in val
        place = tmp_path / str(lines)
        split, decoded = killed(path, place, lines)
        assert (split == "train") == (lines < 10) and not store.is_complete(place / "store")
        (left,) = place.glob(".store.*")
        counted.clear(), capsys.readouterr()
        again = prepared(path, place)
        before = {"train": 0, "val": 264, "test": 352}[split]
        assert len(counted) == 440 - before - int(decoded)
        assert again.manifest.sha256 == whole.manifest.sha256 and again.manifest.skipped == whole.manifest.skipped
        assert again.manifest.remarks == whole.manifest.remarks and not left.exists()
        for name, pixels in zip(again.ids("train"), again.images("train"), strict=True):
            assert (pixels == np.asarray(Image.open(io.BytesIO(files[name])))).all()
        assert "images are there from a job that was stopped" in capsys.readouterr().out
        assert sorted(os.listdir(place)) == ["manifest.json", "store"]
        assert not list((place / "store").rglob(decode.LIST))


def test_an_interrupted_job_goes_on_too(tmp_path, counted):
    path = write_files(tmp_path / "in", classes_of({"a": 100, "b": 100}))
    killed(path, tmp_path, 2, signal.SIGINT)
    assert prepared(path, tmp_path).manifest.counts == {"train": 120, "val": 40, "test": 40}
    assert len(counted) == 200 - 64


def test_the_work_of_another_job_is_not_taken(tmp_path, counted):
    """The same place with another image setting, and with another image of the same name."""
    files = classes_of({"a": 100, "b": 100})
    path = write_files(tmp_path / "in", files)
    killed(path, tmp_path, 2)
    opened = prepared(path, tmp_path, size=16)  # the images keep their 8 pixels, but the setting is another
    assert len(counted) == 200
    place = tmp_path / "second"
    killed(path, place, 2)
    write_files(path, {"a/3.png": encoded(noise())})
    counted.clear()
    changed = prepared(path, place)
    assert len(counted) == 200 and changed.manifest.sha256 != opened.manifest.sha256
    for split in store.SPLITS:
        for name, pixels in zip(changed.ids(split), changed.images(split), strict=True):
            assert (pixels == images.decode((path / name).read_bytes(), FolderDecoding()).pixels).all()


def test_a_torn_list_counts_as_far_as_it_goes(tmp_path, counted):
    path = write_files(tmp_path / "in", classes_of({"a": 100, "b": 100}))
    killed(path, tmp_path, 3)
    (left,) = tmp_path.glob(".store.*")
    whole = (left / decode.LIST).read_text()
    (left / decode.LIST).write_text(whole[:-9])
    prepared(path, tmp_path)
    assert len(counted) == 200 - 64


def test_a_job_that_is_refused_leaves_nothing(tmp_path):
    files = classes_of({"a": 100, "b": 100}) | {"b/cut.png": encoded(noise(64, 64))[:3000]}
    with pytest.raises(UserError, match="b/cut.png is broken"):
        prepared(write_files(tmp_path / "in", files), tmp_path, invalid="refuse")
    assert os.listdir(tmp_path) == ["in"]


def test_large_images_are_not_decoded_side_by_side():
    room, inside, most = decode.Room(100), [0], [0]
    change = threading.Lock()

    def use(pixels: int) -> None:
        with room.taken(pixels):
            with change:
                inside[0] += pixels
                most[0] = max(most[0], inside[0])
            with change:
                inside[0] -= pixels

    threads = [threading.Thread(target=use, args=(size,)) for size in (40, 60, 70, 30, 1000, 100) * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads) and room.used == 0
    assert 40 <= most[0] <= 1000


# ---- what is said


def deep(highest: int) -> dict[str, bytes]:
    """Grey images of 16 bits with values up to `highest`."""
    rng = np.random.default_rng(0)
    return {f"{n % 2}/{n}.png": encoded(rng.integers(0, highest, (8, 8), np.uint16, endpoint=True)) for n in range(20)}


def test_twelve_bits_in_sixteen_are_said_and_cured(tmp_path):
    files = deep(4000)
    files["0/0.png"] = encoded(np.full((8, 8), 4001, np.uint16))
    path = write_files(tmp_path / "in", files)
    dark = prepared(path, tmp_path / "0")
    assert said(dark)["dark"] == (
        "20 images of 16 bits look black, with values up to 4,001 of 65,535: set `range: [0, 4095]`"
    )
    assert dark.images("train").max() <= 16
    cured = prepared(path, tmp_path / "1", decoding=FolderDecoding(range=(0, 4095)))
    assert not {"dark", "above-range", "range"} & said(cured).keys() and cured.images("train").max() > 240
    clipped = prepared(path, tmp_path / "2", decoding=FolderDecoding(range=(0, 1023)))
    assert said(clipped)["above-range"] == "values of 16-bit images up to 4,001 lie above the range and come out white"


def test_sixteen_bits_and_eight_bits_are_not_called_dark(tmp_path):
    assert "dark" not in said(prepared(write_files(tmp_path / "in", deep(65535)), tmp_path / "0"))
    black = {f"{n % 2}/{n}.png": encoded(np.full((8, 8, 1), n, np.uint8)[:, :, 0]) for n in range(20)}
    path = write_files(tmp_path / "black", black)
    assert "dark" not in said(prepared(path, tmp_path / "1"))
    ranged = prepared(path, tmp_path / "2", decoding=FolderDecoding(range=(0, 4095)))
    assert said(ranged)["range"] == "`range` changes nothing, since no image is grey with 16 bits"


def test_cut_files_are_counted_by_name(tmp_path):
    whole = encoded(noise(32, 32), "JPEG")
    files = classes_of({"a": 20, "b": 20}) | {"a/cut.jpg": whole[:-200], "b/cut.jpg": whole[:-300]}
    path = write_files(tmp_path / "in", files)
    assert {entry.file for entry in prepared(path, tmp_path / "0").manifest.skipped} == {"a/cut.jpg", "b/cut.jpg"}
    taken = prepared(path, tmp_path / "1", decoding=FolderDecoding(truncated=True))
    assert not taken.manifest.skipped and sum(taken.manifest.counts.values()) == 42
    assert said(taken)["cut"] == "2 images are cut off and taken as far as they go, such as a/cut.jpg"


def test_larger_images_by_their_setting(tmp_path):
    files = classes_of({"a": 20, "b": 20}) | {"a/large.png": encoded(noise(40, 50))}
    path = write_files(tmp_path / "in", files)
    small = prepared(path, tmp_path / "0", decoding=FolderDecoding(max_pixels=1999))
    assert [entry.file for entry in small.manifest.skipped] == ["a/large.png"]
    assert "has more than 1999 pixels" in small.manifest.skipped[0].reason
    assert not prepared(path, tmp_path / "1", decoding=FolderDecoding(max_pixels=2000)).manifest.skipped
