"""The study's answer in plain language, computed from the cells: what is best, what pre-training gains, and what cannot be said yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vtabflow.report.stats import BASELINE, Gain, Results, mean_of

BUDGET_1K = (800, 200)  # training and validation images of a task that has as many


@dataclass(frozen=True)
class Said:
    """What is said about one budget: the main sentences, and the further ones, each HTML with every name escaped."""

    budget: str
    main: Markup
    further: list[Markup]


def heading(results: Results, budget: str) -> str:
    """What a budget is, with as many labelled examples as its cells had."""
    words = {"1k": f"With {examples(results)} labelled examples a task", "full": "With the full training sets"}
    return words.get(budget, f"Budget {budget}")


def examples(results: Results) -> str:
    """How many labelled examples a task has at budget 1k: `1,000`, or `192 to 1,000` where tasks have fewer images."""
    images = results.images.get("1k", {})
    return span([sum(images.get(task, BUDGET_1K)) for task in results.tasks["all"]])


def answer(results: Results) -> list[Said]:
    """The answer at each budget."""
    return [_said(results, budget) for budget in results.budgets]


def short(results: Results) -> Markup | None:
    """One line over all budgets: does pre-training pay? None where From-Scratch cannot be compared at any budget."""
    parts = []
    for budget in results.budgets:
        gains = _gains(results, budget)
        best = next((method for method in results.ranked(budget) if method in gains), None)
        if best is None:
            continue
        gain = gains[best]
        verdict = (
            "pre-training pays"
            if _better(gain)
            else "pre-training costs accuracy"
            if _worse(gain)
            else "no gain from pre-training can be shown"
        )
        name = results.display[best]
        parts.append(
            Markup("{} {} (best: {}, {} points against {})").format(
                heading(results, budget).lower(), verdict, name, points(gain.gain), results.display[BASELINE]
            )
        )
    return Markup("In short: {}.").format(Markup("; ").join(parts)) if parts else None


def _said(results: Results, budget: str) -> Said:
    ranked = results.ranked(budget)
    begun = [method for method in results.methods if results.mean(method, budget).n_tasks]
    if not begun:
        return Said(budget, Markup("No cell has been finished yet, so nothing can be said."), [])
    if not ranked:
        return Said(budget, _so_far(results, budget, begun), [])
    main, further = [_best(results, budget, ranked)], []
    gains = _gains(results, budget)
    if BASELINE not in results.methods:
        main.append(Markup("From-Scratch is not part of this study, so it cannot say whether pre-training pays."))
    elif not results.mean(BASELINE, budget).n_tasks:
        main.append(
            Markup("{} has no finished cell at this budget, so the gain from pre-training cannot be said.").format(
                results.display[BASELINE]
            )
        )
    elif gains:
        best = next((method for method in ranked if method in gains), max(gains, key=lambda method: gains[method].gain))
        main.append(Markup("{} is {}.").format(_name(results, best), _gain(results, gains[best])))
        main += _groups(results, budget, best)
        further += _verdict(results, gains)
    further += _unranked(results, budget, ranked[0])
    return Said(budget, Markup(" ").join(main), further)


def _gains(results: Results, budget: str) -> dict[str, Gain]:
    """Gain over From-Scratch of every pre-trained method that shares a finished task with it."""
    trained = [method for method in results.methods if results.family[method] != "from-scratch"]
    if BASELINE not in results.methods:
        return {}
    return {method: gain for method in trained if (gain := results.gain(method, BASELINE, budget))}


def _best(results: Results, budget: str, ranked: list[str]) -> Markup:
    best = ranked[0]
    total = len(results.tasks["all"])
    percent = _percent(results, best, budget)
    if len(ranked) == 1:
        every = "the one task" if total == 1 else f"all {total} tasks"
        return Markup("Only {} has finished {}, with {} mean test accuracy: there is no ranking yet.").format(
            _name(results, best), every, percent
        )
    text = Markup("{} has the highest mean test accuracy, {} over {}").format(
        _name(results, best), percent, count(total, "task")
    )
    close = [method for method in ranked[1:] if not _better(results.gain(best, method, budget))]
    if not close:
        return text + Markup(", clearly ahead of the next, {} ({}).").format(
            _name(results, ranked[1]), _percent(results, ranked[1], budget)
        )
    listed = listing(
        [Markup("{} ({})").format(_name(results, method), _percent(results, method, budget)) for method in close[:4]]
    )
    more = f", nor from {len(close) - 4} more" if len(close) > 4 else ""
    reason = (
        "the difference lies within the spread of the seeds"
        if len(results.seeds) > 1
        else "with one seed and test sets of this size, the difference may be chance"
    )
    return text + Markup(", but cannot be told apart from {}{}: {}.").format(listed, more, reason)


def _verdict(results: Results, gains: dict[str, Gain]) -> list[Markup]:
    """How many methods are better and worse than From-Scratch, and which do worse."""
    scratch = results.display[BASELINE]
    better = [method for method, gain in gains.items() if _better(gain)]
    worse = sorted((method for method, gain in gains.items() if _worse(gain)), key=lambda method: gains[method].gain)
    level = len(gains) - len(better) - len(worse)
    text = Markup("Of {}, {} clearly better than {} and {} clearly worse").format(
        count(len(gains), "pre-trained method"), _are(len(better)), scratch, _are(len(worse))
    )
    if level:
        text += Markup("; {} cannot be told apart from it").format(level)
    said = [text + Markup(".")]
    if worse:
        names = []
        for method in worse:
            gain = gains[method]
            where = "" if gain.n_tasks == len(results.tasks["all"]) else f" over {count(gain.n_tasks, 'task')}"
            names.append(Markup("{} ({} points{})").format(results.display[method], points(gain.gain), where))
        said.append(Markup("Worse than from scratch: {}.").format(listing(names)))
    return said


def _groups(results: Results, budget: str, best: str) -> list[Markup]:
    by_group = {group: gain for group in results.groups if (gain := results.gain(best, BASELINE, budget, group))}
    if len(by_group) < 2:
        return []
    order = sorted(by_group, key=lambda group: -by_group[group].gain)
    most, least = order[0], order[-1]
    partial = [group for group in (most, least) if by_group[group].n_tasks < len(results.tasks[group])]
    note = Markup(" (over the tasks of {} that both have)").format(listing(partial)) if partial else Markup("")
    return [
        Markup(
            "For {} the gain is largest on the {} tasks ({} points) and smallest on the {} tasks ({} points){}."
        ).format(results.display[best], most, points(by_group[most].gain), least, points(by_group[least].gain), note)
    ]


def _unranked(results: Results, budget: str, best: str) -> list[Markup]:
    total = len(results.tasks["all"])
    parts, none = [], []
    for method in results.ranking(budget):
        mean = results.mean(method, budget)
        if mean.complete:
            continue
        if not mean.n_tasks:
            none.append(Markup("{}").format(results.display[method]))
            continue
        gain = results.gain(method, best, budget)
        where = (
            "none in common"
            if gain is None
            else f"over the {gain.n_tasks} in common {_versus(gain.gain)} {results.display[best]}"
        )
        parts.append(Markup("{} ({} of {} tasks; {})").format(results.display[method], mean.n_tasks, total, where))
    said = []
    if parts:
        said.append(Markup("Not ranked, for lack of finished tasks: {}.").format(listing(parts)))
    if none:
        said.append(Markup("Without any finished task: {}.").format(listing(none)))
    return said


def _so_far(results: Results, budget: str, begun: list[str]) -> Markup:
    """No method has all tasks: a comparison over the tasks that all methods which have begun share, if there are any."""
    total = len(results.tasks["all"])
    shared = results.common(begun, budget)
    if len(begun) < 2 or not shared:
        most = max(results.mean(method, budget).n_tasks for method in begun)
        have = f"{count(len(begun), 'method')} {'has' if len(begun) == 1 else 'have'}"
        text = Markup(
            "Not finished. {} begun, none with more than {} of {} tasks, and no task is shared by all of them: no comparison yet."
        )
        return text.format(have, most, total)
    means = {
        method: mean_of(mean_of(results.seeds_of(method, budget, task).values()) for task in shared) for method in begun
    }
    order = sorted(begun, key=lambda method: -means[method])
    text = Markup(
        "Not finished. Over the {} of {} tasks that all {} methods with results share, {} leads so far with {:.1f} %"
    ).format(len(shared), total, len(begun), _name(results, order[0]), 100 * means[order[0]])
    text += Markup(", before {} with {:.1f} %").format(results.display[order[1]], 100 * means[order[1]])
    if BASELINE in means and BASELINE not in order[:2]:
        text += Markup("; {} has {:.1f} %").format(results.display[BASELINE], 100 * means[BASELINE])
    return text + Markup(". This can change.")


def _better(gain: Gain | None) -> bool:
    return gain is not None and gain.clear and gain.gain > 0


def _worse(gain: Gain | None) -> bool:
    return gain is not None and gain.clear and gain.gain < 0


def _gain(results: Results, gain: Gain) -> Markup:
    text = Markup("{:.1f} points {} {}").format(
        abs(100 * gain.gain), "above" if gain.gain >= 0 else "below", results.display[BASELINE]
    )
    if gain.n_tasks < len(results.tasks["all"]):
        text += Markup(" over the {} tasks that both have").format(gain.n_tasks)
    if gain.low is None or gain.high is None:
        return text
    basis = f"over {len(results.seeds)} seeds" if gain.basis == "seeds" else "from the size of the test sets; one seed"
    return text + Markup(" (95 % interval {} to {}, {})").format(points(gain.low), points(gain.high), basis)


def _versus(gain: float) -> str:
    return "level with" if abs(gain) < 0.0005 else f"{abs(100 * gain):.1f} points {'above' if gain > 0 else 'below'}"


def points(gain: float) -> str:
    """A signed difference in percentage points, with a real minus."""
    text = f"{100 * gain:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def span(numbers: list[int]) -> str:
    """The lowest and the highest of the numbers: `144 to 800`, or one number where they are equal."""
    if not numbers:
        return "0"
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def listing(parts: Sequence[Any]) -> Markup:
    """`a, b and c`, each part escaped unless it is Markup."""
    escaped = [Markup("{}").format(part) for part in parts]
    return escaped[0] if len(escaped) == 1 else Markup(", ").join(escaped[:-1]) + Markup(" and ") + escaped[-1]


def _are(number: int) -> str:
    return "none is" if number == 0 else f"{number} {'is' if number == 1 else 'are'}"


def _name(results: Results, method: str) -> Markup:
    return Markup("<b>{}</b>").format(results.display[method])


def _percent(results: Results, method: str, budget: str) -> str:
    return f"{100 * (results.mean(method, budget).mean or 0):.1f} %"
