"""Copies of the project that real Snakemake and DVC runs may use up."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from vtabflow.runtime.files import read_json

ROOT = Path(__file__).resolve().parents[2]
TRACKED = (
    "src",
    "workflow",
    "studies",
    "code.lock",
    "params.yaml",
    "dvc.yaml",
    "environment.yml",
    ".dvcignore",
    ".gitignore",
    "Makefile",
)
MICRO = {
    "study": "micro",
    "methods": ["from-scratch", "sup-100"],
    "tasks": ["svhn-standin", "clevr-count-standin"],
    "budgets": ["1k"],
    "seeds": [0],
    "upstream": "upstream-standin",
    "portable": False,
    "report": {"theme": "light"},
    "prepare": {"image_size": 16, "procedural": {"train": 800, "val": 200, "test": 60, "upstream": 300}},
    "pretrain": {"steps": 6, "batch": 32},
    "finetune": {"learning_rates": [0.1, 0.01], "steps": [4], "batch": 32},
    "run": {"cells_per_job": 2},
}


class Project:
    """A clone of the project in a folder of its own, with the commands that a user would type."""

    def __init__(self, folder: Path):
        self.folder = folder
        home = folder / ".home"
        home.mkdir(exist_ok=True)
        self.env = {
            **os.environ,
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder / "src"),
            "CUDA_VISIBLE_DEVICES": "",
            "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
            "GIT_AUTHOR_NAME": "t",
            "GIT_AUTHOR_EMAIL": "t@example.org",
            "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@example.org",
        }

    def run(self, *command: str, check: bool = True, **extra) -> subprocess.CompletedProcess:
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True, **extra)
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(command)} exited with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
            )
        return done

    def start(self, *command: str) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def snakemake(self, *arguments: str, check: bool = True) -> dict[str, int]:
        """Run Snakemake; the jobs that it planned, by rule (without all), and {} for nothing to be done."""
        done = self.run("snakemake", *arguments, "--cores", "2", check=check)
        return planned(done.stdout + done.stderr)

    def params(self, **changes: object) -> None:
        path = self.folder / "params.yaml"
        raw = yaml.safe_load(path.read_text())
        for place, value in changes.items():
            *way, last = place.split("__")
            target = raw
            for part in way:
                target = target.setdefault(part, {})
            target[last] = value
        path.write_text(yaml.safe_dump(raw))

    def results(self) -> dict[str, set[str]]:
        """Folders of complete results by step."""
        found = {
            "stores": self.folder.glob("data/stores/*/*/manifest.json"),
            "encoders": self.folder.glob("results/encoders/*/*/card.json"),
            "scores": self.folder.glob("results/scores/*/*/*/*/score.json"),
        }
        return {
            step: {path.parent.relative_to(self.folder).as_posix() for path in paths} for step, paths in found.items()
        }

    def accuracies(self) -> dict[str, float]:
        return {path: read_json(self.folder / path / "score.json")["accuracy"] for path in self.results()["scores"]}


def planned(text: str) -> dict[str, int]:
    if "Nothing to be done" in text:
        return {}
    table = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\ntotal", text, re.DOTALL)
    if table is None:
        raise AssertionError(f"no table of jobs in:\n{text[-3000:]}")
    rows = (line.split() for line in table.group(1).splitlines())
    return {rule: int(count) for rule, count in rows if rule not in {"all", "prepared", "pretrained", "finetuned"}}


def copy_project(folder: Path, study: dict | None = None) -> Project:
    folder.mkdir(parents=True)
    for name in TRACKED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, folder / name)
    if study is not None:
        (folder / "params.yaml").write_text(yaml.safe_dump(study))
    return Project(folder)
