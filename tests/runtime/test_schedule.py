"""The learning rate of each step, against numbers computed by hand."""

import math

import pytest

from vtabflow.runtime.schedule import Schedule


def test_schedule_of_the_published_runs():
    """As task_adaptation's: step 300 still has the old rate, 301 the new; with warm-up, step 0 has rate 0."""
    plain = Schedule(0.01, 1000, decay_at=(0.3, 0.6, 0.9))
    assert [plain.rate(step) for step in (0, 300)] == [0.01, 0.01]
    assert plain.rate(301) == pytest.approx(0.001, rel=1e-12)
    assert [round(math.log10(plain.rate(step))) for step in (600, 601, 900, 901, 999)] == [-3, -4, -4, -5, -5]
    warm = Schedule(0.01, 1000, warmup=0.08, decay_at=(0.3, 0.6, 0.9))
    assert warm.rate(0) == 0.0
    assert warm.rate(20) == pytest.approx(0.0025, rel=1e-12)
    assert warm.rate(79) < warm.rate(80) == 0.01
    # A fraction that is not exact in binary must not move the boundary by a step.
    thirds = Schedule(1.0, 60, decay_at=(0.3333333333, 0.6666666667))
    assert [thirds.rate(step) for step in (20, 40)] == [1.0, 0.1]
    assert thirds.rate(21) == 0.1 and thirds.rate(41) == pytest.approx(0.01)


def test_warmup_is_rounded_to_whole_steps():
    schedule = Schedule(1.0, 60, warmup=0.3333)  # 19.998 steps
    assert [schedule.rate(step) for step in (0, 5, 19, 20, 59)] == [0.0, 0.25, 0.95, 1.0, 1.0]


def test_exponential_decay_reaches_the_factor_at_the_end():
    """A hundredth over the whole training: a tenth in the middle; the last step is one step short of the factor."""
    schedule = Schedule(0.5, 100, decay="exponential", decay_factor=0.01)
    assert [schedule.rate(step) for step in (0, 50)] == [0.5, pytest.approx(0.05, rel=1e-12)]
    assert schedule.rate(99) == pytest.approx(0.005 * 100 ** (1 / 100), rel=1e-12)


def test_cosine_decay_begins_after_the_warmup():
    schedule = Schedule(2.0, 110, warmup=10 / 110, decay="cosine")
    assert [schedule.rate(step) for step in (0, 5, 10)] == [0.0, 1.0, 2.0]
    assert schedule.rate(60) == pytest.approx(1.0, rel=1e-12), "the middle of the 100 steps after the warm-up"
    assert schedule.rate(35) == pytest.approx(1 + math.sqrt(0.5), rel=1e-12)
    assert Schedule(2.0, 1, warmup=1.0, decay="cosine").rate(0) == 0.0
