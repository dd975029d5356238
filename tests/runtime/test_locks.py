"""Locks: one holder at a time, released by a kill, files and folders, no links."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from vtabflow.runtime.locks import locked, try_locked

HOLDER = """
import sys, time
from pathlib import Path
from vtabflow.runtime.locks import locked
with locked(Path(sys.argv[1]), folder=sys.argv[2] == "folder", waiting="waits") as held:
    print("held", held, flush=True)
    time.sleep(float(sys.argv[3]))
"""


def holder(path, kind, seconds=60):
    command = [sys.executable, "-c", HOLDER, str(path), kind, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_holder_and_a_kill_frees_the_lock(tmp_path, kind):
    path = tmp_path if kind == "folder" else tmp_path / "new" / "a.lock"
    first = holder(path, kind)
    assert first.stdout.readline() == "held True\n"
    with try_locked(path, kind == "folder") as free:
        assert free is False
    second = holder(path, kind, 0)
    assert second.stdout.readline() == "waits\n"
    time.sleep(0.2)
    assert second.poll() is None
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.stdout.readline() == "held True\n" and second.wait() == 0
    with try_locked(path, kind == "folder") as free:
        assert free is True
    assert path.exists()


def test_links_are_refused_and_nothing_is_written_through_them(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    for take in (locked, try_locked):
        with pytest.raises(OSError), take(tmp_path / "link"):
            pass
    assert not (tmp_path / "victim").exists()


def test_a_missing_folder_is_not_made_and_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("missing", "file"):
        with try_locked(tmp_path / name, folder=True) as free:
            assert free is None
        with pytest.raises(OSError), locked(tmp_path / name, folder=True):
            pass
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_system_without_locks_gives_none(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path / "a", waiting="waits") as held, try_locked(tmp_path / "b") as free:
        assert held is False and free is None


def test_children_do_not_inherit_a_lock(tmp_path):
    with locked(tmp_path / "a"):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with try_locked(tmp_path / "a") as free:
            assert free is True
    finally:
        child.kill()
        child.wait()
