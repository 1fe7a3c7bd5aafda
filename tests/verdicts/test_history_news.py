"""News of a history: new levels, accepted steps, the gate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone

import pytest

from bench.records.accepted import Accepted
from bench.verdicts.history.news import News, Period, Standing, gate, news_of, period
from bench.verdicts.outcomes import Exit
from lenet5.errors import InputError
from tests import histories, synthetic
from tests.histories import nightlies, noise, run, side, with_changes
from tests.synthetic import LOOP

NAME = f"{LOOP} of tf-nightly on a processor, 2 cores"


def levels(*heights: tuple[float, int]) -> list[float]:
    """Returns noise around stretches of given height and length."""
    wanted = [height for height, count in heights for _ in range(count)]
    return [a + b for a, b in zip(wanted, noise(len(wanted)), strict=True)]


def found(values: Sequence[float | None], *accepted: Accepted) -> list[News]:
    return news_of(histories.history(nightlies(values)), accepted, "accepted.toml")


@pytest.mark.parametrize(
    ("values", "standing", "code"),
    [
        (levels((0.0, 30)), Standing.STEADY, Exit.PASSED),
        (levels((0.0, 25), (0.03, 5)), Standing.WORSE, Exit.FAILED),
        (levels((0.0, 25), (-0.03, 5)), Standing.BETTER, Exit.PASSED),
        (levels((0.0, 15), (0.03, 10), (0.0, 5)), Standing.BETTER, Exit.PASSED),
        # Taken back in part only: still worse than before.
        (levels((0.0, 15), (0.06, 10), (0.03, 10)), Standing.WORSE, Exit.FAILED),
        # Better than at first, but a new step for the worse.
        (levels((0.0, 15), (-0.06, 10), (-0.03, 10)), Standing.WORSE, Exit.FAILED),
        (levels((0.0, 5)), Standing.SHORT, Exit.INCONCLUSIVE),
        ([*levels((0.0, 20)), None], Standing.STEADY, Exit.INCONCLUSIVE),
    ],
)
def test_the_gate_follows_the_newest_level(
    values: list[float | None], standing: Standing, code: Exit
) -> None:
    (news,) = found(values)
    assert news.standing is standing
    assert gate([news])[0] is code


def test_an_accepted_step_passes_and_a_later_one_fails() -> None:
    accepted = Accepted(NAME, date(2026, 1, 26), "known")
    (news,) = found(levels((0.0, 25), (0.03, 10)), accepted)
    assert news.standing is Standing.ACCEPTED
    assert gate([news]) == (Exit.PASSED, "gate: none of 1 series is worse")
    (again,) = found(levels((0.0, 25), (0.03, 10), (0.06, 10)), accepted)
    assert again.standing is Standing.WORSE
    assert again.step == 1
    (after,) = found(levels((0.0, 25), (0.03, 10), (0.0, 10)), accepted)
    assert after.standing is Standing.BETTER


def test_a_step_is_accepted_by_any_day_of_its_range() -> None:
    values = levels((0.0, 25), (0.03, 10))
    history = histories.history(nightlies(values))
    (series,) = history.series
    assert series.found is not None
    when = period(series.found.steps[0], series, history.runs)
    days = [when.after.date(), when.by.date()]
    assert days[0] <= date(2026, 1, 25) <= date(2026, 1, 26) <= days[1]
    for day in days:
        (news,) = found(values, Accepted(NAME, day, "known"))
        assert news.standing is Standing.ACCEPTED


def test_a_range_within_a_day_is_given_in_times() -> None:
    morning, noon = (datetime(2026, 1, 25, hour, 30, tzinfo=timezone.utc) for hour in (9, 12))
    assert str(Period(morning, noon)) == "2026-01-25 09:30 to 12:30 UTC"
    assert str(Period(morning, noon + timedelta(days=2))) == "2026-01-25 to 2026-01-27"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (Accepted("another", date(2026, 1, 26), "x"), "no series is named 'another'"),
        (Accepted(NAME, date(2026, 1, 10), "x"), f"{NAME} has no step on 2026-01-10; its steps: "),
    ],
)
def test_an_entry_that_fits_nothing_is_one_line(entry: Accepted, problem: str) -> None:
    with pytest.raises(InputError, match=re.escape(problem)) as error:
        found(levels((0.0, 25), (0.03, 10)), entry)
    assert str(error.value).startswith("accepted.toml: ")
    assert "\n" not in str(error.value)


def test_informational_and_ended_series_are_not_gated() -> None:
    worse = nightlies(levels((0.0, 25), (0.03, 10)))
    informational = {LOOP: replace(synthetic.terms(), gated=False)}
    runs = [with_changes(each, workloads=informational) for each in worse]
    news = news_of(histories.history(runs), [], "")
    assert [each.standing for each in news] == [Standing.WORSE]
    assert gate(news) == (Exit.INCONCLUSIVE, "gate: no current series is gated")
    late = [
        run(90 + day, {LOOP: value}, candidate=side("b", "tensorflow==2.1"))
        for day, value in enumerate(noise(20))
    ]
    news = news_of(histories.history([*worse, *late]), [], "")
    assert [each.standing for each in news] == [Standing.STEADY, Standing.ENDED]
    assert gate(news)[0] is Exit.PASSED


def test_worse_comes_first_and_larger_steps_before_smaller_ones() -> None:
    runs = [
        run(day, {LOOP: value}, candidate=side(name, f"tensorflow=={version}.0"))
        for version, (name, height) in enumerate(
            {"steady": 0.0, "small": 0.02, "better": -0.05, "large": 0.04}.items()
        )
        for day, value in enumerate(levels((0.0, 15), (height, 10)))
    ]
    news = news_of(histories.history(runs), [], "")
    assert [each.series.track for each in news] == ["large", "small", "better", "steady"]
