"""What a reader must know before the answer: what the page lacks, and what its numbers do not say."""

from pathlib import Path

from markupsafe import Markup

from vtabflow.contracts.protocol import VTAB_TASKS
from vtabflow.contracts.results import EncoderCard
from vtabflow.contracts.specs import PageSpec
from vtabflow.contracts.typed_json import from_json
from vtabflow.report.answer import comma_list
from vtabflow.report.stats import Results
from vtabflow.runtime.files import read_json


def left_out(spec: PageSpec) -> list[Markup]:
    """What a reader must know before comparing these means with others: tasks and methods that are not among them."""
    out, sentences = spec.left_out, []
    vtab = out.vtab if len(out.vtab) < VTAB_TASKS else ()
    if vtab:
        text = Markup(
            "Of VTAB’s {} tasks this study has {}, without {}: "
            "its means cannot be compared with means over all of VTAB."
        )
        sentences.append(text.format(VTAB_TASKS, VTAB_TASKS - len(vtab), comma_list(vtab)))
    if others := [task for task in out.tasks if task not in vtab and task not in out.reasons]:
        sentences.append(Markup("Without {}: the images are missing.").format(comma_list(others)))
    sentences += [Markup("Without {}: {}.").format(name, reason.rstrip(".")) for name, reason in out.reasons.items()]
    if out.cut:
        sentences.append(
            Markup(
                "VTAB’s datasets and ImageNet were used as found, whatever their numbers of images "
                "(<code>prepare.tfds.counts: any</code>): they may be subsets."
            )
        )
    if methods := [name for name in out.methods if name not in out.reasons]:
        sentences.append(Markup("Without {}: the upstream images are missing.").format(comma_list(methods)))
    return sentences


def has_pretrained(spec: PageSpec) -> bool:
    """Whether any method of the study is pre-trained."""
    return any(method.family != "from-scratch" for method in spec.methods)


def upstream_is_standin(spec: PageSpec) -> bool:
    """Whether encoders pre-trained on generated images are evaluated on images that are not generated."""
    real_tasks = any(task.source != "procedural" for task in spec.tasks)
    return spec.upstream.source == "procedural" and real_tasks and has_pretrained(spec)


def same_images(results: Results) -> Markup | None:
    """A note on tasks so small that both budgets take all their images; None without such tasks."""
    small, full = (results.n_images.get(budget, {}) for budget in ("1k", "full"))
    same = [task for task in results.tasks["all"] if task in small and small[task] == full.get(task)]
    if not same:
        return None
    every = len(same) == len(results.tasks["all"])
    return Markup("Budgets 1k and full have the same images {}; differences between them are chance.{}").format(
        "here" if every else Markup("of {}").format(comma_list([results.task_display[task] for task in same])),
        Markup(" <code>budgets: [full]</code> does the work once.") if every else "",
    )


def stopped(results: Results) -> list[str]:
    """Methods whose pre-training diverged and was stopped, with the reason that their cards give."""
    reasons = {}
    for cell in results.cells:
        path = Path(cell.encoder, "card.json")
        if cell.encoder not in reasons and path.exists():
            card = from_json(EncoderCard, read_json(path), str(path))
            stopped = card.status == "stopped"
            reasons[cell.encoder] = f"{results.display[cell.method]}: {card.reason}" if stopped else ""
    return [text for text in reasons.values() if text]
