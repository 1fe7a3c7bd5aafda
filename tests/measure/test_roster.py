"""Which workers of a cluster may run a task."""

from __future__ import annotations

import pytest

from bench.measure.cluster.roster import CORE, MACHINE, Facts, missing, suitable
from lenet5.errors import InputError

LIKE, OTHER = {"cpu": "one"}, {"cpu": "another"}
A, B, C = "tcp://10.0.0.1:1", "tcp://10.0.0.2:1", "tcp://10.0.0.2:2"


def facts(threads: int = 1, **resources: float) -> Facts:
    return Facts(threads, resources, LIKE)


def test_a_block_needs_a_worker_that_announces_a_machine() -> None:
    there = {A: facts(machine=1), B: facts(threads=8)}
    assert suitable(there, MACHINE, None) == ({A: there[A]}, {"machine": 1})
    assert suitable({B: there[B]}, MACHINE, None) == ({}, {"machine": 1})


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ({A: facts(2, machine=1)}, f"worker {A} has machine=1 and 2 threads: .* --nthreads 1"),
        (
            {B: facts(machine=1), C: facts(machine=1)},
            f"worker {B} is not the only one with machine=1 on its host",
        ),
    ],
)
def test_a_worker_that_shares_its_machine_is_refused(there: dict[str, Facts], told: str) -> None:
    with pytest.raises(InputError, match=told):
        suitable(there, MACHINE, None)


def test_resources_count_by_process_so_another_worker_may_share_the_host() -> None:
    """Only workers with `machine=1` exclude each other; the rest is the user's responsibility."""
    there = {B: facts(machine=1), C: facts(threads=8)}
    assert [*suitable(there, MACHINE, None)[0]] == [B]


def test_a_seed_needs_a_core_if_any_worker_announces_cores() -> None:
    there = {A: facts(core=4), B: facts()}
    assert suitable(there, CORE, None) == ({A: there[A]}, {"core": 1})
    assert suitable({B: there[B]}, CORE, None) == ({B: there[B]}, {})


@pytest.mark.parametrize("kind", [MACHINE, CORE])
def test_workers_on_other_machines_are_left_out(kind: str) -> None:
    there = {A: facts(machine=1, core=1), B: Facts(1, {"machine": 1, "core": 1}, OTHER)}
    assert [*suitable(there, kind, OTHER)[0]] == [B]
    assert [*suitable(there, kind, {"cpu": "third"})[0]] == []


def test_the_missing_worker_is_named() -> None:
    how = "start one with --nthreads 1 --resources machine=1"
    assert missing({}, MACHINE) == "the scheduler has none"
    assert missing({A: facts()}, MACHINE) == f"none of 1 has machine=1: {how}"
    there = {A: Facts(1, {"machine": 1}, OTHER), B: facts()}
    like = "is on a machine like that of the earlier records"
    assert missing(there, MACHINE) == f"none of 1 {like}"


ON_GPU = {"cpu": "one", "gpu": {"model": "NVIDIA H200"}}


def test_a_worker_without_the_device_is_left_out() -> None:
    there = {A: Facts(1, {"machine": 1}, {}, "no driver"), B: Facts(1, {"machine": 1}, ON_GPU)}
    for resource in (MACHINE, CORE):
        assert [*suitable(there, resource, None)[0]] == [B]


def test_if_no_worker_has_the_device_the_first_reason_is_told_at_once() -> None:
    there = {B: Facts(1, {}, {}, "--device gpu:0: no such GPU"), A: Facts(1, {}, {}, "no driver")}
    for resource in (MACHINE, CORE):
        with pytest.raises(InputError, match=f"^worker {A}: no driver$"):
            suitable(there, resource, None)


def test_a_worker_trains_one_seed_at_a_time_on_its_gpu_unless_it_announces_cores() -> None:
    there = {A: Facts(4, {}, ON_GPU)}
    told = f"worker {A} would train 4 seeds at a time on its GPU: start it with --nthreads 1"
    with pytest.raises(InputError, match=told):
        suitable(there, CORE, None)
    for able in (Facts(1, {}, ON_GPU), Facts(4, {"core": 2}, ON_GPU)):
        assert [*suitable({A: able}, CORE, None)[0]] == [A]
    assert [*suitable({A: Facts(4, {}, LIKE)}, CORE, None)[0]] == [A]  # on the CPU they may


def test_workers_with_other_gpus_or_drivers_are_left_out() -> None:
    driver = {**ON_GPU, "gpu": {"model": "NVIDIA H200", "driver": "560.35"}}
    there = {A: Facts(1, {}, ON_GPU), B: Facts(1, {}, driver), C: Facts(1, {}, LIKE)}
    assert [*suitable(there, CORE, driver)[0]] == [B]
    assert [*suitable(there, CORE, LIKE)[0]] == [C]
