"""A stage of a bisection: environments between good and bad, and the changes that they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.records import ledger
from lenet5.errors import InputError

OPTION = "bisection"  # in the options of a stage's ledger
VERSIONS, DATES, GIVEN, ENDS, PACKAGES = "versions", "dates", "given", "ends", "packages"


@dataclass(frozen=True)
class Place:
    """An environment of a stage.

    Attributes:
        name: short name, such as `2.17.1` or `with Keras of bad`.
        requests: requests for it, in the order to try; at least one, and of no other place.
        held: changes that it has and good has not.
    """

    name: str
    requests: tuple[str, ...]
    held: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stage:
    """Environments to tell apart.

    Attributes:
        kind: `versions`, `dates`, `nightlies`, `given`, `ends` or `packages`.
        package: package of an axis of versions or nightlies; empty for others.
        places: environments; good is the first, bad holds all changes.
        changes: names of the changes, by number.
        weights: number of releases behind each change.
    """

    kind: str
    package: str
    places: tuple[Place, ...]
    changes: Mapping[str, str]
    weights: Mapping[str, float]

    @property
    def is_ordered(self) -> bool:
        """Whether the places follow each other, each with one more change."""
        return self.kind != PACKAGES

    @property
    def bad(self) -> int:
        """Place of bad."""
        return max(range(len(self.places)), key=lambda place: len(self.places[place].held))

    def place_of(self, request: str) -> int:
        """Returns the place of a request.

        Raises:
            InputError: no place has it.
        """
        for number, place in enumerate(self.places):
            if request in place.requests:
                return number
        raise InputError(f"{request} is no level of the bisection")

    def named(self, changes: frozenset[int]) -> str:
        """Returns a group of changes in words."""
        if self.is_ordered:
            low, high = min(changes) - 1, max(changes)
            return f"{self.places[low].name} to {self.places[high].name}"
        return " together with ".join(self.changes[str(change)] for change in sorted(changes))


def ordered_stage(kind: str, package: str, levels: Mapping[str, str]) -> Stage:
    """Returns a stage of ordered levels: name -> request, good first, bad last."""
    names = [*levels]
    places = tuple(
        Place(name, (levels[name],), tuple(range(1, number + 1)))
        for number, name in enumerate(names)
    )
    changes = {
        str(number): f"{names[number - 1]} to {names[number]}" for number in range(1, len(names))
    }
    return Stage(kind, package, places, changes, dict.fromkeys(changes, 1.0))


def stage_of(options: Mapping[str, Any]) -> Stage:
    """Reads a stage from the options of its ledger.

    Raises:
        InputError: the ledger is not of a bisection.
    """
    try:
        return ledger.made(Stage, options[OPTION])
    except (KeyError, ValueError):
        raise InputError("holds no stage of a bisection") from None
