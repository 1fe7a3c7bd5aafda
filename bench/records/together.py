"""Puts ledgers together; the result is the same for any order of the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from bench.records import ledger
from bench.records.blocks import Block, Results, WorkloadTerms
from bench.records.results import check_alike, in_order
from bench.records.sides import Side, difference, labelled, unlike_machines
from bench.records.trainings import Comparison, Trained, Trainings, identity
from lenet5.errors import InputError

TrainingsPart = tuple[Sequence[Trainings], Comparison | None]


@dataclass(frozen=True)
class _Candidate:
    """A candidate of some parts.

    Attributes:
        side: its environment.
        workloads: workloads that a part has measured or should have.
        parts: indices of the parts.
        groups: its blocks; a disturbed block and its repetitions are one group.
    """

    side: Side
    workloads: frozenset[str]
    parts: frozenset[int]
    groups: tuple[tuple[Block, ...], ...]

    def joined(self, other: _Candidate) -> _Candidate:
        """Returns both as one; a block that both have counts once."""
        groups = [list(group) for group in self.groups]
        place_of = {_key(block): n for n, group in enumerate(groups) for block in group}
        for group in other.groups:
            known = [place_of[_key(block)] for block in group if _key(block) in place_of]
            new = [block for block in group if _key(block) not in place_of]
            if known:
                groups[known[0]] += new
            else:
                groups.append(new)
        return _Candidate(
            _joined_side(self.side, other.side),
            self.workloads | other.workloads,
            self.parts | other.parts,
            tuple(map(tuple, groups)),
        )

    def numbered(self) -> Iterator[tuple[tuple[str, int], Block]]:
        """Yields the blocks in the order of their starts, each after a key for that order."""
        latest = ""
        for number, group in enumerate(sorted(self.groups, key=_start)):
            for block in group:
                latest = max(latest, block.started)  # a clock may be set back
                yield (latest, number), replace(block, number=number)


def together(parts: Sequence[Results]) -> Results:
    """Puts comparisons against one baseline together: all their candidates, newly labelled.

    Parts of one environment become one candidate. Its blocks are numbered by their starts; the
    same block in two parts counts once. Candidates of one part stay apart. Each part fixes its own
    steps of a slice; the terms have those of the earliest part.

    Raises:
        InputError: machine, device, baseline or threads differ, or code, version or margin of a
            workload.
    """
    if len(parts) == 1:
        return parts[0]
    for one, other in combinations(parts, 2):
        check_alike(one, other)
    parts = sorted(parts, key=lambda part: (part.started, _digest(part)))
    workloads: dict[str, WorkloadTerms] = {}
    for part in parts:
        for name, terms in part.workloads.items():
            known = workloads.setdefault(name, terms)
            if (known.margin, known.gated) != (terms.margin, terms.gated):
                raise InputError(f"results of different margins of {name} cannot be combined")
    candidates = _candidates(parts)
    baseline, *sides = labelled([parts[0].baseline, *(found.side for found in candidates)])
    blocks = [
        (key, place, replace(block, candidate=place))
        for place, found in enumerate(candidates)
        for key, block in found.numbered()
    ]
    return replace(
        parts[0],
        code=", ".join(dict.fromkeys(part.code for part in parts)),
        baseline=baseline,
        candidates=tuple(
            replace(side, unwanted=tuple(n for n in workloads if n not in found.workloads))
            for side, found in zip(sides, candidates, strict=True)
        ),
        workloads=in_order(workloads),
        blocks=tuple(block for (_, number), place, block in sorted(blocks, key=_moment)),
        complete=all(part.complete for part in parts),
    )


def _start(group: Sequence[Block]) -> tuple[str, int, str]:
    """Returns a key for the order of starts; blocks of one second stay as in their ledger."""
    return group[0].started, group[0].number, _key(group[0])


def _moment(found: tuple[tuple[str, int], int, Block]) -> tuple[str, int, int]:
    (started, number), place, _ = found
    return started, place, number


def _candidates(parts: Sequence[Results]) -> list[_Candidate]:
    """Returns the candidates of all parts; those of one environment in several parts are one."""
    found: list[_Candidate] = []
    for index, part in enumerate(parts):
        for place, side in enumerate(part.candidates):
            groups: dict[int, list[Block]] = {}
            for block in part.blocks:
                if block.candidate == place:
                    groups.setdefault(block.number, []).append(block)
            new = _Candidate(
                side,
                frozenset(part.workloads) - frozenset(side.unwanted),
                frozenset([index]),
                tuple(map(tuple, groups.values())),
            )
            for at, known in enumerate(found):
                if index not in known.parts and _is_same(known.side, side):
                    found[at] = known.joined(new)
                    break
            else:
                found.append(new)
    return found


def together_trainings(
    parts: Sequence[TrainingsPart],
) -> tuple[list[Trainings], Comparison | None]:
    """Puts sets of trainings together: the seeds of one environment become one set.

    Args:
        parts: sets and terms of each ledger; the terms are None without a comparison.

    Returns:
        The sets, and the common terms.

    Raises:
        InputError: terms, baseline, reference, machine, device, recipe, engine, split or code
            differ, or a seed has two results.
    """
    if len(parts) == 1:
        return [*parts[0][0]], parts[0][1]
    parts = sorted(parts, key=lambda part: (min(item.started for item in part[0]), _digest(part)))
    terms = parts[0][1]
    if any(other != terms for _, other in parts):
        raise InputError("results of different terms cannot be combined")
    reference = [*parts[0][0][:1]] if terms is not None and not terms.beside else []
    if any(_digest(sets[:1]) != _digest(reference) for sets, _ in parts if reference):
        raise InputError("results of different references cannot be combined")
    own = [sets[len(reference) :] for sets, _ in parts]
    for one, other in combinations([item for sets in own for item in sets], 2):
        _check_alike(one, other)
    found: list[tuple[set[int], Trainings]] = []
    for index, sets in enumerate(own):
        for place, item in enumerate(sets):
            is_baseline = terms is not None and terms.beside and place == 0
            if is_baseline and index and (unlike := difference(found[0][1].side, item.side)):
                raise InputError(f"results of different baselines cannot be combined: {unlike}")
            for at, (indices, known) in enumerate(found):
                if index not in indices and _is_same(known.side, item.side):
                    found[at] = ({*indices, index}, _joined_set(known, item))
                    break
            else:
                found.append(({index}, item))
    sides = labelled([item.side for _, item in found])
    sets = [replace(item, side=side) for (_, item), side in zip(found, sides, strict=True)]
    return [*reference, *sets], terms


def _check_alike(one: Trainings, other: Trainings) -> None:
    if unlike := unlike_machines(one.machine, other.machine):
        raise InputError(f"results of different {unlike} cannot be combined")
    for what, a, b in (
        ("recipes", identity(one.recipe), identity(other.recipe)),
        ("engines", one.engine, other.engine),
        ("images", one.split, other.split),
        ("code", one.code, other.code),
    ):
        if a != b:
            raise InputError(f"results of different {what} cannot be combined")


def _joined_set(one: Trainings, other: Trainings) -> Trainings:
    seeds = {trained.seed: trained for trained in one.seeds}
    for trained in other.seeds:
        known = seeds.setdefault(trained.seed, trained)
        if _result(known) != _result(trained):
            told = f"seed {trained.seed} of {one.side.label} has two results"
            raise InputError(f"{told}: they cannot be combined")
    return replace(
        one,
        side=_joined_side(one.side, other.side),
        seeds=tuple(seeds[seed] for seed in sorted(seeds)),
        problem="" if seeds else one.problem,
    )


def _result(trained: Trained) -> Mapping[str, object]:
    """Returns what a repetition of a training on a like machine gives again."""
    content: dict[str, object] = ledger.plain(replace(trained, train_seconds=0.0, retried=""))
    return content


def _is_same(one: Side, other: Side) -> bool:
    """Returns whether two sides are one environment, or one request without a build."""
    if one.lock or other.lock:
        return not difference(one, other)
    return (one.request, dict(one.settings)) == (other.request, dict(other.settings))


def _joined_side(one: Side, other: Side) -> Side:
    return replace(one, versions={**other.versions, **one.versions})


def _key(block: Block) -> str:
    """Returns the identity of a block, whatever its number and its candidate's place."""
    return _digest(replace(block, candidate=0, number=0))


def _digest(content: object) -> str:
    text = json.dumps(ledger.plain(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
