"""Steps of bits along a stage, and the next level to compute."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from bench.records.levels import Computed, Levels

_WHOLE_PROFILE = 12  # levels; a longer axis is divided where its bits differ


def by_place(found: Levels) -> Mapping[int, Computed]:
    """Returns the computed levels by place, without problems."""
    places = {found.stage.place_of(c.request): c for c in found.computed if not c.problem}
    return dict(sorted(places.items()))


def missing(found: Levels) -> Mapping[int, str]:
    """Returns the reasons of places without a request that works."""
    problems: dict[int, list[str]] = {}
    for computed in found.computed:
        problems.setdefault(found.stage.place_of(computed.request), []).append(computed.problem)
    return {
        place: tried[-1]
        for place, tried in problems.items()
        if all(tried) and len(tried) == len(found.stage.places[place].requests)
    }


def next_place(found: Levels) -> tuple[int, str] | None:
    """Returns the next place to compute, with its request; None at the end."""
    stage, known, gone = found.stage, by_place(found), missing(found)
    left = [p for p in range(len(stage.places)) if p not in known and p not in gone]
    for place in (0, stage.bad):
        if place in left:
            return place, _request(found, place)
    if 0 not in known or stage.bad not in known or known[0].bits == known[stage.bad].bits:
        return None
    if stage.is_ordered and len(stage.places) > _WHOLE_PROFILE:
        gaps = [
            [place for place in left if before < place < after]
            for before, after in pairwise(known)
            if known[before].bits != known[after].bits
        ]
        gap = max(gaps, key=len, default=[])
        left = gap[len(gap) // 2 :][:1]
    return (left[0], _request(found, left[0])) if left else None


def _request(found: Levels, place: int) -> str:
    tried = {c.request for c in found.computed}
    return next(r for r in found.stage.places[place].requests if r not in tried)


def steps_of(found: Levels) -> list[tuple[int, int]]:
    """Returns pairs of places between which the bits change, by one change or a gap.

    Among packages these are good and good with a package, and bad without it and bad.
    """
    stage, known = found.stage, by_place(found)
    if stage.is_ordered:
        pairs = list(pairwise(known))
    else:
        most = len(stage.places[stage.bad].held)
        with_one = [(0, p) for p in known if len(stage.places[p].held) == 1]
        but_one = [(p, stage.bad) for p in known if len(stage.places[p].held) == most - 1]
        pairs = [pair for pair in dict.fromkeys([*with_one, *but_one]) if set(pair) <= set(known)]
    return [(before, after) for before, after in pairs if known[before].bits != known[after].bits]


def name_of(found: Levels, step: tuple[int, int]) -> str:
    """Returns the changes between two places in words."""
    before, after = (set(found.stage.places[place].held) for place in step)
    return found.stage.named(frozenset(after - before))
