"""The page in a real browser with the network off."""

import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_opens_offline_with_its_figures(finished, tmp_path):
    page = finished.folder / "results/reports/micro/index.html"
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
    assert dumped.count("vega-embed") >= 3, "JavaScript put the interactive figures in place of the pictures"
    assert "Sup-100%" in dumped and "stand-in" in dumped
    picture = tmp_path / "page.png"
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=120, check=True)
    assert picture.stat().st_size > 20_000
