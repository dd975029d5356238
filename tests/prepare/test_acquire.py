"""Archives: the way from an address or a person's hand to where TFDS looks."""

import hashlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from served import Host, serving

from vtabflow.contracts.specs import Places
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import RunError, UserError
from vtabflow.prepare.tfds import acquire, download, origin
from vtabflow.prepare.tfds.archives import Archive
from vtabflow.prepare.tfds.datasets import Dataset, datasets

DATA = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def host():
    with serving() as server:
        yield server


@dataclass
class Setting:
    host: Host
    dataset: Dataset
    places: Places
    target: Path
    manual: Path

    def fetch(self):
        acquire.fetch(self.dataset, self.places)

    def registered(self, data: bytes) -> None:
        """Have `data` be what prepare.tfds.checksums says of the archive."""
        url = self.dataset.archives[0].url
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        Path(self.places.checksums).write_text(json.dumps({url: entry}))


@pytest.fixture
def setting(tmp_path, host, monkeypatch):
    """cifar100's archive at a local host, with a small file for it."""
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.02, 0.03))
    registered = datasets()["cifar100"].archives[0]
    archive = Archive(host.url("/cifar-100-binary.tar.gz"), registered.name, registered.size, registered.sha256)
    dataset = replace(datasets()["cifar100"], archives=(archive,))
    host.files["/cifar-100-binary.tar.gz"] = DATA
    folders = (str(tmp_path / name) for name in ("tfds", "downloads", "manual"))
    places = Places(*folders, str(tmp_path / "checksums.json"), {})
    target = tmp_path / "downloads/cifar100" / archive.cached_name
    made = Setting(host, dataset, places, target, tmp_path / "manual/cifar100/cifar-100-binary.tar.gz")
    made.registered(DATA)
    return made


# ---- downloads


def test_a_download_lies_where_tfds_looks(setting, capsys):
    setting.fetch()
    assert setting.target.read_bytes() == DATA
    info = json.loads(setting.target.with_name(setting.target.name + ".INFO").read_text())
    archive = setting.dataset.archives[0]
    assert info["url_info"] == {"checksum": archive.sha256, "filename": archive.name, "size": archive.size}
    assert info["original_fname"] == archive.name and info["urls"] == [archive.url]
    left = {path.name for path in setting.target.parent.iterdir()} - {
        setting.target.name,
        f"{setting.target.name}.INFO",
    }
    assert left == {".lock", ".verified.json"}
    setting.host.asked.clear()
    setting.fetch()
    assert setting.host.asked == []


def test_tfds_takes_it_for_cached(setting):
    pytest.importorskip("tensorflow_datasets")
    from tensorflow_datasets.core.download import checksums, download_manager

    setting.fetch()
    archive = setting.dataset.archives[0]
    infos = {archive.url: checksums.UrlInfo(size=archive.size, checksum=archive.sha256, filename=archive.name)}
    setting.host.asked.clear()
    manager = download_manager.DownloadManager(
        download_dir=setting.places.downloads,
        dataset_name="cifar100",
        url_infos=infos,
        manual_dir=setting.places.manual,
    )
    assert str(manager.download(archive.url)) == str(setting.target) and setting.host.asked == []


def test_what_was_verified_is_not_hashed_again_until_it_changes(setting, monkeypatch):
    setting.fetch()
    hashed = []
    monkeypatch.setattr(
        acquire, "sha256", lambda path: hashed.append(path) or hashlib.sha256(Path(path).read_bytes()).hexdigest()
    )
    setting.fetch()
    assert hashed == []
    os.utime(setting.target, (1, 1))
    setting.fetch()
    assert hashed == [setting.target]
    setting.target.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    with pytest.raises(UserError, match=r"cifar100: .* is not the required archive .*remove it.*checksums"):
        setting.fetch()
    assert setting.target.exists()


def test_what_was_verified_as_one_archive_is_not_another(setting):
    """The study declares that the archive was released again: the file that was verified before is the old one."""
    setting.fetch()
    setting.registered(DATA[::-1])
    with pytest.raises(UserError, match="cifar100: .* is not the required archive"):
        setting.fetch()


def test_what_was_unpacked_of_another_archive_goes_with_it(setting):
    """TFDS takes unpacked files as cached, whatever archive they came from: a repaired archive has to replace them."""
    setting.fetch()
    unpacked = Path(setting.places.downloads, "extracted")
    old, others = unpacked / f"TAR_GZ.{setting.target.name}", unpacked / "ZIP.another.zip"
    for folder in (old, others):
        folder.mkdir(parents=True)
        (folder / "images.bin").write_bytes(b"old")
    setting.target.unlink()
    setting.fetch()
    assert old.exists()  # the same archive again
    setting.registered(DATA[::-1])
    setting.target.write_bytes(DATA[::-1])
    setting.fetch()
    assert not old.exists() and others.exists()


def test_what_was_unpacked_of_an_archive_in_the_archive_goes_too(setting, tmp_path):
    """Caltech101's images lie in a tar in its zip, which TFDS unpacks under a name of its own."""
    caltech, url = datasets()["caltech101"], datasets()["caltech101"].archives[0].url
    target = acquire.required(caltech, setting.places)[0].path
    inner = tmp_path / "downloads/extracted/TAR_GZ.101_ObjectCategories.tar.gz"
    inner.mkdir(parents=True)
    placed = tmp_path / "manual/caltech-101.zip"
    placed.parent.mkdir()
    for data, kept in ((DATA, True), (DATA, True), (DATA[::-1], False)):
        target.unlink(missing_ok=True)
        placed.unlink(missing_ok=True)
        placed.write_bytes(data)
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        Path(setting.places.checksums).write_text(json.dumps({url: entry}))
        acquire.fetch(caltech, setting.places)
        assert inner.exists() == kept


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("marks", [True, False])
def test_a_broken_connection_is_resumed(setting, ranges, marks):
    host = setting.host
    host.ranges, host.marks = ranges, marks
    host.faults["/cifar-100-binary.tar.gz"] = [0.5, 0.9]
    setting.fetch()
    assert setting.target.read_bytes() == DATA
    asked = [expected for _, expected in host.asked]
    assert asked[0] is None and all(re.fullmatch(r"bytes=[1-9]\d+-", each) for each in asked[1:]) and len(asked) == 3


def test_a_server_that_recovers(setting):
    setting.host.faults["/cifar-100-binary.tar.gz"] = [503, 429, 500]
    setting.fetch()
    assert setting.target.read_bytes() == DATA


def test_a_dead_link_names_the_ways_on_and_a_mirror_helps(setting, host):
    del host.files["/cifar-100-binary.tar.gz"]
    with pytest.raises(RunError) as caught:
        setting.fetch()
    shown = str(caught.value)
    for part in (
        "cifar100",
        host.url("/cifar-100-binary.tar.gz"),
        "HTTP 404",
        str(setting.manual),
        "prepare.tfds.mirrors",
    ):
        assert part in shown
    assert "released anew" not in shown and not setting.target.exists()
    host.files["/there/cifar-100-binary.tar.gz"] = DATA
    setting.places = replace(setting.places, mirrors={host.url("/"): host.url("/there/")})
    setting.fetch()
    assert setting.target.read_bytes() == DATA


def test_mirrors_are_tried_in_order_and_the_original_last(setting, host, tmp_path):
    prefix = host.url("/")
    dead, wrong = host.url("/dead/"), host.url("/wrong/")
    host.files["/wrong/cifar-100-binary.tar.gz"] = DATA[::-1]
    setting.places = replace(
        setting.places, mirrors={prefix: dead, prefix[:-1]: wrong[:-1], "http://elsewhere/": "http://nowhere/"}
    )
    setting.fetch()
    assert [path.split("/")[1] for path, _ in host.asked] == ["dead", "wrong", "cifar-100-binary.tar.gz"]
    assert setting.target.read_bytes() == DATA
    setting.target.unlink()
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas/cifar-100-binary.tar.gz").write_bytes(DATA)
    setting.places = replace(setting.places, mirrors={prefix: f"file://{tmp_path}/nas/"})
    host.asked.clear()
    setting.fetch()
    assert setting.target.read_bytes() == DATA and host.asked == []


def test_a_mirror_that_is_a_folder_is_passed_over(setting, host, tmp_path):
    (tmp_path / "nas/cifar-100-binary.tar.gz").mkdir(parents=True)
    setting.places = replace(setting.places, mirrors={host.url("/"): f"file://{tmp_path}/nas/"})
    setting.fetch()
    assert setting.target.read_bytes() == DATA and len(host.asked) == 1


def test_only_web_and_file_addresses(setting, host):
    setting.places = replace(setting.places, mirrors={host.url("/"): "ftp://example.org/"})
    with pytest.raises(UserError, match="ftp://example.org/cifar.*http, https or file"):
        setting.fetch()
    setting.places = replace(setting.places, mirrors={host.url("/"): "http://[bad/"})
    with pytest.raises(UserError, match=r"mirrors: http://\[bad/cifar.*http, https or file"):
        setting.fetch()


@pytest.mark.parametrize("served", [DATA[:-1], DATA + b"x", b"<html>moved</html>", DATA[::-1]])
def test_a_changed_file_is_refused_and_leaves_nothing(setting, host, served):
    host.files["/cifar-100-binary.tar.gz"] = served
    with pytest.raises(RunError, match=r"another file .*checksums; then run again"):
        setting.fetch()
    assert not setting.target.exists() and not list(setting.target.parent.glob("*.part"))
    # Another size is seen before the file is fetched.
    assert len(host.asked) == 1
    setting.registered(served)
    setting.fetch()
    assert setting.target.read_bytes() == served


def test_a_file_that_changes_between_two_runs_starts_over(setting, host):
    host.faults["/cifar-100-binary.tar.gz"] = [0.5, 404]
    with pytest.raises(RunError):
        setting.fetch()
    assert next(setting.target.parent.glob("*.part")).stat().st_size == len(DATA) // 2
    fresh = DATA[::-1]
    host.files["/cifar-100-binary.tar.gz"] = fresh
    setting.registered(fresh)
    for marks in (True, False):
        host.marks = marks
        setting.fetch()
        assert setting.target.read_bytes() == fresh
        setting.target.rename(setting.target.with_suffix(".old"))
        # Half of another file, without a mark: the digest tells, and it starts over.
        setting.target.with_name(f"{setting.target.name}.part").write_bytes(DATA[: len(DATA) // 2])
    setting.fetch()
    assert setting.target.read_bytes() == fresh


def test_kill_in_the_middle_and_resume(setting, host):
    host.pause = 0.05
    code = (
        "import sys, json\nfrom vtabflow.contracts.specs import Places\n"
        "from vtabflow.contracts.typed_json import from_json\n"
        "from vtabflow.prepare.tfds import acquire\nfrom vtabflow.prepare.tfds.datasets import Dataset\n"
        "dataset, places = json.loads(sys.argv[1])\n"
        "acquire.fetch(from_json(Dataset, dataset, 'test'), from_json(Places, places, 'test'))"
    )
    argument = json.dumps([to_json(setting.dataset), to_json(setting.places)])
    # The name of the cache holds the address: it is the same in both processes.
    running = subprocess.Popen([sys.executable, "-c", code, argument], stdout=subprocess.DEVNULL)
    part = setting.target.with_name(f"{setting.target.name}.part")
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 1_000_000):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    size = part.stat().st_size
    assert not setting.target.exists() and size < len(DATA)
    host.pause = 0
    setting.fetch()
    assert setting.target.read_bytes() == DATA
    assert host.asked[-1][1] == f"bytes={size}-"


def _fetch(dataset, places, found):
    acquire.fetch(dataset, places)
    found.put(os.getpid())


def test_two_processes_fetch_once(setting, host):
    host.pause = 0.01
    fork = multiprocessing.get_context("fork")
    found = fork.Queue()
    running = [fork.Process(target=_fetch, args=(setting.dataset, setting.places, found)) for _ in range(2)]
    for each in running:
        each.start()
    for each in running:
        each.join(30)
    assert [each.exitcode for each in running] == [0, 0]
    assert setting.target.read_bytes() == DATA and len(host.asked) == 1


# ---- manual downloads


@pytest.mark.parametrize("where", ["manual/cifar100", "manual", "downloads"])
def test_a_file_placed_by_hand_is_taken(setting, tmp_path, where):
    placed = tmp_path / where / "cifar-100-binary.tar.gz"
    placed.parent.mkdir(parents=True, exist_ok=True)
    placed.write_bytes(DATA)
    setting.fetch()
    assert setting.target.samefile(placed) and placed.exists() and setting.host.asked == []


@pytest.mark.parametrize("content", [DATA[:1000], DATA[::-1]])
def test_a_wrong_file_placed_by_hand_is_named_and_left(setting, content):
    setting.manual.parent.mkdir(parents=True)
    setting.manual.write_bytes(content)
    with pytest.raises(
        UserError, match=rf"cifar100: {setting.manual} is not the required file .*{len(content):,} bytes.*checksums"
    ):
        setting.fetch()
    assert setting.manual.read_bytes() == content and not setting.target.exists() and setting.host.asked == []


def test_another_disk_gets_a_link(setting, monkeypatch):
    setting.manual.parent.mkdir(parents=True)
    setting.manual.write_bytes(DATA)

    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    setting.fetch()
    assert setting.target.is_symlink() and setting.target.read_bytes() == DATA
    # A person may tidy up: the link is dead then, and the file is found where it is now.
    moved = Path(setting.places.manual, setting.manual.name)
    setting.manual.rename(moved)
    setting.fetch()
    assert setting.target.samefile(moved) and setting.target.read_bytes() == DATA and setting.host.asked == []


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"URL": {"sha256": "12"}}', '{"URL": 3}', '{"URL": {"sha256": "' + "0" * 64 + '", "size": "9"}}'],
)
def test_a_bad_checksums_file_is_named(setting, text):
    Path(setting.places.checksums).write_text(text.replace("URL", setting.host.url("/cifar-100-binary.tar.gz")))
    with pytest.raises(UserError, match=r"prepare\.tfds\.checksums"):
        setting.fetch()
    Path(setting.places.checksums).unlink()
    with pytest.raises(UserError, match="there is no file"):
        setting.fetch()


def test_a_specs_digests_win_over_the_file(setting):
    url = setting.dataset.archives[0].url
    found = acquire.required(setting.dataset, setting.places, {url: "ab" * 32})[0]
    assert (found.sha256, found.size) == ("ab" * 32, None)
    filed = acquire.required(setting.dataset, setting.places, {url: hashlib.sha256(DATA).hexdigest()})[0]
    assert filed.size == len(DATA)
    registered = acquire.required(setting.dataset, replace(setting.places, checksums=None))[0]
    assert (registered.sha256, registered.size) == (registered.archive.sha256, registered.archive.size)


# ---- room


def test_no_room_is_said_before_anything_is_fetched(setting, monkeypatch):
    usage = acquire.shutil.disk_usage("/")
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda _: usage._replace(free=len(DATA) // 2))
    with pytest.raises(RunError, match=r"cifar100: the disk of .* has 1.5 MB free and .* are needed.*data plan"):
        setting.fetch()
    assert setting.host.asked == []


def test_room_is_needed_for_what_is_unpacked_and_for_the_records_too(setting, monkeypatch):
    usage = acquire.shutil.disk_usage("/")
    # cifar100's 168,513,733 bytes unpack to 185,000,000 and make 138,443,489 of records; DATA is smaller by this much.
    all_three = len(DATA) * (1 + (185_000_000 + 138_443_489) / 168_513_733)
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda _: usage._replace(free=int(all_three) - 1))
    with pytest.raises(RunError, match=r"has 8.8 MB free and 8.8 MB are needed"):
        setting.fetch()
    assert setting.host.asked == []
    monkeypatch.setattr(acquire.shutil, "disk_usage", lambda _: usage._replace(free=int(all_three) + 1))
    setting.fetch()
    assert setting.target.exists()


@pytest.mark.skipif(os.getuid() != 0, reason="a small file system can be mounted by root alone")
def test_a_disk_that_fills_up(setting, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        monkeypatch.setattr(acquire, "check_room", lambda _: [])
        setting.places = replace(setting.places, downloads=str(small))
        with pytest.raises(RunError, match=r"cannot write .*: No space left on device; free the disk"):
            setting.fetch()
        part = next((small / "cifar100").glob("*.part"))
        subprocess.run(["mount", "-o", "remount,size=8m", str(small)], check=True)
        size = part.stat().st_size
        setting.fetch()
        assert setting.host.asked[-1][1] == f"bytes={size}-"
        assert (small / "cifar100" / setting.target.name).read_bytes() == DATA
    finally:
        subprocess.run(["umount", str(small)], check=False)


# ---- what the project generated


def test_only_what_was_noted_counts_as_generated(setting, tmp_path):
    folder = tmp_path / "tfds/cifar100/3.0.2"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    assert not origin.is_generated(setting.places, setting.dataset, folder)
    origin.note_generated(setting.places, setting.dataset, folder)
    assert origin.is_generated(setting.places, setting.dataset, folder)
    (folder / "dataset_info.json").write_text('{"other": 1}')
    assert not origin.is_generated(setting.places, setting.dataset, folder)
