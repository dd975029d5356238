"""The page and its figures, made once for a study with gaps, and the step around them."""

import html.parser
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import altair as alt
import pytest
from report_fakes import METHODS, OWN, PHOTOGRAPHS, TASKS, page_spec, write_encoder_card, write_score, write_scores

from vtabflow.contracts.results import CellCounts
from vtabflow.contracts.specs import LeftOut, PageTask
from vtabflow.contracts.typed_json import to_json
from vtabflow.errors import UserError
from vtabflow.planning.tasks import vtab
from vtabflow.report import figures, page, step
from vtabflow.report.cells import read_cells
from vtabflow.report.images import read_images
from vtabflow.report.stats import Results
from vtabflow.report.theme import Figure, standin_note
from vtabflow.runtime.files import read_json

EVIL = "</script><script>alert('x')</script><img src=x onerror=\"alert(1)\">"


def accuracy(cell):
    return (
        None
        if (cell.method, cell.task) == ("vae", "dmlab-standin")
        else {"from-scratch": 0.4, "sup-100": 0.7}.get(cell.method, 0.55)
    )


NO_GAPS = CellCounts(ok=0, failed=0, missing=0)


def render(spec, results):
    """The page of results without figures and gaps."""
    return page.render(spec, results, read_images(spec, results.task_display), [], NO_GAPS)


class Reader(html.parser.HTMLParser):
    """Collects elements, addresses, script texts and visible text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.scripts, self.seen, self.attributes = [], [], [], [], set()
        self.inside = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.inside = tag if tag in ("script", "style") else None
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "srcset", "action", "poster", "data")
        ]

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        (self.scripts if self.inside == "script" else self.seen).append(data)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(spec, project folder) of a study with a failed task, a missing method and a name that attacks the page."""
    root = tmp_path_factory.mktemp("study")
    methods = [*METHODS[:3], replace(METHODS[3], display=EVIL)]
    spec = page_spec(methods=methods, seeds=(0,))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_scores(spec, accuracy, skip=lambda c: c.method == "rotation" and c.budget == "full")
        step.run(spec)
        step.publish(spec)
    return spec, root


def figure_names(made):
    """The figures of the page, as its card lists them."""
    spec, root = made
    return read_json(root / spec.folder / "card.json")["figures"]


def text_of(made):
    spec, root = made
    return (root / spec.folder / "index.html").read_text()


def test_page_loads_nothing(made):
    text = text_of(made)
    reader = Reader(text)
    assert all(
        a.startswith(("data:image/svg+xml;base64,", "figures/", "../", "#")) or a.endswith((".csv", ".json"))
        for a in reader.addresses
    )
    assert not {"link", "iframe", "object", "embed", "base"} & set(reader.tags)
    style = "".join(re.findall(r"<style>(.*?)</style>", text, re.S))
    assert "url(" not in style and "@import" not in style


def test_evil_name_stays_text(made):
    reader = Reader(text_of(made))
    assert (
        reader.tags.count("script") == 3
        and reader.tags.count("img") == len(figure_names(made))
        and "onerror" not in reader.attributes
    )
    assert any("alert('x')" in data for data in reader.seen)
    (data,) = [script for script in reader.scripts if script.lstrip().startswith("[{")]
    assert "<" not in data and EVIL in json.dumps(json.loads(data), ensure_ascii=False).replace('\\"', '"')
    spec, root = made
    for path in (root / spec.folder / "figures").glob("*.svg"):
        assert "<script" not in path.read_text() and "<img" not in path.read_text()


def test_gaps_are_shown_and_counted(made):
    spec, root = made
    seen = " ".join(Reader(text_of(made)).seen)
    assert "2 of 32 cells failed" in re.sub(r"\s+", " ", seen) and "the loss was not finite in every trial" in seen
    assert "4 missing: no score yet" in seen and "3 of 4 tasks" in seen and "procedural stand-ins, not VTAB" in seen
    svg = (root / spec.folder / "figures/tasks-full.svg").read_text()
    assert svg.count(">failed<") == 1 and svg.count(">missing<") == 4
    assert "3 of 4 tasks" in (root / spec.folder / "figures/mean-accuracy.svg").read_text()
    assert "no finished task" in (root / spec.folder / "figures/mean-accuracy.svg").read_text()


def test_percent_in_figures_fractions_in_files(made):
    spec, root = made
    svg = (root / spec.folder / "figures/mean-accuracy.svg").read_text()
    assert "95 % intervals (one seed, noise of training assumed)" in svg
    assert ">70.0<" in svg and ">40.0<" in svg and "mean test accuracy (%)" in svg
    for name in figure_names(made):
        assert "procedural stand-ins, not VTAB" in (root / spec.folder / f"figures/{name}.svg").read_text()
    rows = (root / spec.folder / "summary.csv").read_text().splitlines()
    assert any(row.startswith("from-scratch,") and ",all,0.4," in row for row in rows)
    plots = (root / spec.folder / "plots.csv").read_text().splitlines()
    assert plots[0] == "method,1k,1k tasks,full,full tasks" and any(
        row.startswith("From-Scratch,40.0,") for row in plots
    )


def test_pngs_are_double(made):
    spec, root = made
    for path in (root / spec.folder / "figures").glob("*.png"):
        head = path.read_bytes()[:24]
        width = float(re.search(r'<svg[^>]* width="([\d.]+)"', path.with_suffix(".svg").read_text()).group(1))
        assert head[:8] == b"\x89PNG\r\n\x1a\n" and abs(int.from_bytes(head[16:20], "big") - 2 * width) <= 2
        assert width <= 1200


def test_every_link_to_a_score_leads_there(made):
    spec, root = made
    for folder in (root / spec.folder, root / "results/reports/demo"):
        links = [a for a in Reader((folder / "index.html").read_text()).addresses if a.endswith("score.json")]
        assert len(links) == 28 and all((folder / link).resolve().exists() for link in links)
        others = [
            a
            for a in Reader((folder / "index.html").read_text()).addresses
            if a.startswith("figures/") or a.endswith(".csv")
        ]
        assert len(others) == 2 * len(figure_names(made)) + 2 and all((folder / link).exists() for link in others)
    cards = [a for a in Reader(text_of(made)).addresses if a.endswith("card.json")]
    assert (root / spec.folder / cards[0]).resolve() == root / spec.cells[0].encoder / "card.json"


def test_an_encoder_that_was_stopped_is_named_with_its_reason(made, monkeypatch):
    spec, root = made
    monkeypatch.chdir(root)
    results = Results(spec, read_cells(spec))
    reason = "a loss had grown from 2 to 400 by step 900 of 1000; the weights are those of step 500"
    cards = [write_encoder_card(spec, "vae", "stopped", reason), write_encoder_card(spec, "sup-100", "ok", reason)]
    text = " ".join(Reader(render(spec, results)).seen)
    for path in cards:
        path.unlink()  # the study is shared by the tests of this file
    assert text.count("Pre-training stopped early.") == 1 and f"VAE: {reason}. Its scores are of these" in text


def test_methods_with_another_network_are_named(made, monkeypatch):
    spec, root = made
    monkeypatch.chdir(root)
    assert "another network" not in text_of(made)
    methods = tuple(replace(m, network="biggan-small") if m.id == "vae" else m for m in spec.methods)
    text = render(replace(spec, methods=methods), Results(spec, read_cells(spec)))
    assert "VAE: another network, <code>biggan-small</code>, so the difference to From-Scratch is not" in text


def test_figures_are_valid_vegalite(made, monkeypatch):
    spec, root = made
    monkeypatch.chdir(root)
    dark = replace(spec, settings=replace(spec.settings, theme="dark"))
    for figure in figures.figures(dark, Results(dark, read_cells(dark))):
        alt.Chart.from_dict(figure.vegalite, validate=True)


def test_same_inputs_same_bytes(made, monkeypatch, tmp_path):
    spec, root = made
    monkeypatch.chdir(root)
    before = {p: p.read_bytes() for p in sorted((root / spec.folder).rglob("*")) if p.is_file()}
    (root / spec.folder / "card.json").unlink()
    step.run(spec)
    assert {p: p.read_bytes() for p in sorted((root / spec.folder).rglob("*")) if p.is_file()} == before


def test_partial_then_complete(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spec = page_spec(methods=METHODS[:2], tasks=TASKS[:2], budgets=("1k",), seeds=(0,))
    folder, receipt = Path(spec.folder), Path(spec.receipt)
    with pytest.raises(UserError, match="no page"):
        step.publish(spec)
    step.run(spec)  # nothing at all has run
    assert read_json(folder / "card.json")["complete"] is False and not receipt.exists()
    step.publish(spec)
    write_scores(spec, accuracy, skip=lambda c: c.key == spec.cells[0].key)
    step.run(spec)
    card = read_json(folder / "card.json")
    assert card["cells"] == {"ok": 3, "failed": 0, "missing": 1} and not card["complete"] and not receipt.exists()
    write_score(spec, spec.cells[0], None, "no memory")
    step.run(spec)
    card = read_json(folder / "card.json")
    assert card["complete"] and card["cells"]["failed"] == 1 and card["spec"] == to_json(spec)
    assert read_json(receipt) == {"key": spec.key, "folder": spec.folder, "made": True}
    stamp = (folder / "index.html").stat().st_mtime_ns
    step.run(spec)
    assert (folder / "index.html").stat().st_mtime_ns == stamp and read_json(receipt)["made"] is False
    (Path(spec.cells[0].folder) / "score.json").unlink()
    step.run(spec)
    assert not receipt.exists()  # of the complete page that was here
    write_score(spec, spec.cells[0], 0.4)  # the failed cell was run again
    step.run(spec)
    assert read_json(folder / "card.json")["cells"] == {"ok": 4, "failed": 0, "missing": 0}
    assert "None: all 4 cells have finished" in (folder / "index.html").read_text()
    Path("results/reports/demo/figures/tasks-full.png").write_bytes(b"an old one")
    Path("results/reports/demo/.current/0123456789abcdef").write_bytes(b"")
    step.publish(spec)
    assert [path.name for path in Path("results/reports/demo/.current").iterdir()] == [spec.key]
    assert not Path("results/reports/demo/figures/tasks-full.png").exists()
    assert read_json("results/metrics/demo.json") == read_json(folder / "summary.json")
    current = Path("results/reports/demo")
    assert {p.name for p in current.iterdir() if p.is_file()} == {
        "index.html", "scores.csv", "summary.csv", "plots.csv", "skipped.csv", "summary.json", f"{spec.key}.json"
    }  # fmt: skip


def test_a_function_in_the_registry_is_a_figure_of_the_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def worst_task(results, theme, standins):
        return [Figure("worst-task", f"The worst of {len(results.tasks['all'])}", "A caption.", {"mark": "point"})]

    monkeypatch.setattr(figures, "FIGURES", [*figures.FIGURES, worst_task])
    spec = page_spec(methods=METHODS[:2], tasks=TASKS[:2], budgets=("1k",), seeds=(0,))
    write_scores(spec, accuracy)
    step.run(spec)
    step.publish(spec)
    assert read_json(Path(spec.folder) / "card.json")["figures"][-1] == "worst-task"
    current = Path("results/reports/demo")
    assert (current / "figures/worst-task.png").exists()
    assert "The worst of 2" in " ".join(Reader((current / "index.html").read_text()).seen)


def rows_of(spec, name):
    """The rows of all datasets of a figure."""
    (figure,) = (f for f in figures.figures(spec, Results(spec, read_cells(spec))) if f.name == name)
    return [row for rows in figure.vegalite["datasets"].values() for row in rows]


def test_figures_mark_what_is_over_fewer_seeds_or_tasks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = page_spec(tasks=TASKS[:2], budgets=("1k",))  # both natural
    base = {"from-scratch": 0.4, "rotation": 0.5, "vae": 0.6, "sup-100": 0.7}
    scratch = ("from-scratch", TASKS[0].id)
    fewer_seeds = ("rotation", TASKS[0].id, 2)
    write_scores(
        spec,
        lambda c: base[c.method],
        skip=lambda c: (c.method, c.task) == scratch or (c.method, c.task, c.seed) == fewer_seeds,
    )
    texts = {(row["method"], row["task"]): row["text"] for row in rows_of(spec, "tasks-1k")}
    assert texts["Rotation", TASKS[0].display] == "50.0*" and texts["Rotation", TASKS[1].display] == "50.0"
    assert texts["From-Scratch", "mean"] == "40.0†" and texts["From-Scratch", TASKS[0].display] == "missing"
    kinds = [(row["family"], row["kind"]) for row in rows_of(spec, "groups-and-families")]
    assert ("from-scratch", "partial") in kinds and ("from-scratch", "family") not in kinds
    assert ("generative", "family") in kinds
    # The dashed line is a mean over all tasks or is not drawn: a row with nothing but its mean.
    assert {"mean": 40.0} not in rows_of(spec, "mean-accuracy")
    write_scores(spec, lambda c: base[c.method])
    assert {"mean": 40.0} in rows_of(spec, "mean-accuracy")


def test_the_table_of_means_marks_highest_and_significant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jigsaw = replace(METHODS[1], id="jigsaw", display="Jigsaw")
    spec = page_spec(methods=[*METHODS, jigsaw], budgets=("1k",))
    base = {"from-scratch": 0.3, "rotation": 0.41, "vae": 0.2, "sup-100": 0.39, "jigsaw": 0.29}
    skipped = ("rotation", TASKS[0].id)
    write_scores(
        spec,
        lambda c: base[c.method] + (0.02 * c.seed if c.method in ("sup-100", "jigsaw") else 0),
        skip=lambda c: (c.method, c.task) == skipped or (c.method, c.task, c.seed) == ("vae", TASKS[1].id, 2),
    )
    text = render(spec, Results(spec, read_cells(spec)))
    table = text[text.index("<caption>Mean test accuracy") :]
    pattern = r'<tr><td class="n">(?:\d=?<small>.*?</small>)?</td><td class="w">(.*?)</td>.*?</tr>'
    rows = {row[1]: row[0] for row in re.finditer(pattern, table, re.S)}
    assert list(rows) == ["Sup-100%", "Jigsaw", "From-Scratch", "VAE", "Rotation"]
    assert '<td class="n top">41.0<' in rows["Sup-100%"]
    assert '<td class="n grey">41.0<' in rows["Rotation"]  # the same number, over fewer tasks
    assert "fewer seeds" in rows["VAE"] and "fewer seeds" not in rows["Sup-100%"]
    assert "measured between the 3 seeds" in text and "“Clearly better”" in text and "one seed" not in text
    places = {name: re.match(r'<tr><td class="n">(?:(\d=?)<small>(.*?)<)?', row).groups() for name, row in rows.items()}
    assert places["Sup-100%"][0] == "1" and places["Jigsaw"] == ("2", "2 to 3") and places["Rotation"] == (None, None)
    states = {name: re.search(r'<span class="(plus|minus|open)">', row) for name, row in rows.items()}
    assert {name: match and match[1] for name, match in states.items()} == {
        "Sup-100%": "plus",
        "From-Scratch": None,
        "Jigsaw": "open",
        "VAE": "minus",
        "Rotation": "plus",
    }


def test_equal_means_have_one_rank_in_the_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = page_spec(methods=METHODS[:3], budgets=("1k",), seeds=(0,))
    write_scores(spec, lambda c: 0.4 if c.method == "from-scratch" else 0.8)
    text = render(spec, Results(spec, read_cells(spec)))
    places = re.findall(r'<tr><td class="n">(\d=?)<small>(.*?)</small></td><td class="w">(.*?)</td>', text)
    assert places == [("1=", "1 to 2", "Rotation"), ("1=", "1 to 2", "VAE"), ("3", "3", "From-Scratch")]
    assert "cannot be measured with one seed" in text and "“Higher”" in text and "learly better" not in text
    assert "“=” marks equal means" in text and "assumed to be 2 points an accuracy" in text


def test_the_generative_method_that_learns_from_labels_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "upstream images without their labels, by learning to generate or reconstruct them"
    conditional = replace(METHODS[2], id="cond-biggan", display="Cond-BigGAN")
    for methods, ending in ((METHODS, "</td>"), ([*METHODS, conditional], "; Cond-BigGAN: with all their labels</td>")):
        spec = page_spec(methods=methods, seeds=(0,))
        assert f"{words}{ending}" in render(spec, Results(spec, read_cells(spec)))


def test_script_json_cannot_end_the_script():
    value = {"a": "</ScRiPt><!--<script>&\u2028"}
    text = page.script_json([value])
    assert not set("<>&\u2028") & set(text) and json.loads(text) == [value]
    assert "</script" not in page.library().lower() and "<!--" not in page.library()


def test_own_tasks_are_not_called_standins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = page_spec(tasks=[OWN], seeds=(0,), title="My birds", theme="dark")
    write_scores(spec, accuracy)
    step.run(spec)
    text = (Path(spec.folder) / "index.html").read_text()
    assert "stand-ins, not VTAB" not in text and "My birds" in text and 'data-theme="dark"' in text
    mixed = page_spec(tasks=[OWN, TASKS[0]])
    assert standin_note(mixed) == "1 of 2 tasks are procedural stand-ins, not VTAB"


def test_a_mean_over_some_of_vtabs_tasks_says_so(tmp_path, monkeypatch):
    """First thing on the page, and over every column of means."""
    monkeypatch.chdir(tmp_path)
    real = [task for task in vtab().values() if task.id in ("dtd", "svhn", "eurosat", "dmlab")]
    others = tuple(task.display for task in vtab().values() if task not in real)
    tasks = [PageTask(t.id, t.display, t.group, "tfds", t.dataset, t.classes) for t in real]
    spec = replace(page_spec(tasks=tasks), left_out=LeftOut(("Rotation",), ("Resisc45", "Birds"), others, cut=True))
    write_scores(spec, accuracy)
    step.run(spec)
    text = " ".join(Reader((Path(spec.folder) / "index.html").read_text()).seen)
    assert "Of VTAB’s 19 tasks this study has 4, without Caltech101, CIFAR-100" in text
    assert "Without Birds: the images are missing." in text  # Resisc45 is among VTAB's
    assert "Without Rotation: the upstream images are missing." in text
    assert "they may be subsets" in text
    assert "4 tasks" in text.split("Difference")[0]
    summary = (Path(spec.folder) / "summary.csv").read_text().splitlines()
    assert summary[0].endswith("n_tasks") and summary[1].endswith(",4")


def notes_of(spec):
    """The texts of the page's yellow boxes, from the existing scores."""
    text = render(spec, Results(spec, read_cells(spec)))
    return [
        re.sub(r"<[^>]+>|\s+", lambda m: "" if m[0][0] == "<" else " ", note)
        for note in re.findall(r'<p class="note">(.*?)</p>', text, re.S)
    ]


def test_a_tfds_task_of_ones_own_is_not_counted_as_vtabs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = replace(OWN, source="tfds")
    tasks = [PageTask(t.id, t.display, t.group, "tfds", t.dataset, t.classes) for t in vtab().values()]
    names = tuple(task.display for task in tasks)
    for chosen, left_out, expected in (
        ([*tasks, own], (), []),
        ([*tasks[:18], own], names[18:], ["Of VTAB’s 19 tasks this study has 18, without sNORB-Elev"]),
        ([own], names, []),
    ):
        spec = page_spec(tasks=chosen, budgets=("full",), seeds=(0,), upstream=PHOTOGRAPHS)
        left = replace(spec.left_out, vtab=left_out)
        notes = [note.strip() for note in notes_of(replace(spec, left_out=left)) if "VTAB" in note]
        assert len(notes) == len(expected)
        assert all(text in note for text, note in zip(expected, notes, strict=True)), notes


def test_pre_training_on_generated_images_is_noted_where_tasks_are_photographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = page_spec(tasks=[OWN], budgets=("full",))
    write_scores(spec, accuracy)
    (note,) = notes_of(spec)
    assert "pre-trained on images generated by the project" in note and "pre-training on photographs" in note
    assert "set upstream to a dataset of photographs" in note
    assert notes_of(replace(spec, upstream=PHOTOGRAPHS)) == []
    # From-Scratch alone is pre-trained on nothing, and stand-in tasks have a note of their own.
    assert notes_of(page_spec(tasks=[OWN], methods=METHODS[:1])) == []
    assert len(notes_of(page_spec())) == 1
    assert len(notes_of(page_spec(tasks=[OWN, TASKS[0]]))) == 2


def test_two_budgets_of_the_same_images_are_called_that(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = page_spec(tasks=[OWN], seeds=(0,), upstream=PHOTOGRAPHS)
    write_scores(spec, accuracy, images={"birds": (144, 48)})
    (note,) = notes_of(spec)
    assert "Budgets 1k and full have the same images here" in note and "differences between them are chance" in note
    assert "budgets: [full] does the work once" in note
    step.run(spec)
    text = (Path(spec.folder) / "index.html").read_text()
    assert "With 192 labelled examples per task" in text and "up to 1,000 labelled images" in text
    assert "1k: 192 examples per task" in (Path(spec.folder) / "figures/mean-accuracy.svg").read_text()
    assert "budget 1k (192 examples per task)" in text and "1,000 labelled examples" not in text
    # 800 training images, but more than 200 for validation: the budgets differ.
    write_scores(spec, accuracy, images={"birds": (800, 201)})
    assert notes_of(spec) == []
    # One task of two: the other still needs both budgets.
    two = page_spec(tasks=[OWN, replace(OWN, id="fish", display="Fish")], seeds=(0,), upstream=PHOTOGRAPHS)
    write_scores(two, accuracy, images={"birds": (144, 48)})
    (note,) = notes_of(two)
    assert "Budgets 1k and full have the same images of Birds" in note and "does the work once" not in note


def placed(element, x=0.0):
    """(text, horizontal place) of every text of an SVG, through the shifts of the groups around it."""
    shift = re.search(r"translate\(([-\d.]+)", element.get("transform", ""))
    x += float(shift[1]) if shift else 0.0
    if element.tag.endswith("}text"):
        yield "".join(element.itertext()), x
    for child in element:
        yield from placed(child, x)


@pytest.mark.parametrize("each", [1, 2])
def test_group_titles_of_a_heat_map_do_not_overlap(tmp_path, monkeypatch, each):
    monkeypatch.chdir(tmp_path)
    # pixels in Liberation Sans Bold at size 13, the font of the titles
    widths = {"natural": 43.3, "specialized": 69.4, "structured": 64.3, "own": 25.3}
    tasks = [
        replace(OWN, id=f"{group}-{number}", display=f"{group} {number}", group=group)
        for group in widths
        for number in range(each)
    ]
    spec = page_spec(tasks=tasks, budgets=("full",), seeds=(0,))
    (heat,) = (f for f in figures.figures(spec, Results(spec, read_cells(spec))) if f.name == "tasks-full")
    svg = ElementTree.fromstring(figures.svg(heat))
    titles = [(text, x) for text, x in placed(svg) if text in widths]
    assert [text for text, _ in titles] == list(widths)
    for (text, x), (_, following) in zip(titles, [*titles[1:], ("", float(svg.get("width")))], strict=True):
        assert x + widths[text] + 4 <= following, f"{text} reaches over what follows it"
