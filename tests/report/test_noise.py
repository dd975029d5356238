"""Where the noise of training comes from, and the ranks, against values that are known without the code."""

import math
import statistics

import numpy as np
import pytest
from scipy.stats import norm

from vtabflow.report.noise import Cell, Noise, noise_of_table, quantile
from vtabflow.report.ranks import ranks

LARGE = 10**12  # test images: no noise of the test set


def cells(values, n_test=LARGE):
    """Cells from a nested list methods x tasks of accuracies, or of lists of them by seed."""
    return {
        (f"m{m}", f"t{t}"): Cell(dict(enumerate(value)) if isinstance(value, list) else {0: value}, n_test)
        for m, row in enumerate(values)
        for t, value in enumerate(row)
    }


def difference(noise, *tasks):
    """Standard error and degrees of freedom of m0 - m1 over tasks."""
    return noise.error({(m, t): sign / len(tasks) for m, sign in (("m0", 1), ("m1", -1)) for t in tasks})


def test_corrected_quantiles():
    """Printed tables: two-sided 5 %, 1 % and 0.1 %."""
    assert [quantile(comparisons=n) for n in (1, 5, 50)] == pytest.approx([1.95996, 2.57583, 3.29053], abs=1e-5)
    assert [quantile(10, n) for n in (1, 5, 50)] == pytest.approx([2.22814, 3.16927, 4.58689], abs=1e-5)


def test_noise_of_a_test_set_is_never_zero():
    """100 of 100 right counts as 101 of 102; half of 498 as 250 of 500."""
    assert Cell({0: 1.0}, 100).test_variance == pytest.approx(101 / 102 * 1 / 102 / 102)
    assert Cell({0: 0.5}, 498).test_variance == pytest.approx(0.25 / 500)
    assert Cell({0: 0.5}, 0).test_variance == math.inf
    assert Noise(cells([[0.5], [0.6]], 0)).interval({("m0", "t0"): 1.0}).low is None


def test_seeds_are_pooled_over_methods():
    """Variances 1, 1 and 4 (points squared): the pooled one is 2, for each of two methods over three seeds."""
    noise = Noise(cells([[[0.50, 0.51, 0.52]], [[0.30, 0.31, 0.32]], [[0.2, 0.22, 0.24]]]))
    assert noise.basis == "seeds" and noise.training_sd == pytest.approx(0.01 * math.sqrt(2))
    error, df = difference(noise, "t0")
    assert (error, df) == (pytest.approx(0.01 * math.sqrt(2 * 2 / 3), rel=1e-4), pytest.approx(6, rel=1e-4))


def test_methods_with_more_noise_than_the_others_have_their_own():
    """Variances 4 and 6 where the pooled one is 2: their sum and not twice two."""
    steady = [[[0.5, 0.5, 0.5]]] * 3
    noise = Noise(cells([[[0.48, 0.50, 0.52]], [[0.4, 0.4 + math.sqrt(0.0006), 0.4 + 2 * math.sqrt(0.0006)]], *steady]))
    assert difference(noise, "t0")[0] == pytest.approx(0.01 * math.sqrt((4 + 6) / 3), rel=1e-4)


def test_degrees_of_freedom_are_satterthwaites():
    """Variances 1 and 4 of two tasks with two degrees of freedom each: (1 + 4)^2 / (1 / 2 + 16 / 2)."""
    noise = Noise(cells([[[0.50, 0.51, 0.52], [0.40, 0.42, 0.44]]]))
    _, df = noise.error({("m0", "t0"): 0.5, ("m0", "t1"): 0.5})
    assert df == pytest.approx(25 / 8.5, rel=1e-4)


def test_what_a_seed_has_in_common_for_all_tasks_does_not_average_out():
    """From-Scratch starts from one set of weights for all tasks of a seed: four tasks have the variance of one."""
    common, apart = [[0.50, 0.51, 0.52]] * 4, [[0.5, 0.51, 0.52], [0.52, 0.5, 0.51], [0.51, 0.52, 0.5], [0.5, 0.5, 0.5]]
    noise, tasks = Noise(cells([common, apart])), ["t0", "t1", "t2", "t3"]
    assert noise.error({("m0", task): 0.25 for task in tasks})[0] == pytest.approx(0.01 * math.sqrt(1 / 3), rel=1e-4)
    # Of the other method the four cells alone: variances 1, 1, 1 and 0, and the means of its seeds are equal.
    pooled = (1 + 1 + 1 + 0.5) / 3 / 16
    assert noise.error({("m1", task): 0.25 for task in tasks})[0] == pytest.approx(0.01 * math.sqrt(pooled), rel=1e-4)


@pytest.mark.parametrize("shape", [(18, 19), (18, 6), (6, 19)])
def test_noise_of_a_table_whatever_its_interaction(shape):
    """Main effects of any size, and interaction ten times the noise in a component, change nothing."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(100):
        effects = random.normal(0.5, 0.2, shape[0])[:, None] + random.normal(0, 0.2, shape[1])
        component = np.outer(random.choice([-0.3, 0.3], shape[0]), random.choice([-1, 1], shape[1]))
        noise = random.normal(0, 0.03, shape)
        found.append(
            (math.sqrt(noise_of_table(effects + noise)), math.sqrt(noise_of_table(effects + noise + component)))
        )
    alone, with_component = (statistics.mean(column) for column in zip(*found, strict=True))
    assert alone == pytest.approx(0.03, rel=0.05)
    # One of five components is then not noise: the median moves up one half place. Of 17 it hardly moves.
    assert with_component == pytest.approx(0.03, rel=0.06 if min(shape) > 6 else 0.4) and with_component > alone


def test_one_seed_of_a_large_table_has_the_noise_of_the_table():
    random = np.random.default_rng(0)
    table = cells((0.5 + random.normal(0, 0.04, (18, 19))).tolist(), 400)
    noise = Noise(table)
    total = noise_of_table(np.array([[table[f"m{m}", f"t{t}"].mean for t in range(19)] for m in range(18)]))
    test = statistics.mean(cell.test_variance for cell in table.values())
    assert noise.basis == "table" and noise.training == pytest.approx(total - test, abs=1e-7)
    assert noise.df == 17 * 18 / 4
    error, df = difference(noise, "t0", "t1")
    of_tests = sum(table[m, t].test_variance for m in ("m0", "m1") for t in ("t0", "t1")) / 4
    assert error == pytest.approx(math.sqrt(noise.training + of_tests))
    assert df == pytest.approx(17 * 18 / 4 * (error**2 / noise.training) ** 2)
    assert noise.error({("m0", "t0"): 1.0}, test=False)[0] == pytest.approx(noise.training_sd)


@pytest.mark.parametrize("shape", [(18, 5), (5, 19), (1, 1)])
def test_a_small_table_has_the_default_noise(shape):
    noise = Noise(cells(np.random.default_rng(0).uniform(0.2, 0.8, shape).tolist()))
    assert (noise.basis, noise.training_sd, noise.df) == ("default", 0.02, math.inf)


def test_a_quiet_table_has_the_default_noise_and_gaps_are_left_out():
    random = np.random.default_rng(0)
    assert Noise(cells((0.5 + random.normal(0, 0.01, (18, 19))).tolist())).basis == "default"
    wild = cells(random.uniform(0.2, 0.8, (7, 6)).tolist())
    whole = Noise({pair: cell for pair, cell in wild.items() if pair[0] != "m6"})
    assert whole.basis == "table"
    with_gap = Noise({pair: cell for pair, cell in wild.items() if pair != ("m6", "t0")})
    assert (with_gap.training, with_gap.df) == (whole.training, whole.df)
    five = Noise({pair: cell for pair, cell in wild.items() if pair not in {("m5", "t1"), ("m6", "t0")}})
    assert five.basis == "default"


@pytest.mark.parametrize(("sure", "second"), [(0.96, 2), (0.99, 1)])
def test_the_ends_of_a_rank(sure, second):
    """Two methods on one task: the first is really ahead with a probability that their normal noise gives."""
    gap = norm.ppf(sure) * 0.02 * math.sqrt(2)
    table = cells([[0.5 + gap], [0.5]])
    found = ranks(table, Noise(table), ["m0", "m1"], ["t0"])
    assert (found["m0"].rank, found["m0"].low, found["m0"].high) == (1, 1, second)
    assert (found["m1"].rank, found["m1"].low, found["m1"].high, found["m1"].tied) == (2, 3 - second, 2, False)


def test_ranks_are_over_choices_of_tasks():
    """No noise to speak of, but the first is ahead on three of five tasks only: drawn tasks may say otherwise."""
    table = cells([[[0.9, 0.9], [0.9, 0.9], [0.9, 0.9], [0.1, 0.1], [0.1, 0.1]], [[0.5, 0.5]] * 5])
    found = ranks(table, Noise(table), ["m0", "m1"], [f"t{t}" for t in range(5)])
    assert (found["m0"].rank, found["m0"].low, found["m0"].high) == (1, 1, 2)
    one = {pair: cell for pair, cell in table.items() if pair[1] == "t0"}
    assert ranks(one, Noise(one), ["m0", "m1"], ["t0"])["m0"].high == 1


def test_equal_means_have_one_rank():
    table = cells([[0.3, 0.5], [0.6, 0.6], [0.5, 0.3], [0.1, 0.1]])
    found = ranks(table, Noise(table), ["m1", "m0", "m2", "m3"], ["t0", "t1"])
    assert [(rank.rank, rank.tied) for rank in found.values()] == [(1, False), (2, True), (2, True), (4, False)]
    assert found == ranks(table, Noise(table), ["m1", "m0", "m2", "m3"], ["t0", "t1"])
    unknown = cells([[0.3], [0.4]], 0)
    assert ranks(unknown, Noise(unknown), ["m1", "m0"], ["t0"])["m1"].low is None
    assert ranks({}, Noise({}), [], ["t0"]) == {}
