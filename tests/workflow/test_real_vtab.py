"""Studies of the real VTAB as Snakemake sees them: the complete graph, and a whole run on miniature archives."""

import re
import sys

import pytest
import yaml
from clones import ROOT, copy_project

sys.path.insert(0, str(ROOT / "tests"))

# Put before everything else on the path: whoever imports TensorFlow outside of the prepare step ends.
GUARD = """
import sys

if not any(word == "prepare" for word in sys.argv):
    sys.modules["tensorflow"] = sys.modules["tensorflow_datasets"] = None
"""


def test_the_whole_study_is_one_graph(tmp_path):
    """Without any of its 240 GB: 16 datasets and ImageNet, 18 encoders, 684 cells, a page."""
    project = copy_project(tmp_path / "clone")
    jobs = project.snakemake("-n", "--config", "params=studies/vtab.yaml")
    assert jobs == {"prepare": 17, "pretrain": 18, "finetune": 684, "report": 1, "publish": 1}
    told = project.run("vtabflow", "check", "studies/vtab.yaml", check=False)
    assert told.returncode == 2 and "684 cells" in told.stdout
    assert all(name in told.stderr for name in ("resisc45", "diabetic-retinopathy", "imagenet", "leave-out"))


def test_from_archives_to_the_page(tmp_path):
    """SVHN, both CLEVR tasks and ImageNet from miniature archives, through TFDS' own builders and Snakemake; TensorFlow
    is there for the prepare step alone.
    """
    pytest.importorskip("tensorflow_datasets")
    from miniatures import clevr, imagenet2012, svhn
    from miniatures.place import Places

    project = copy_project(tmp_path / "clone")
    places = Places.under(project.folder / "data")
    for miniature in (svhn, clevr, imagenet2012):
        miniature.make(places)
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard/sitecustomize.py").write_text(GUARD)
    project.env["PYTHONPATH"] = f"{tmp_path / 'guard'}:{project.env['PYTHONPATH']}"
    study = {
        "study": "mini",
        "methods": ["from-scratch", "sup-100"],
        "tasks": ["svhn", "clevr-count", "clevr-distance", "resisc45"],
        "budgets": ["1k"],
        "upstream": "imagenet",
        "prepare": {
            "image_size": 32,
            "tfds": {"counts": "any", "checksums": "data/checksums.json", "absent": "leave-out"},
            "imagenet": {"drawn_at": 40},
        },
        "pretrain": {"steps": 4, "batch": 8},
        "finetune": {"learning_rates": [0.1], "steps": [4], "batch": 32},
        "run": {"cells_per_job": 6},
    }
    (project.folder / "params.yaml").write_text(yaml.safe_dump(study))
    assert "left out: resisc45" in project.run("vtabflow", "check").stdout
    assert project.snakemake() == {"prepare": 3, "pretrain": 2, "finetune": 1, "report": 1, "publish": 1}
    page = re.sub(r"<[^>]+>", "", (project.folder / "results/reports/mini/index.html").read_text())
    assert "Of VTAB’s 19 tasks this study has 3" in page and "Resisc45" in page and "they may be subsets" in page
    assert len(project.accuracies()) == 6
    audit = project.run("vtabflow", "data", "audit").stdout
    assert "3 match" in audit and "counts are not VTAB's (test 300 of 26,032)" in audit
    assert project.snakemake() == {}
