"""The page in a real browser with the network off."""

import shutil
import subprocess

import pytest

from vtabflow.runtime.files import read_json

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_opens_offline_with_its_figures(finished, tmp_path):
    page = finished.folder / "results/reports/micro/index.html"
    (current,) = page.parent.glob(".current/*")
    card = page.parent / current.name / "card.json"
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=8000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    dumped = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    # JavaScript put an interactive figure in place of each image.
    assert dumped.count('class="live vega-embed') == len(read_json(card)["figures"])
    assert "Sup-100%" in dumped and "stand-in" in dumped
    screenshot = tmp_path / "page.png"
    subprocess.run(
        [*command, f"--screenshot={screenshot}", page.as_uri()], capture_output=True, timeout=120, check=True
    )
    assert screenshot.stat().st_size > 20_000
