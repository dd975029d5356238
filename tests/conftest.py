"""What several tests share: the project's root, a study, and the real images where they are present."""

import os
from pathlib import Path

import pytest
import torchvision  # noqa: F401 - loaded after TensorFlow, in one process, it ends the process: both register LLVM's options
import yaml

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("VTABFLOW_TEST_DATA", ROOT.parent / "shared" / "data"))

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def real_data() -> Path:
    if not (REAL_DATA / "eurosat.zip").exists():
        pytest.skip("the real images (../shared/data, or VTABFLOW_TEST_DATA) are not here")
    return REAL_DATA


@pytest.fixture
def smoke() -> dict:
    """The smoke study as a plain dictionary, to be changed by a test."""
    return yaml.safe_load((ROOT / "studies/smoke.yaml").read_text())
