"""What the page says about simulated studies whose truth is known: 18 methods on tasks with VTAB's test sizes.

Simulated as the page's own code sees a study: cells, Results, summaries and headline. Every task has an accuracy from
0.25 to 0.95, every cell normal noise of training, and every test set binomial noise.
"""

import re
from itertools import product

import numpy as np
import pytest
from report_fakes import page_spec
from scipy.stats import binom

from vtabflow.contracts.specs import PageMethod, PageTask
from vtabflow.report.answer import headline, summaries
from vtabflow.report.cells import CellResult
from vtabflow.report.stats import Results

GROUPS = ["natural"] * 7 + ["specialized"] * 4 + ["structured"] * 8
NATURAL, SPECIALIZED = [6084, 10000, 1880, 6149, 3669, 21750, 26032], [32768, 5400, 6300, 42670]
STRUCTURED = [15000, 15000, 22735, 711, 73728, 73728, 12150, 12150]
TEST_IMAGES = np.array([*NATURAL, *SPECIALIZED, *STRUCTURED])
METHODS = [
    PageMethod("from-scratch", "From-Scratch", "from-scratch", "resnet-small"),
    *(PageMethod(f"m{i}", f"M{i}", "supervised", "resnet-small") for i in range(17)),
]
TASKS = [PageTask(f"t{i}", f"T{i}", group, "tfds", f"t{i}", 10) for i, group in enumerate(GROUPS)]
# Words of a difference that is said to be one; a study without any never has to use them.
CLAIMS = re.compile(r"\b(higher|lower|clearly|better|worse|larger|ahead|pays)\b", re.IGNORECASE)


def studies(number, noise, seeds, gap):
    """Results of simulated studies; `gap` is by how much the first pre-trained method is really better than all."""
    spec = page_spec(methods=METHODS, tasks=TASKS, budgets=("1k",), seeds=seeds)
    fixed = [
        {
            "study": spec.study, "method": c.method, "display": c.method, "family": "supervised", "task": c.task,
            "group": "natural", "source": "tfds", "budget": c.budget, "seed": c.seed, "evaluation": "finetune",
            "key": c.key, "folder": c.folder, "encoder": c.encoder, "status": "ok",
            "n_test": int(TEST_IMAGES[int(c.task[1:])]),
        }
        for c in spec.cells
    ]  # fmt: skip
    random, shape = np.random.default_rng(0), (len(METHODS), len(TASKS), len(seeds))
    for _ in range(number):
        true = random.uniform(0.25, 0.95, len(TASKS))[:, None] + noise * random.standard_normal(shape)
        true[1] += gap
        right = random.binomial(TEST_IMAGES[:, None], true.clip(0, 1)) / TEST_IMAGES[:, None]
        cells = [
            CellResult(**known, accuracy=value) for known, value in zip(fixed, right.ravel().tolist(), strict=True)
        ]
        yield Results(spec, cells)


def said(results):
    """All that the page says about the study."""
    (summary,) = summaries(results)
    return " ".join([str(headline(results)), str(summary.main), *map(str, summary.further)])


@pytest.mark.parametrize(("noise", "seeds"), [*product((0.01, 0.02), ((0,), (0, 1, 2))), (0.03, (0,))])
def test_of_equal_methods_nothing_is_said(noise, seeds):
    """At most 5 % of studies, plus what 200 repeats allow: more than 15 would have a probability below 5 %."""
    claims = [text for results in studies(200, noise, seeds, 0) if CLAIMS.search(text := said(results))]
    assert binom.sf(15, 200, 0.05) < 0.05 and len(claims) <= 15, claims[:3]


@pytest.mark.parametrize(("noise", "seeds"), product((0.01, 0.02), ((0,), (0, 1, 2))))
def test_three_points_are_found(noise, seeds):
    """In 80 % of studies at least the pre-trained method that is really better is said to be, in the headline."""
    words = "higher than" if len(seeds) == 1 else "clearly better than"
    verdict = f"the pre-trained method with the highest mean, M0, is {words} From-Scratch"
    found = [verdict in headline(results) for results in studies(60, noise, seeds, 0.03)]
    assert sum(found) >= 0.8 * len(found)


def test_of_equal_methods_on_one_task_nothing_is_said():
    """One task and one seed, the practitioner's usual case: here the default noise is the true one."""
    spec = page_spec(methods=METHODS, tasks=TASKS[:1], budgets=("1k",), seeds=(0,))
    random, claims = np.random.default_rng(0), 0
    for _ in range(200):
        values = 0.6 + 0.02 * random.standard_normal(len(METHODS))
        right = random.binomial(500, values) / 500
        cells = [
            CellResult(spec.study, c.method, "", "", c.task, "", "", "1k", 0, "finetune", c.key, "", "", "ok",
                       accuracy=float(value), n_test=500)
            for c, value in zip(spec.cells, right, strict=True)
        ]  # fmt: skip
        claims += CLAIMS.search(said(Results(spec, cells))) is not None
    assert claims <= 15
