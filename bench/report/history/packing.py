"""The data of a history's page: whole numbers in columns, compressed, as text.

A page of 240 series with 200 points each stays below 1 MB: values are whole numbers against the
median of their column, environments are differences to another one, and all of it is JSON, deflated
and in base64. The page's script inflates it (`DecompressionStream`); nothing is loaded.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from bench.records.accepted import Accepted
from bench.records.sides import Side
from bench.report.versions import text_of, version_key
from bench.verdicts.history.news import News
from bench.verdicts.history.points import identity
from bench.verdicts.history.repeating import repeating_request
from bench.verdicts.history.series import History, Placed, Series

VALUE = 10**5  # units of a value: 0.001 % of a ratio, 1e-5 MiB a call
AMOUNT = 10**4  # units of the logarithm of seconds or MiB


def packed(content: object) -> str:
    """Returns content as JSON, deflated, in base64."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode("ascii")


def unpacked(text: str) -> Any:
    """Returns content from `packed`."""
    return json.loads(zlib.decompress(base64.b64decode(text)))


def page_data(history: History, news: Sequence[News]) -> dict[str, Any]:
    """Returns everything that the page's script draws.

    Args:
        history: the history.
        news: standing of every series.
    """
    places = {name: place for place, name in enumerate(history.environments)}
    standing = {each.series.name: each for each in news}
    where = {
        id(placed): (number, place)
        for number, series in enumerate(history.series)
        for place, placed in enumerate(series.points)
    }
    machines = list(dict.fromkeys(json.dumps(dict(run.machine)) for run in history.runs))
    codes = list(dict.fromkeys(run.code for run in history.runs))
    return {
        "value": VALUE,
        "amount": AMOUNT,
        "machines": [_machine(json.loads(text)) for text in machines],
        "codes": [code[:12] for code in codes],
        "environments": _environments(history.environments),
        "runs": {
            "seconds": _deltas(int(run.moment.timestamp()) for run in history.runs),
            "paths": [run.path for run in history.runs],
            "machines": [machines.index(json.dumps(dict(run.machine))) for run in history.runs],
            "codes": [codes.index(run.code) for run in history.runs],
            "baselines": [places[identity(run.baseline)] for run in history.runs],
        },
        "series": [_series(each, standing[each.name], places) for each in history.series],
        "versions": [_over_versions(each, where, places) for each in history.versions],
    }


def _machine(machine: Mapping[str, Any]) -> dict[str, Any]:
    flags = machine.get("flags")
    gpu = machine.get("gpu")
    parts = gpu if isinstance(gpu, Mapping) else {}  # one by one: a driver may change alone
    rest = {key: text_of(value) for key, value in machine.items() if key not in ("flags", "gpu")}
    rest |= {f"GPU {key.replace('_', ' ')}": text_of(value) for key, value in parts.items()}
    return {**rest, "flags": " ".join(map(str, flags)) if isinstance(flags, list) else ""}


def _environments(sides: Mapping[str, Side]) -> list[dict[str, Any]]:
    """Returns environments, each lock as the difference to an earlier one of the same request."""
    keys = {name: tuple(version_key(side)) for name, side in sides.items()}
    ranks = {key: rank for rank, key in enumerate(sorted(set(keys.values())))}
    latest: dict[str, int] = {}
    locks: list[Mapping[str, str]] = []
    rows = []
    for place, (name, side) in enumerate(sides.items()):
        parent = latest.get(side.request, place - 1)
        before = locks[parent] if parent >= 0 else {}
        now = side.packages
        changes = {
            each: now.get(each) for each in {**before, **now} if before.get(each) != now.get(each)
        }
        latest[side.request] = place
        locks.append(now)
        modules = side.modules
        settings = " ".join(f"{key}={value}" for key, value in sorted(side.settings.items()))
        rows.append(
            {
                "label": label_of(side),
                "versions": [
                    modules.tensorflow,
                    modules.keras,
                    str(side.versions.get("numpy") or now.get("numpy", "")),
                    str(side.versions.get("python", "")),
                ],
                "rank": ranks[keys[name]],
                "request": side.request,
                "repeat": repeating_request(side),
                "settings": settings,
                "parent": parent,
                "changes": changes,
            }
        )
    return rows


def label_of(side: Side) -> str:
    """Returns a name of an environment that does not depend on what it is compared with."""
    modules = side.modules
    if not modules.tensorflow:
        return side.request
    name = "tf-keras" if modules.keras_package == "tf_keras" else "Keras"
    keras = f" + {name} {modules.keras}" if modules.keras else ""
    is_dated = modules.built.replace("-", "") in modules.tensorflow
    built = "" if is_dated else f" ({modules.built})"  # a nightly's date, unless it has it
    settings = "".join(f" {key}={value}" for key, value in sorted(side.settings.items()))
    return f"{modules.tensorflow}{built}{keras}{settings}"


def _series(series: Series, news: News, places: Mapping[str, int]) -> dict[str, Any]:
    points = series.points
    content = {
        **_head(series, places),
        "standing": news.standing.value,
        "current": series.is_current,
        "runs": _deltas(each.point.run for each in points),
        "environments": _deltas(places[each.point.environment] for each in points),
        "values": _column([each.value for each in points], VALUE),
        "errors": _column([each.point.error for each in points], VALUE),
        "blocks": [each.point.blocks for each in points],
        "verdicts": "".join(each.point.verdict[0] for each in points),
        "amounts": _column([_amount(each, series) for each in points], AMOUNT),
    }
    if any(each.link for each in points):
        content["links"] = [round(VALUE * each.link) for each in points]
    return {**content, **_found(series, news.accepted)}


def _over_versions(
    series: Series, where: Mapping[int, tuple[int, int]], places: Mapping[str, int]
) -> dict[str, Any]:
    """Returns a series over versions: its points stand in other series already."""
    found = [where[id(placed)] for placed in series.points]
    return {
        **_head(series, places),
        "members": _deltas(number for number, _ in found),
        "points": _deltas(place for _, place in found),
        **_found(series, {}),
    }


def _head(series: Series, places: Mapping[str, int]) -> dict[str, Any]:
    terms = series.terms
    return {
        "name": series.name,
        "workload": series.workload,
        "track": series.track,
        "machine": series.machine,
        "unit": terms.unit,
        "difference": terms.is_difference,
        "margin": terms.margin,
        "gated": terms.gated,
        "stepwise": terms.steps > 0,
        "asked": series.asked,
        "baseline": places[series.baseline],
        "band": _whole(series.band.half, VALUE),
        "equal": series.band.runs,
    }


def _found(series: Series, accepted: Mapping[int, Accepted]) -> dict[str, Any]:
    found = series.found
    if found is None:
        return {"levels": [], "steps": [], "tested": False, "noise": None}
    return {
        "noise": _whole(found.noise, VALUE),
        "tested": found.is_tested,
        "levels": [
            [each.first, each.last, *(_whole(v, VALUE) for v in (each.mean, each.low, each.high))]
            for each in found.levels
        ],
        "steps": [
            [
                *(each.at, each.earliest, each.latest),
                *(_whole(v, VALUE) for v in (each.change, each.low, each.high)),
                each.is_proven,
                accepted[place].reason if place in accepted else None,
            ]
            for place, each in enumerate(found.steps)
        ],
    }


def _amount(placed: Placed, series: Series) -> float:
    """Returns the logarithm of the candidate's seconds or MiB; NaN where it has none."""
    point = placed.point
    if series.terms.is_difference or not point.baseline_amount > 0:
        return math.nan
    return math.log(point.baseline_amount) + point.value


def _column(values: Sequence[float], unit: int) -> list[int | None]:
    """Returns the median in units, then each value less the median; None for NaN."""
    whole = [_whole(value, unit) for value in values]
    there = sorted(value for value in whole if value is not None)
    middle = there[len(there) // 2] if there else 0
    return [middle, *(None if value is None else value - middle for value in whole)]


def _whole(value: float, unit: int) -> int | None:
    return round(value * unit) if math.isfinite(value) else None


def _deltas(values: Iterable[int]) -> list[int]:
    """Returns the first value, then the differences of neighbours."""
    return [after - before for before, after in pairwise([0, *values])]
