"""Merges several results files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from bench.records.blocks import Block, Results, WorkloadTerms
from bench.records.results import check_alike
from bench.records.sides import Side, difference, labelled
from lenet5.errors import InputError


@dataclass(frozen=True)
class _Candidate:
    """A candidate of one or more parts, with its workloads and blocks."""

    side: Side
    workloads: tuple[str, ...]
    blocks: tuple[Block, ...]

    def joined(self, other: _Candidate) -> _Candidate:
        """Returns both as one: the other's blocks follow, its versions fill gaps."""
        number = 1 + max((block.number for block in self.blocks), default=-1)
        later = (replace(block, number=number + block.number) for block in other.blocks)
        side = replace(self.side, versions={**other.side.versions, **self.side.versions})
        return _Candidate(side, (*self.workloads, *other.workloads), (*self.blocks, *later))


def together(parts: Sequence[Results]) -> Results:
    """Merges comparisons against the same baseline: all their candidates, newly labelled.

    Parts of one environment become one candidate if no workload repeats. Each part fixes its own
    steps of a slice; the merged terms have those of the first part.

    Raises:
        InputError: machine, baseline or threads differ, or code, version or margin of a workload.
    """
    first, *others = parts
    if not others:
        return first
    for one, other in combinations(parts, 2):
        check_alike(one, other)
    workloads: dict[str, WorkloadTerms] = {}
    for part in parts:
        for name, terms in part.workloads.items():
            known = workloads.setdefault(name, terms)
            if (known.margin, known.gated) != (terms.margin, terms.gated):
                raise InputError(f"results of different margins of {name} cannot be combined")
    candidates = _candidates(parts)
    baseline, *sides = labelled([first.baseline, *(found.side for found in candidates)])
    return replace(
        first,
        code=", ".join(dict.fromkeys(part.code for part in parts)),
        baseline=baseline,
        candidates=tuple(
            replace(side, unwanted=tuple(n for n in workloads if n not in found.workloads))
            for side, found in zip(sides, candidates, strict=True)
        ),
        workloads=workloads,
        blocks=tuple(
            replace(block, candidate=place)
            for place, found in enumerate(candidates)
            for block in found.blocks
        ),
        complete=all(part.complete for part in parts),
    )


def _candidates(parts: Sequence[Results]) -> list[_Candidate]:
    """Returns the candidates of all parts; merges an environment's parts if no workload repeats."""
    found: list[_Candidate] = []
    for part in parts:
        for place, side in enumerate(part.candidates):
            new = _Candidate(
                side,
                tuple(name for name in part.workloads if name not in side.unwanted),
                tuple(block for block in part.blocks if block.candidate == place),
            )
            for at, known in enumerate(found):
                twice = set(known.workloads) & set(new.workloads)
                if side.lock and not twice and not difference(known.side, side):
                    found[at] = known.joined(new)
                    break
            else:
                found.append(new)
    return found
