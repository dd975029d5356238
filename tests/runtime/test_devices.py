"""The lease: devices are never shared, locks die with their process, no GPU means CPU at once."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vtabflow.runtime import devices

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


def test_the_pool_of_a_scheduler_is_respected(monkeypatch, tmp_path):
    monkeypatch.setenv("VTABFLOW_LOCKS", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ab/1,5")
    assert devices.pool() == ["GPU-ab/1", "5"]
    taken = devices.lease(random.choice([2, 3]))  # more than there are: all that there are
    assert taken == ["GPU-ab/1", "5"] and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-ab/1,5"
    for held in devices._held:
        os.close(held)
    devices._held.clear()


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
