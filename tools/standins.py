"""Measure and show the procedural stand-ins: a table of how hard each one is, and an image of every class.

    python tools/standins.py table [--tasks ID ...] [--train 5000] [--size 32]
    python tools/standins.py sheet FILE.png [--tasks ID ...]

The table is Markdown: chance (share of the commonest class in the test part), a linear softmax model on raw pixels, and
a small convolutional net, both trained on `--train` images and scored on 1,000 others, and the processor time of
drawing an image. One thread, about a minute per task.
"""

import argparse
import importlib
import io
import math
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SOURCE = Path(__file__).resolve().parents[1] / "src"
sys.path.insert(0, str(SOURCE))

from vtabflow.planning.tasks import renderers, standins  # noqa: E402
from vtabflow.runtime.files import seed_of  # noqa: E402

TEST = 1000
LIMIT_BYTES = 400_000  # a README image should load at once


def dataset_of(task: str) -> str:
    """The dataset of a task; the upstream set is its own."""
    return standins()[task].dataset if task in standins() else task


def group_of(task: str) -> str:
    """The group of a task: natural, specialized, structured or upstream."""
    return standins()[task].group if task in standins() else "upstream"


def example(draw, dataset: str, split: str, index: int, size: int):
    """Image uint8 (size, size, C) and task -> class of one example, as the prepare step draws it."""
    return draw(np.random.default_rng(seed_of("procedural", dataset, 0, split, index)), size)


def drawn(module: str, dataset: str, split: str, count: int, size: int):
    """Images uint8 (count, size, size, C), labels task -> (count,), and milliseconds per image."""
    draw = importlib.import_module(f"vtabflow.standins.{module}").draw
    example(draw, dataset, split, 0, size)
    start = time.process_time()
    pairs = [example(draw, dataset, split, index, size) for index in range(count)]
    spent = 1000 * (time.process_time() - start) / count
    images = np.stack([image for image, _ in pairs])
    return images, {task: np.array([labels[task] for _, labels in pairs]) for task in pairs[0][1]}, spent


def small_net(channels: int, classes: int):
    """Three stages of convolutions, 16 to 64 wide, about 65,000 parameters."""
    from torch import nn

    def stage(low: int, high: int, stride: int) -> list:
        return [nn.Conv2d(low, high, 3, stride, 1, bias=False), nn.BatchNorm2d(high), nn.ReLU(inplace=True)]

    layers = [*stage(channels, 16, 1), *stage(16, 32, 2), *stage(32, 32, 1), *stage(32, 64, 2), *stage(64, 64, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def linear_model(size: int, channels: int, classes: int):
    """A linear softmax model on pixels."""
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(size * size * channels, classes))


def accuracy_of(model, train, test, steps: int, peak: float, decay: float, batch: int = 128) -> float:
    """Test accuracy after `steps` of AdamW under a one-cycle learning rate."""
    import torch

    (x, y), (tx, ty) = train, test
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, peak, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(steps):
        rows = torch.randint(len(x), (batch,), generator=generator)
        loss = torch.nn.functional.cross_entropy(model(x[rows].contiguous(memory_format=torch.channels_last)), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        cycle.step()
    model.eval()
    with torch.no_grad():
        guess = torch.cat([model(part).argmax(1) for part in tx.split(250)])
    return float((guess == ty).float().mean())


def table(tasks: list[str], train: int, size: int, steps: int) -> None:
    """Print how hard each task is, as a Markdown table."""
    import torch

    torch.set_num_threads(1)
    every = renderers()
    print("| task | group | classes | chance | linear | net | ms/image |")
    print("|---|---|---:|---:|---:|---:|---:|")
    # The images of the last module, which several tasks may share.
    images_of: dict[str, tuple] = {}
    for task in tasks:
        module, classes = every[task]
        if module not in images_of:
            dataset = dataset_of(task)
            images_of = {
                module: (drawn(module, dataset, "train", train, size), drawn(module, dataset, "test", TEST, size))
            }
        (images, labels, spent), (test_images, test_labels, _) = images_of[module]

        def tensors(pixels, truth):
            x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1)
            return x.contiguous(memory_format=torch.channels_last), torch.from_numpy(truth).long()

        data = tensors(images, labels[task]), tensors(test_images, test_labels[task])
        torch.manual_seed(0)
        linear = accuracy_of(linear_model(size, images.shape[-1], classes), *data, steps, 1e-3, 1e-2)
        net = small_net(images.shape[-1], classes).to(memory_format=torch.channels_last)
        score = accuracy_of(net, *data, steps, 1e-2, 1e-3)
        chance = np.bincount(test_labels[task]).max() / TEST
        figures = " | ".join(f"{100 * value:.1f} %" for value in (chance, linear, score))
        print(f"| {task} | {group_of(task)} | {classes} | {figures} | {spent:.2f} |", flush=True)


def sheet(path: Path, tasks: list[str], columns: int = 20) -> None:
    """One image: a row for every task, one sample per class; the largest samples that keep the file small."""
    for cell in (64, 56, 48, 40, 32):
        stream = io.BytesIO()
        arranged(tasks, cell, columns).quantize(255, kmeans=1, dither=Image.Dither.NONE).save(
            stream, "PNG", optimize=True
        )
        if stream.tell() < LIMIT_BYTES:
            break
    path.write_bytes(stream.getvalue())
    print(f"{path}: samples of {cell} px, {stream.tell()} bytes")


def arranged(tasks: list[str], cell: int, columns: int) -> Image.Image:
    """The samples of every task at `cell` px, in lines of `columns`, with the names at the left."""
    every = renderers()
    gap, left, font = 2, 190, ImageFont.load_default(12)
    lines = {task: math.ceil(every[task][1] / columns) for task in tasks}
    width = left + min(columns, max(every[task][1] for task in tasks)) * (cell + gap)
    canvas = Image.new("RGB", (width, sum(lines.values()) * (cell + gap) + 4 * len(tasks)), "white")
    pen, top = ImageDraw.Draw(canvas), 0
    for task in tasks:
        module, classes = every[task]
        pen.text((4, top + 4), task, fill="black", font=font)
        pen.text((4, top + 18), f"{group_of(task)}, {classes} classes", fill="#666666", font=font)
        for label, image in enumerate(samples(module, task, classes, cell)):
            place = (left + label % columns * (cell + gap), top + label // columns * (cell + gap))
            canvas.paste(image, place)
        top += lines[task] * (cell + gap) + 4
    return canvas


def samples(module: str, task: str, classes: int, size: int) -> list[Image.Image]:
    """The first example of each class in the train part, in the order of the classes (grey where 5,000 show none)."""
    draw = importlib.import_module(f"vtabflow.standins.{module}").draw
    dataset = dataset_of(task)
    found: dict[int, np.ndarray] = {}
    for index in range(5000):
        image, labels = example(draw, dataset, "train", index, size)
        found.setdefault(labels[task], image)
        if len(found) == classes:
            break
    blank = np.full((size, size, 1), 128, np.uint8)
    return [Image.fromarray(np.broadcast_to(found.get(c, blank), (size, size, 3)).copy()) for c in range(classes)]


def main() -> None:
    """Read the command line and run the command."""
    every = renderers()
    parser = argparse.ArgumentParser(description="Measure and show the procedural stand-ins.")
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("table", help="how hard each task is, as a Markdown table")
    first.add_argument("--train", type=int, default=5000, help="training images")
    first.add_argument("--size", type=int, default=32, help="pixels")
    first.add_argument("--steps", type=int, default=400, help="training steps of 128 images")
    second = commands.add_parser("sheet", help="an image with one sample of every class")
    second.add_argument("file", type=Path)
    for command in (first, second):
        command.add_argument("--tasks", nargs="+", choices=sorted(every), metavar="ID", default=sorted(every))
    options = parser.parse_args()
    order = ["natural", "specialized", "structured", "upstream"]
    tasks = sorted(options.tasks, key=lambda task: (order.index(group_of(task)), task))
    if options.command == "table":
        table(tasks, options.train, options.size, options.steps)
    else:
        sheet(options.file, tasks)


if __name__ == "__main__":
    main()
