"""Progress lines: how often, the rate since the last line, and the time left."""

import pytest

from vtabflow.runtime import progress
from vtabflow.runtime.progress import Progress, duration, gigabytes


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_ten_seconds_with_the_rate_since_the_last(clock, capsys):
    meter = Progress("clevr: train", 10_000)
    for _ in range(20):
        clock[0] += 1
        meter.add(100)
    clock[0] += 10
    meter.add(3000)
    assert capsys.readouterr().out.splitlines() == [
        "clevr: train: 1,000 of 10,000 images, 100 images/s, 2 min left",
        "clevr: train: 2,000 of 10,000 images, 100 images/s, 80 s left",
        "clevr: train: 5,000 of 10,000 images, 300 images/s, 17 s left",
    ]
    meter.end()
    assert capsys.readouterr().out == "clevr: train: 5,000 images, 167 images/s\n"


def test_bytes_after_an_interruption_and_a_total_that_is_not_known(clock, capsys):
    for total, rest in ((3_000_000_000, " of 3.0 GB, 50.0 MB/s, 20 s left"), (None, ", 50.0 MB/s")):
        meter = Progress("svhn: a.zip", total, "bytes", done=1_500_000_000)
        clock[0] += 10
        meter.add(500_000_000)
        assert capsys.readouterr().out == f"svhn: a.zip: 2.0 GB{rest}\n"


def test_what_is_skipped_counts_for_the_time_left_and_not_for_the_rate(clock, capsys):
    meter = Progress("a/b/1k/0", 1000, every=30)
    meter.label += ": trial 2 of 3"
    meter.skip(500)
    clock[0] += 29
    meter.add(290)
    assert capsys.readouterr().out == ""
    clock[0] += 1
    meter.add(10)
    assert capsys.readouterr().out == "a/b/1k/0: trial 2 of 3: 300 of 500 images, 10 images/s, 20 s left\n"


def test_nothing_done_has_a_rate_of_zero_and_no_time_left(clock):
    meter = Progress("x", 10)
    clock[0] += 5
    assert meter.pace() == "0 images/s"


def test_durations_and_sizes():
    assert [duration(s) for s in (0, 89, 90, 5399, 5400, 9000)] == ["0 s", "89 s", "2 min", "90 min", "1.5 h", "2.5 h"]
    sizes = [gigabytes(n) for n in (502, 1000, 344.9e6, 1.2e9)]
    assert sizes == ["502 bytes", "1.0 kB", "344.9 MB", "1.2 GB"]
