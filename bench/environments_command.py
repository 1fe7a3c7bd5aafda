"""Built environments in the cache: their table, and the removal of some."""

from __future__ import annotations

import argparse
import os
from datetime import datetime, timezone
from functools import partial

from tqdm import tqdm

from bench.environments.builds import default_cache
from bench.environments.cache.entries import InUseError
from bench.environments.cache.kept import Kept, kept_in, named, older_than, remove
from bench.report.tables import Table
from bench.verdicts.outcomes import Exit
from lenet5.printable import printable


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of `python -m bench environments`."""
    command.add_argument(
        "--remove-older-than",
        type=int,
        metavar="DAYS",
        help="remove the environments that were not used for so many days",
    )
    command.add_argument(
        "--remove",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY",
        help="remove these environments; the beginning of a key is enough",
    )


def run(options: argparse.Namespace) -> int:
    """Prints the table, removes what the options name, and returns the exit status.

    Raises:
        InputError: a key or a number of days is wrong, or a file cannot be removed.
    """
    cache, now = default_cache(os.environ), datetime.now(timezone.utc)
    found = kept_in(cache, partial(tqdm, unit="environment", disable=None, leave=False))
    asked = named(found, options.remove)
    chosen = {each.key: each for each in asked}
    if options.remove_older_than is not None:
        old = older_than(found, options.remove_older_than, now)
        chosen |= {each.key: each for each in old}
    total = sum(each.size_bytes for each in found)
    noun = "environment" if len(found) == 1 else "environments"
    print(printable(f"{cache}: {len(found)} {noun}, {_size(total)}"))
    if found:
        print(Table(("key", "request", "size", "last use"), [_row(each, now) for each in found], 2))
    freed, kept = 0, set()
    for each in chosen.values():
        try:
            size = remove(each, now)
        except InUseError as error:
            kept.add(each.key)
            print(f"{each.key}: kept: {error}")
        else:
            freed += size
            print(f"{each.key}: removed, {_size(size)} freed", flush=True)
    if chosen:
        removed = len(chosen) - len(kept)
        print(f"{removed} of {len(chosen)} removed, {_size(freed)} ({freed:,} bytes) freed")
    return Exit.FAILED if any(each.key in kept for each in asked) else Exit.PASSED


def _row(kept: Kept, now: datetime) -> tuple[str, ...]:
    days = (now - kept.used).days
    ago = "today" if days < 1 else f"{days} day{'' if days == 1 else 's'} ago"
    use = "in use" if kept.is_in_use else ago
    return kept.key, kept.request or "interrupted build", _size(kept.size_bytes), use


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
