"""The lease: devices are never shared, locks end with their process, no GPU means CPU at once."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vtabflow.errors import UserError
from vtabflow.runtime import devices
from vtabflow.runtime.locks import try_locked

JOB = """
import os, sys, time
from vtabflow.runtime import devices
taken = devices.lease(int(sys.argv[1]))
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(log, f"{time.monotonic()} + {','.join(taken)}\\n".encode())
time.sleep(float(sys.argv[3]))
os.write(log, f"{time.monotonic()} - {','.join(taken)}\\n".encode())
"""


def job(tmp_path: Path, count: int, seconds: float, visible: str = "0,1,2,3") -> subprocess.Popen:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": visible, "VTABFLOW_LOCKS": str(tmp_path / "locks")}
    return subprocess.Popen([sys.executable, "-c", JOB, str(count), str(tmp_path / "log"), str(seconds)], env=env)


def test_ten_jobs_on_four_devices_never_overlap(tmp_path):
    jobs = [job(tmp_path, 1 + i % 2, 1.0) for i in range(10)]
    assert all(j.wait(timeout=60) == 0 for j in jobs)
    lines = sorted((tmp_path / "log").read_text().splitlines(), key=lambda line: float(line.split()[0]))
    held: set[str] = set()
    most = 0
    for line in lines:
        _, sign, names = line.split()
        if sign == "+":
            assert not held & set(names.split(",")), "two jobs hold one device"
            held |= set(names.split(","))
            most = max(most, len(held))
        else:
            held -= set(names.split(","))
    assert len(lines) == 20 and most >= 3


def test_a_killed_job_frees_its_device(tmp_path):
    first = job(tmp_path, 1, 60, visible="7")
    while not (tmp_path / "log").exists():
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert job(tmp_path, 1, 0, visible="7").wait(timeout=20) == 0


def test_without_a_gpu_the_cpu_at_once(monkeypatch):
    for visible in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert devices.lease(1) == [] and os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.fixture
def locks(monkeypatch, tmp_path):
    """The folder of locks; what this process leased is free again after the test."""
    monkeypatch.setenv("VTABFLOW_LOCKS", str(tmp_path / "locks"))
    yield tmp_path / "locks"
    devices._leases.close()


def is_free(lock: Path) -> bool:
    with try_locked(lock) as free:
        return free is True


def test_the_devices_of_a_scheduler_are_respected(monkeypatch, locks):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ab/1,5")
    assert devices.pool() == ["GPU-ab/1", "5"]
    assert devices.lease(1) == ["GPU-ab/1"] and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-ab/1"
    assert not is_free(locks / "GPU-ab_1.lock") and is_free(locks / "5.lock")


@pytest.mark.parametrize("count", [2, 3, 9])
def test_a_lease_of_all_devices_or_more_is_all_devices_at_once(tmp_path, count):
    assert job(tmp_path, count, 0, visible="3,5").wait(timeout=20) == 0
    assert [line.split()[1:] for line in (tmp_path / "log").read_text().splitlines()] == [["+", "3,5"], ["-", "3,5"]]


def test_a_lease_that_has_to_wait_keeps_no_device(tmp_path):
    """Else two jobs of two GPUs could have one each and wait for each other."""
    locks = tmp_path / "locks"
    with try_locked(locks / "1.lock"):
        waiting = job(tmp_path, 2, 0, visible="0,1")
        while not (locks / "0.lock").exists():
            time.sleep(0.01)
        deadline = time.monotonic() + 5
        while not (kept_none := is_free(locks / "0.lock")) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert kept_none and waiting.poll() is None
    assert waiting.wait(timeout=20) == 0


def test_the_folder_of_locks_must_have_locks_and_be_ones_own(monkeypatch, locks, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")

    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    with (
        monkeypatch.context() as patch,
        pytest.raises(UserError, match="file system without locks; set VTABFLOW_LOCKS"),
    ):
        patch.setattr(fcntl, "flock", flock)
        devices.lease(1)
    monkeypatch.delenv("VTABFLOW_LOCKS")
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(tmp_path))
    uid = os.getuid()
    assert devices.lease(1) == ["0"] and (tmp_path / f"vtabflow-locks-{uid}").stat().st_mode & 0o777 == 0o700
    (tmp_path / f"vtabflow-locks-{uid + 1}").mkdir()
    monkeypatch.setattr(devices.os, "getuid", lambda: uid + 1)
    with pytest.raises(UserError, match="is another user's"):
        devices.lease(1)


def test_locks_are_not_followed_through_links(monkeypatch, locks, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    locks.mkdir()
    (locks / "0.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        devices.lease(1)
    assert not (tmp_path / "victim").exists()


def test_the_pool_comes_from_nvidia_smi(monkeypatch, tmp_path):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    fake.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert devices.pool() == ["0", "1"]
    fake.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert devices.pool() == []


@pytest.mark.parametrize("count", [1, 3])
def test_threads_reach_the_libraries(monkeypatch, count):
    monkeypatch.setenv("OMP_NUM_THREADS", "9")
    devices.use_threads(count)
    assert os.environ["OMP_NUM_THREADS"] == str(count)
