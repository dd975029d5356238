"""A line now and then for whoever waits."""

import time

EVERY = 30.0  # Seconds between lines: a cell of the demo prints none, a cell of hours some hundreds.


class Progress:
    """Counts the images of one cell and prints the rate and the time left. It never looks at the device."""

    def __init__(self, name: str, images: int):
        self.name, self.left = name, images
        self.label = ""
        self.done = 0
        self.last = time.monotonic()

    def skip(self, images: int) -> None:
        """Images that need no training: their trial was finished before."""
        self.left -= images

    def tick(self, images: int) -> None:
        self.done += images
        self.left -= images
        now = time.monotonic()
        if now - self.last < EVERY:
            return
        rate = self.done / (now - self.last)
        minutes = max(0, self.left) / rate / 60
        print(f"  {self.name}: {self.label}: {rate:,.0f} images/s, {minutes:,.0f} min left in this cell", flush=True)
        self.last, self.done = now, 0
