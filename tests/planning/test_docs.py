"""The documents agree with each other and with the code: links, anchors, pages of methods, cited files."""

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from vtabflow.planning import catalogue, tasks
from vtabflow.prepare.tfds.datasets import datasets
from vtabflow.prepare.tfds.splits import expressions, parts

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
MARKDOWN = sorted([*DOCS.rglob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))])
LINK = re.compile(r"\]\((?!https?://)([^)\s#]*)(?:#([^)\s]+))?\)")
CITED = re.compile(r"\b(docs/[\w/-]+\.md)(?:#([\w-]+))?")


def prose(path: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```$", "", path.read_text(encoding="utf-8"))


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.+?)\s*$", prose(path))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def missing(page: Path, target: Path, anchor: str | None) -> str | None:
    """What is wrong with a link on `page` to a file and an anchor of it, or None."""
    if not target.exists():
        return f"{page.relative_to(ROOT)}: {target} does not exist"
    if anchor and target.suffix == ".md" and anchor not in anchors(target):
        return f"{page.relative_to(ROOT)}: {target.name} has no heading for #{anchor}"
    return None


def tracked() -> list[Path]:
    """The text files of the repository, those that are new included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    paths = [ROOT / name for name in names if not name.endswith((".png", ".lock", ".json", ".csv"))]
    return [path for path in paths if path.is_file() and path != Path(__file__).resolve()]


def test_anchors_are_those_of_github(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# All 18 methods\n```\n# no heading\n```\n## What: `x`, and y\n")
    assert anchors(page) == {"all-18-methods", "what-x-and-y"}


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    wrong = []
    for path, anchor in LINK.findall(prose(page)):
        target = (page.parent / path).resolve() if path else page
        wrong.append(missing(page, target, anchor))
    assert [text for text in wrong if text] == []


def test_a_dead_link_is_found(tmp_path):
    page, root = DOCS / "protocol.md", ROOT
    assert "does not exist" in (missing(page, root / "docs/none.md", None) or "")
    assert "no heading" in (missing(page, page, "none") or "")
    assert LINK.findall("[a](b.md#c) [d](https://e.f) [g](#h)") == [("b.md", "c"), ("", "h")]


def values(cell: str) -> set[object]:
    """The numbers and truth values in a cell of a table."""
    found: set[object] = {word == "true" for word in re.findall(r"\b(true|false)\b", cell)}
    return found | {float(number) for number in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?(?![\w.%])", cell)}


@pytest.mark.parametrize("method", sorted(catalogue.methods()))
def test_every_method_has_its_page(method):
    """Named by its module; it, or a page that it links to, has the default of every setting of the method's own."""
    info = catalogue.methods()[method]
    page = DOCS / "methods" / f"{info.module.rpartition('.')[2].replace('_', '-')}.md"
    assert page.is_file(), f"{page.relative_to(ROOT)} is missing: write the page of {method}"
    text = prose(page)
    assert f"`{method}`" in text, f"{page.name} does not name {method}"
    linked = {page.parent / path for path, _ in LINK.findall(text) if re.fullmatch(r"[a-z-]+\.md", path)}
    defaults: dict[str, str] = {}
    for place in (*sorted(linked - {page}), page):
        defaults |= re.findall(r"(?m)^\| `(\w+)` \| ([^|]*) \|", prose(place))
    wrong = [name for name, value in info.settings.items() if value not in values(defaults.get(name, ""))]
    assert wrong == [], f"{page.name} does not give the defaults of these settings of {method}"


def test_the_table_of_methods_is_whole():
    rows = re.findall(r"(?m)^\| `([\w-]+)`[^|]*\| ([\w-]+) \| `([\w-]+)` \|", prose(DOCS / "methods/README.md"))
    table = {method: (family, network) for method, family, network in rows}
    assert table == {name: (info.family, info.network("resnet50v2")) for name, info in catalogue.methods().items()}


def row_of(section: str, task: str) -> str:
    """The row of a task in a table of docs/protocol.md."""
    text = prose(DOCS / "protocol.md").split(f"\n## {section}\n")[1].split("\n## ")[0]
    cells = {row: re.split(r", | \(", row.split("|")[1].strip()) for row in text.splitlines() if row.startswith("|")}
    rows = [row for row, names in cells.items() if task in names]
    assert len(rows) == 1, f"{section}: {len(rows)} rows of {task}"
    return rows[0]


@pytest.mark.parametrize("task", tasks.vtab().values(), ids=lambda task: task.id)
def test_the_tables_of_tasks_are_those_of_the_code(task):
    dataset = datasets()[task.dataset]
    row = row_of("Data", task.display)
    builder = f"{dataset.builder}/{dataset.config}" if dataset.config else dataset.builder
    assert f"| {task.group} | `{builder}` {dataset.version} |" in row
    assert str(task.classes) in re.findall(r"\d+", row.split("|")[4])
    assert bool(dataset.manual_downloads) == ("manual download" in row)
    assert dataset.split is not None
    cut, split_row = expressions(dataset.split, dataset.counts), row_of("Splits", task.display)
    assert f"| `{cut['train']}`; `{cut['val']}`; `{cut['test']}` |" in split_row
    counts = [last - first for _, first, last in parts(dataset.split, dataset.counts).values()]
    assert f"| {' / '.join(f'{count:,}' for count in counts)} |" in split_row


def test_files_cite_only_pages_that_exist():
    wrong = []
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        for name, anchor in CITED.findall(text):
            wrong.append(missing(path, ROOT / name, anchor))
    assert [text for text in wrong if text] == []


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_the_project_that_a_page_names_exist(page):
    """`finetune/loop.py` is in src/vtabflow, `tests/...` in the root; a name with * or <> stands for several files."""
    folders = {path.name for path in [*ROOT.iterdir(), *(ROOT / "src/vtabflow").iterdir()] if path.is_dir()}
    named = re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|yaml|smk|json|toml))\b", prose(page))
    ours = [name for name in named if name.split("/")[0] in folders - {"data", "results", "scratch"}]
    assert [name for name in ours if not any((base / name).is_file() for base in (ROOT, ROOT / "src/vtabflow"))] == []


SRC = ROOT / "src/vtabflow"
PACKAGES = sorted(path.parent.name for path in SRC.glob("*/__init__.py"))
MAY_IMPORT = {
    package: set(re.findall(r"[a-z]+", allowed))
    for package, allowed in re.findall(r"(?m)^\| `(\w+)` \|[^|\n]*\|([^|\n]*)\|$", prose(DOCS / "code.md"))
}


def imported(path: Path) -> set[str]:
    """The modules that a file imports when it is imported itself."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_the_table_of_packages_is_whole():
    assert sorted(MAY_IMPORT) == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_what_the_map_allows(package):
    allowed = {package, "errors", "__version__", *MAY_IMPORT[package]}
    wrong = []
    for path in sorted((SRC / package).rglob("*.py")):
        ours = [name for name in imported(path) if name.split(".")[0] == "vtabflow"]
        wrong += [f"{path.relative_to(SRC)}: {name}" for name in sorted(ours) if name.split(".")[1] not in allowed]
    assert wrong == []


@pytest.mark.parametrize("package", ["contracts", "planning"])
def test_the_planner_imports_nothing_heavy(package):
    heavy = {"torch", "torchvision", "timm", "lightly", "pandas", "altair", "scipy", "tensorflow", "snakemake", "dvc"}
    if package == "contracts":
        heavy |= {"numpy", "pydantic"}
    for path in sorted((SRC / package).rglob("*.py")):
        assert {name.split(".")[0] for name in imported(path)} & heavy == set(), path.relative_to(SRC)


@pytest.mark.parametrize("name", ["methods.md", "protocol.md", "peers.md"])
def test_notes_that_are_not_in_the_repository_are_not_cited(name):
    """`docs/protocol.md`, or a link from one page of docs to another, is meant; a bare name is the old notes."""
    bare = re.compile(rf"(?<![\w/(-]){re.escape(name)}")
    found = []
    for path in tracked():
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".md":
            text = re.sub(r"\[[^\]]*\]\([^)]*\)", "", text)
        found += [f"{path.relative_to(ROOT)}: {line.strip()}" for line in text.splitlines() if bare.search(line)]
    assert found == []
