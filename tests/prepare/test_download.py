"""One file from one address: what is tried again, how long, and what is a dead address."""

import hashlib
import os
import time

import numpy as np
import pytest
from served import MODIFIED, serving

from vtabflow.prepare.tfds import download

DATA = np.random.default_rng(0).bytes(200_000)


@pytest.fixture
def host():
    with serving() as server:
        server.files["/file"] = DATA
        yield server


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.02, 0.03))


def downloaded(url: str, path) -> bytes:
    download.download(url, path, len(DATA), hashlib.sha256(DATA).hexdigest(), "set: file")
    return path.read_bytes()


def test_a_server_that_never_gets_further_is_given_up(host, tmp_path):
    """Without ranges each attempt starts over, and what an attempt before had reached is nothing new."""
    host.ranges = False
    host.faults["/file"] = [0.6, 0.3] * 10
    with pytest.raises(download.DownloadError, match="broke off after .*, 4 times"):
        downloaded(host.url("/file"), tmp_path / "part")
    assert len(host.asked) == 1 + 4


def test_a_server_that_gets_further_each_time_is_not(host, tmp_path):
    host.ranges = False
    host.faults["/file"] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    assert downloaded(host.url("/file"), tmp_path / "part") == DATA


def test_a_server_says_when_to_come_again(host, tmp_path, monkeypatch):
    host.faults["/file"] = [(503, "1")]
    began = time.monotonic()
    assert downloaded(host.url("/file"), tmp_path / "part") == DATA and time.monotonic() - began >= 1
    # But not for ever.
    monkeypatch.setattr(download, "LONGEST_PAUSE", 0.1)
    host.faults["/file"] = [(429, "30")]
    (tmp_path / "part").unlink()
    began = time.monotonic()
    assert downloaded(host.url("/file"), tmp_path / "part") == DATA and time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("file://FOLDER", "cannot be read .*directory"),
        ("file://FOLDER/none", "no such file"),
        ("file://FOLDER/file/below", "cannot be read .*Not a directory"),
        ("file://FOLDER/%00", "cannot be read .*null"),
        ("https://[bad/file", "not an address"),
        ("http://localhost:port/file", "not an address"),
        ("http://localhost/\u00fc", "not an address"),
    ],
)
def test_an_address_that_gives_no_file_is_dead(tmp_path, address, shown):
    (tmp_path / "file").write_bytes(DATA)
    with pytest.raises(download.DownloadError, match=shown):
        downloaded(address.replace("FOLDER", str(tmp_path)), tmp_path / "part")


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_dead(tmp_path):
    (tmp_path / "file").write_bytes(DATA)
    (tmp_path / "file").chmod(0)
    with pytest.raises(download.DownloadError, match="cannot be read .*Permission denied"):
        downloaded(f"file://{tmp_path}/file", tmp_path / "part")


def broken_off(host, path, share: float) -> None:
    """Leave a part of the file at `path`, from a run in which the server always broke off."""
    host.faults["/file"] = [share, *[0.0] * 4]
    with pytest.raises(download.DownloadError, match="broke off"):
        downloaded(host.url("/file"), path)
    assert 0 < path.stat().st_size < len(DATA)
    host.faults, host.asked, host.conditions = {}, [], []


def test_a_part_of_an_older_version_is_not_continued(host, tmp_path):
    """The server sees by If-Range that the part is of another file and sends the new one whole: one request."""
    path = tmp_path / "part"
    host.files["/file"] = bytes(reversed(DATA))
    broken_off(host, path, 0.5)
    host.files["/file"] = DATA
    assert downloaded(host.url("/file"), path) == DATA and len(host.asked) == 1


def test_a_weak_etag_does_not_promise_equal_bytes(host, tmp_path):
    """RFC 9110, 13.1.5: If-Range needs a strong mark, else the date."""
    host.marks = "weak"
    broken_off(host, tmp_path / "part", 0.5)
    assert downloaded(host.url("/file"), tmp_path / "part") == DATA
    assert host.conditions == [MODIFIED]


def test_a_file_that_ends_early_is_resumed_if_its_length_is_not_said(host, tmp_path):
    """Without Content-Length an end looks like the end of the file; the registered size says that it is not."""
    host.lengths = False
    host.faults["/file"] = [0.4]
    assert downloaded(host.url("/file"), tmp_path / "part") == DATA
    assert [asked_for for _, asked_for in host.asked] == [None, f"bytes={int(0.4 * len(DATA))}-"]
