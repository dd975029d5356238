"""Progress lines for whoever waits, and how durations and sizes are printed.

Plain lines, few of them: output goes to log files of Snakemake and of clusters, where the carriage returns of tqdm and
rich leave thousands of bars.
"""

import time


class Progress:
    """Counts what is done and prints a line at most every `every` seconds; it never looks at the device.

    Args:
        label: how the lines start; may be changed along the way.
        total: the count at the end, None if that is not known.
        unit: what is counted; "bytes" are printed as kB, MB and GB.
        every: seconds between two lines.
        done: the count at the start, of what goes on after an interruption.

    Example of a line:
        cifar: train: 1,200 of 50,000 images, 910 images/s, 54 s left
    """

    def __init__(self, label: str, total: int | None = None, unit: str = "images", every: float = 10.0, done: int = 0):
        self.label, self.total, self.unit, self.every, self.done = label, total, unit, every, done
        self._start = self._last = (time.monotonic(), done)

    def add(self, count: int) -> None:
        """Count `count` more, and print a line if it is time for one."""
        self.done += count
        if time.monotonic() - self._last[0] >= self.every:
            of = f" of {self._amount(self.total)}" if self.total else ""
            print(f"{self.label}: {self._amount(self.done)}{of}{self._unit()}, {self.pace()}", flush=True)

    def skip(self, count: int) -> None:
        """Of the total, `count` need not be done."""
        if self.total is not None:
            self.total -= count

    def pace(self) -> str:
        """The rate since the last line, and the time left at it: "910 images/s, 54 s left"."""
        rate = self._rate_since(self._last)
        self._last = (time.monotonic(), self.done)
        left = f", {duration(max(0, self.total - self.done) / rate)} left" if self.total and rate else ""
        return f"{self._amount(rate)}{self._unit()}/s{left}"

    def end(self) -> None:
        """Print the count and the mean rate."""
        rate = self._amount(self._rate_since(self._start))
        print(f"{self.label}: {self._amount(self.done)}{self._unit()}, {rate}{self._unit()}/s", flush=True)

    def _rate_since(self, before: tuple[float, int]) -> float:
        return (self.done - before[1]) / max(time.monotonic() - before[0], 1e-9)

    def _amount(self, count: float) -> str:
        return gigabytes(count) if self.unit == "bytes" else f"{count:,.0f}"

    def _unit(self) -> str:
        return "" if self.unit == "bytes" else f" {self.unit}"


def gigabytes(count: float) -> str:
    """Bytes in the largest unit that fits: "1.2 GB", "344.9 MB", "502 bytes"."""
    for size, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.1f} {name}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """Seconds in the unit that fits: "54 s", "12 min", "1.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
