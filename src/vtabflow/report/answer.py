"""The study's answer in words, computed from the cells: what is best, what pre-training gains, what is open.

A difference that noise explains is called "not statistically different". Otherwise the words are "clearly better" if
the noise of training was measured, by several seeds, and only "higher" if it is estimated, with one seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from vtabflow.contracts.protocol import ROWS_1K
from vtabflow.report.ranks import EQUAL
from vtabflow.report.stats import BASELINE, Gain, Results, mean_of


@dataclass(frozen=True)
class BudgetSummary:
    """The answer at one budget: main sentences, and further ones for a list. HTML in which every name is escaped."""

    budget: str
    main: Markup
    further: list[Markup]


def budget_heading(results: Results, budget: str) -> str:
    """What a budget is, with as many labelled examples as its cells had."""
    headings = {"1k": f"With {examples(results)} labelled examples per task", "full": "With the full training sets"}
    return headings.get(budget, f"Budget {budget}")


def examples(results: Results) -> str:
    """Labelled examples of a task at budget 1k: `1,000`, or `192 to 1,000` where tasks have fewer images."""
    images, usual = results.n_images.get("1k", {}), (ROWS_1K["train"], ROWS_1K["val"])
    return number_range([sum(images.get(task, usual)) for task in results.tasks["all"]])


def summaries(results: Results) -> list[BudgetSummary]:
    """The answer at each budget."""
    return [_summary(results, budget) for budget in results.budgets]


def headline(results: Results) -> Markup | None:
    """One line: the highest pre-trained method against From-Scratch, at each budget; None without such a comparison."""
    parts = []
    for budget in results.budgets:
        gains = results.gains(budget)
        highest = _highest(results, budget, [method for method in results.ranked(budget) if method in gains])
        if not highest:
            continue
        best, several = highest[0], len(highest) > 1
        gain, words = gains[best], _words(results, budget)
        verdict = words.better if gain.better else words.worse if gain.worse else "not statistically different from"
        parts.append(
            Markup("{}, the pre-trained {} with the highest mean, {}, {} {} {} ({} points)").format(
                budget_heading(results, budget).lower(),
                "methods" if several else "method",
                _short_list([results.display[method] for method in highest]),
                "are" if several else "is",
                verdict,
                results.display[BASELINE],
                points(gain.gain),
            )
        )
    start = "In short" if measured(results) else "In short, from one seed"
    return Markup("{}: {}.").format(start, Markup("; ").join(parts)) if parts else None


def _highest(results: Results, budget: str, ranked: Sequence[str]) -> list[str]:
    """The first of ranked methods, and those with an equal mean."""
    means = {method: results.mean(method, budget).mean or 0.0 for method in ranked}
    return [method for method in ranked if means[ranked[0]] - means[method] < EQUAL]


def _short_list(names: Sequence[Any]) -> Markup:
    """`a, b, c, d and 3 more`."""
    return comma_list([*names[:4], f"{len(names) - 4} more"] if len(names) > 4 else names)


@dataclass(frozen=True)
class _Words:
    """How a difference that noise does not explain is called."""

    better: str
    worse: str


def _words(results: Results, budget: str) -> _Words:
    if results.noise(budget).basis == "seeds":
        return _Words("clearly better than", "clearly worse than")
    return _Words("higher than", "lower than")


def measured(results: Results) -> bool:
    """Whether several seeds measure the noise of training, at every budget with a finished cell."""
    noises = [noise for budget in results.budgets if (noise := results.noise(budget)).cells]
    return all(noise.basis == "seeds" for noise in noises) if noises else len(results.seeds) > 1


def basis_of_intervals(results: Results) -> str:
    """Where the noise of training in the intervals comes from, for captions."""
    if measured(results):
        return count(len(results.seeds), "seed")
    estimated = any(results.noise(budget).basis == "table" for budget in results.budgets)
    return f"one seed, noise of training {'estimated' if estimated else 'assumed'}"


def _summary(results: Results, budget: str) -> BudgetSummary:
    ranked = results.ranked(budget)
    started = [method for method in results.methods if results.mean(method, budget).n_tasks]
    if not started:
        return BudgetSummary(budget, Markup("No cell has finished yet, so there is no answer yet."), [])
    if not ranked:
        return BudgetSummary(budget, _preliminary(results, budget, started), [])
    main, further = [_best(results, budget, ranked)], []
    gains = results.gains(budget)
    if BASELINE not in results.methods:
        main.append(Markup("From-Scratch is not part of this study, so whether pre-training helps is not known."))
    elif not results.mean(BASELINE, budget).n_tasks:
        text = Markup("{} has no finished cell at this budget, so the gain from pre-training is not known.")
        main.append(text.format(results.display[BASELINE]))
    elif gains:
        best = next((method for method in ranked if method in gains), max(gains, key=lambda method: gains[method].gain))
        main.append(Markup("{} is {}.").format(_name(results, best), _describe(results, gains[best])))
        main += _groups(results, budget, best, gains[best])
        further += _verdict(results, budget, gains)
    further += _noise(results, budget)
    further += _unranked(results, budget, ranked[0])
    return BudgetSummary(budget, Markup(" ").join(main), further)


def _best(results: Results, budget: str, ranked: list[str]) -> Markup:
    best = ranked[0]
    total = len(results.tasks["all"])
    percent = _percent(results, best, budget)
    if len(ranked) == 1:
        every = "the one task" if total == 1 else f"all {total} tasks"
        text = Markup("Only {} has finished {}, with {} mean test accuracy: there is no ranking yet.")
        return text.format(_name(results, best), every, percent)
    highest = _highest(results, budget, ranked)
    text = Markup("{} {} the highest mean test accuracy, {} over {}").format(
        _short_list([_name(results, method) for method in highest]),
        "share" if len(highest) > 1 else "has",
        percent,
        count(total, "task"),
    )
    ahead, others = results.ahead_of(best, budget), ranked[len(highest) :]
    if not others:
        return text + Markup(".")
    level = [method for method in others if not ahead[method].better]
    if not level:
        return text + Markup(", {} the next, {} ({}).").format(
            _words(results, budget).better, _name(results, others[0]), _percent(results, others[0], budget)
        )
    names = [
        Markup("{} ({})").format(_name(results, method), _percent(results, method, budget)) for method in level[:4]
    ]
    more = f", nor from {len(level) - 4} more" if len(level) > 4 else ""
    return text + Markup(", but {} not statistically different from {}{}: {}, the difference may be chance.").format(
        "are" if len(highest) > 1 else "is", comma_list(names), more, _with_seeds(results, budget)
    )


def _with_seeds(results: Results, budget: str) -> str:
    measured = results.noise(budget).basis == "seeds"
    return f"with {len(results.seeds)} seeds" if measured else "with one seed"


def _verdict(results: Results, budget: str, gains: dict[str, Gain]) -> list[Markup]:
    """How many methods are better and worse than From-Scratch, and which are worse."""
    scratch, words = results.display[BASELINE], _words(results, budget)
    better = [method for method, gain in gains.items() if gain.better]
    worse = sorted((method for method, gain in gains.items() if gain.worse), key=lambda method: gains[method].gain)
    level = len(gains) - len(better) - len(worse)
    if level == len(gains):
        which = "The pre-trained method is not" if level == 1 else f"None of the {level} pre-trained methods is"
        return [Markup("{} statistically different from {}.").format(which, scratch)]
    text = Markup("Of {}, {} {} {} and {} {}").format(
        count(len(gains), "pre-trained method"),
        _are(len(better)),
        words.better,
        scratch,
        _are(len(worse)),
        words.worse.removesuffix(" than"),
    )
    if level:
        text += Markup("; {} not statistically different from it").format(_are(level))
    sentences = [text + Markup(".")]
    if worse:
        names = []
        for method in worse:
            gain = gains[method]
            where = "" if gain.n_tasks == len(results.tasks["all"]) else f" over {count(gain.n_tasks, 'task')}"
            names.append(Markup("{} ({} points{})").format(results.display[method], points(gain.gain), where))
        start = words.worse[0].upper() + words.worse[1:]
        sentences.append(Markup("{} {}: {}.").format(start, scratch, comma_list(names)))
    return sentences


def _groups(results: Results, budget: str, best: str, overall: Gain) -> list[Markup]:
    """The gain in each group of tasks; which is larger only where there is a gain, and noise does not explain it."""
    by_group = {group: gain for group in results.groups if (gain := results.gain(best, BASELINE, budget, group))}
    if len(by_group) < 2:
        return []
    order = sorted(by_group, key=lambda group: -by_group[group].gain)
    most, least = order[0], order[-1]
    partial = [group for group in order if by_group[group].n_tasks < len(results.tasks[group])]
    note = Markup(" (over the tasks of {} that both have)").format(comma_list(partial)) if partial else Markup("")
    each = [Markup("{} points on the {} tasks").format(points(by_group[group].gain), group) for group in order]
    text = Markup("By group: {}{}").format(comma_list(each), note)
    if overall.significant and results.between_groups(best, budget, most, least).significant:
        larger = "larger" if results.noise(budget).basis != "seeds" else "clearly larger"
        text += Markup("; it is {} on the {} than on the {} tasks").format(larger, most, least)
    return [text + Markup(".")]


def _noise(results: Results, budget: str) -> list[Markup]:
    """With one seed: where the noise of training in the intervals comes from."""
    noise = results.noise(budget)
    if noise.basis == "seeds":
        return []
    size = f"{100 * noise.training_sd:.1f} points (standard deviation of one accuracy)"
    if noise.basis == "table":
        text = (
            f"One seed does not measure how much a repeated training changes an accuracy. It is estimated at {size} "
            "from what methods and tasks leave unexplained in the table, and is part of every interval."
        )
    else:
        text = (
            f"One seed does not measure how much a repeated training changes an accuracy. {size[0].upper()}{size[1:]} "
            "are assumed, from other studies, and are part of every interval; more seeds would measure it."
        )
    return [Markup("{}").format(text)]


def _unranked(results: Results, budget: str, best: str) -> list[Markup]:
    total = len(results.tasks["all"])
    partial, none = [], []
    for method in results.row_order(budget):
        mean = results.mean(method, budget)
        if mean.complete:
            continue
        if not mean.n_tasks:
            none.append(results.display[method])
            continue
        gain = results.gain(method, best, budget)
        where = (
            "none in common"
            if gain is None
            else f"over the {gain.n_tasks} in common {_versus(gain.gain)} {results.display[best]}"
        )
        partial.append(Markup("{} ({} of {} tasks; {})").format(results.display[method], mean.n_tasks, total, where))
    sentences = []
    if partial:
        sentences.append(Markup("Not ranked, because tasks are missing: {}.").format(comma_list(partial)))
    if none:
        sentences.append(Markup("Without any finished task: {}.").format(comma_list(none)))
    return sentences


def _preliminary(results: Results, budget: str, started: list[str]) -> Markup:
    """While no method has all tasks: a comparison over the tasks that all started methods share, if there are any."""
    total = len(results.tasks["all"])
    shared = results.common_tasks(started, budget)
    most = max(results.mean(method, budget).n_tasks for method in started)
    if len(started) == 1:
        text = Markup("Not finished. Only {} has results, for {} of {} tasks: no comparison yet.")
        return text.format(_name(results, started[0]), most, total)
    if not shared:
        text = Markup(
            "Not finished. {} methods have results, none for more than {} of {} tasks, and no task has results of all "
            "of them: no comparison yet."
        )
        return text.format(len(started), most, total)
    means = {
        method: mean_of(mean_of(results.accuracies(method, budget, task).values()) for task in shared)
        for method in started
    }
    order = sorted(started, key=lambda method: -means[method])
    text = Markup(
        "Not finished. Over the {} of {} tasks that all {} methods with results share, {} is first so far with {:.1f} %"
    ).format(len(shared), total, len(started), _name(results, order[0]), 100 * means[order[0]])
    text += Markup(", followed by {} with {:.1f} %").format(results.display[order[1]], 100 * means[order[1]])
    if BASELINE in means and BASELINE not in order[:2]:
        text += Markup("; {} has {:.1f} %").format(results.display[BASELINE], 100 * means[BASELINE])
    return text + Markup(". This can change.")


def _describe(results: Results, gain: Gain) -> Markup:
    """`32.0 points above From-Scratch (95 % interval +31.0 to +33.0, over 3 seeds)`."""
    text = Markup("{:.1f} points {} {}").format(
        abs(100 * gain.gain), "above" if gain.gain >= 0 else "below", results.display[BASELINE]
    )
    if gain.n_tasks < len(results.tasks["all"]):
        text += Markup(" over the {} tasks that both have").format(gain.n_tasks)
    if gain.low is None or gain.high is None:
        return text
    basis = f"over {len(results.seeds)} seeds" if gain.basis == "seeds" else "one seed"
    return text + Markup(" (95 % interval {} to {}, {})").format(points(gain.low), points(gain.high), basis)


def _versus(gain: float) -> str:
    return "equal to" if abs(gain) < 0.0005 else f"{abs(100 * gain):.1f} points {'above' if gain > 0 else 'below'}"


def points(gain: float) -> str:
    """A signed difference in percentage points, with a real minus."""
    text = f"{100 * gain:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def number_range(numbers: list[int]) -> str:
    """The lowest and the highest of the numbers: `144 to 800`, or one number where they are equal."""
    if not numbers:
        return "0"
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def count(number: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def comma_list(parts: Sequence[Any]) -> Markup:
    """`a, b and c`, each part escaped unless it is Markup."""
    escaped = [Markup("{}").format(part) for part in parts]
    return escaped[0] if len(escaped) == 1 else Markup(", ").join(escaped[:-1]) + Markup(" and ") + escaped[-1]


def _are(number: int) -> str:
    return "none is" if number == 0 else f"{number} {'is' if number == 1 else 'are'}"


def _name(results: Results, method: str) -> Markup:
    return Markup("<b>{}</b>").format(results.display[method])


def _percent(results: Results, method: str, budget: str) -> str:
    return f"{100 * (results.mean(method, budget).mean or 0):.1f} %"
