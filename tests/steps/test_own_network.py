"""A network of the sites' own: averaged, recorded and audited as any other, never opened."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from brainfed import plan as plans
from brainfed.errors import (
    BrainfedError,
    ConflictError,
    MalformedError,
    PlanError,
    TensorsError,
    UsageError,
    WrongRoleError,
)
from brainfed.formats import rounds, weights
from brainfed.formats.given_weights import read_header
from brainfed.formats.manifest import UNDECLARED_SPLIT
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps.aggregate import aggregate
from brainfed.steps.audit import Verdict, audit
from brainfed.steps.evaluate import evaluate
from brainfed.steps.external_network import network_of
from brainfed.steps.own_update import Counts, TakenUpdate, take_update
from brainfed.steps.rederive import Outcome
from brainfed.steps.train import train_round
from tests.builders import a_plan, write_dataset
from tests.federation import TODAY, Small, a_federation, carry, leftovers, sign, snapshot

COUNTS = Counts(n_patients=12, n_cases=13, n_slices=400)


def a_state(seed: int = 0, **changes: Any) -> dict[str, Any]:
    """What a program would save: float32 weights, statistics of a site's own, a counter."""
    random = np.random.default_rng(seed)
    state: dict[str, Any] = {
        "conv.weight": random.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "conv.bias": random.normal(size=4).astype(np.float32),
        "norm.running_mean": random.normal(size=4).astype(np.float32),
        "norm.num_batches_tracked": np.array(seed, np.int64),
    }
    return {name: array for name, array in (state | changes).items() if array is not None}


def saved(path: Path, seed: int = 0, **changes: Any) -> Path:
    save_file(a_state(seed, **changes), path, metadata={"made by": "somebody else"})
    return path


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    network = network_of(saved(tmp_path / "first.safetensors"), ["norm.running_*"])
    return a_plan(network=network.model_dump(mode="json"))


@pytest.fixture
def small(tmp_path: Path, plan: Plan) -> Small:
    return a_federation(tmp_path / "federation", plan=plan)


def test_the_plan_s_table_lists_the_tensors_of_a_file_and_what_stays_local(plan: Plan) -> None:
    assert plan.network.tensors == (
        "conv.bias F32 4",
        "conv.weight F32 4 1 3 3",
        "norm.num_batches_tracked I64",
        "norm.running_mean F32 4",
    )
    assert plan.network.local == ("norm.num_batches_tracked", "norm.running_mean")
    assert plans.parse(plans.render(plan).encode()) == plan


def test_two_rounds_end_in_the_mean_and_a_stranger_derives_it_to_the_bit(
    small: Small, tmp_path: Path
) -> None:
    for number in (1, 2):
        for seed, site in enumerate(small.sites.values()):
            path = saved(tmp_path / "mine.safetensors", 10 * number + seed)
            take_update(site, path, Counts(10 + seed, 10, 300))
            carry(site, small.coordinator, small.medium(f"{number}-{site.name}"))
        aggregate(small.coordinator, today=TODAY)
        for site in small.sites.values():
            carry(small.coordinator, site, small.medium(f"{number}-back"))
    found = rounds.global_path(small.sites["hospital-a"], 2)
    assert found is not None
    averaged = load_file(found)  # opened by any reader
    assert sorted(averaged) == ["conv.bias", "conv.weight"]
    a, b = (a_state(20 + seed)["conv.weight"].astype(np.float64) for seed in (0, 1))
    assert np.array_equal(averaged["conv.weight"], ((10 * a + 11 * b) / 21).astype(np.float32))
    told = audit([small.coordinator.root])
    assert told.verdict is Verdict.REDERIVED, told.findings
    assert [row.outcome for row in told.rounds] == [
        Outcome.GIVEN,
        Outcome.REDERIVED,
        Outcome.REDERIVED,
    ]


def took(small: Small, path: Path, counts: Counts | None = COUNTS) -> TakenUpdate:
    return take_update(small.sites["hospital-a"], path, counts)


def test_the_manifest_says_what_was_declared_and_nothing_of_scores(
    small: Small, tmp_path: Path
) -> None:
    manifest = took(small, saved(tmp_path / "mine.safetensors")).update.manifest
    assert (manifest.n_patients, manifest.n_cases, manifest.n_slices) == (12, 13, 400)
    assert (manifest.split, manifest.n_validation, manifest.scores) == (UNDECLARED_SPLIT, 0, ())
    assert set(manifest.versions) == {"brainfed", "numpy"}


def test_cases_and_split_of_the_workspace_say_what_was_trained_on(
    small: Small, plan: Plan, tmp_path: Path
) -> None:
    site = small.sites["hospital-a"]
    write_dataset(site.data, plan)
    path = saved(tmp_path / "mine.safetensors")
    with pytest.raises(UsageError, match="they say what was trained on"):
        take_update(site, path, COUNTS)
    manifest = take_update(site, path).update.manifest
    assert manifest.n_patients is not None
    assert manifest.split != UNDECLARED_SPLIT


def test_without_cases_the_counts_must_be_declared(small: Small, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="what these weights were trained on"):
        took(small, saved(tmp_path / "mine.safetensors"), None)


def test_the_same_weights_again_change_nothing_and_others_are_a_new_edition(
    small: Small, tmp_path: Path
) -> None:
    site = small.sites["hospital-a"]
    first = took(small, saved(tmp_path / "mine.safetensors", 1))
    before = snapshot(site)
    again = took(small, saved(tmp_path / "again.safetensors", 1))
    assert again.already
    assert again.update == first.update
    assert snapshot(site) == before
    second = took(small, saved(tmp_path / "mine.safetensors", 2))
    assert second.update.manifest.edition == 2
    assert not first.update.path.exists() or first.update.path == second.update.path
    known = small.known
    assert rounds.update_path(site, known, 1, site.name) == second.update.path


def test_what_is_signed_stays(small: Small, tmp_path: Path) -> None:
    first = took(small, saved(tmp_path / "mine.safetensors", 1))
    sign(first.update.path, small.sites["hospital-a"])
    with pytest.raises(ConflictError, match="signed already"):
        took(small, saved(tmp_path / "mine.safetensors", 2))
    assert took(small, saved(tmp_path / "mine.safetensors", 1)).already


def test_the_weights_that_stay_local_may_be_there_or_not(small: Small, tmp_path: Path) -> None:
    bare = {"norm.running_mean": None, "norm.num_batches_tracked": None}
    update = took(small, saved(tmp_path / "mine.safetensors", 3, **bare)).update
    table = small.known.table
    found = weights.read_tensors(update.path, table)
    assert all(np.array_equal(found[name], a_state(3)[name]) for name in table)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"conv.bias": None}, "missing"),
        ({"other": np.zeros(2, np.float32)}, "doesn't have"),
        ({"conv.bias": np.zeros(5, np.float32)}, "not the plan's"),
        ({"conv.bias": np.zeros(4, np.float16)}, "not the plan's"),
        ({"conv.bias": np.full(4, np.nan, np.float32)}, "NaN"),
        ({"conv.weight": np.full((4, 1, 3, 3), np.inf, np.float32)}, "NaN or infinity"),
    ],
)
def test_other_weights_are_refused_and_nothing_is_written(
    small: Small, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    site = small.sites["hospital-a"]
    before = snapshot(site)
    with pytest.raises(TensorsError, match=reason):
        took(small, saved(tmp_path / "mine.safetensors", **changes))
    assert snapshot(site) == before
    assert leftovers(site.root) == []


def test_a_pickle_is_never_opened(small: Small, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    new, old = tmp_path / "new.pth", tmp_path / "old.pth"
    torch.save({"a": torch.zeros(1)}, new)
    old.write_bytes(pickle.dumps({"a": 1}))
    for path in (new, old):
        with pytest.raises(UsageError, match="pickle") as caught:
            took(small, path)
        assert "save_file" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x10\x00\x00\x00\x00\x00\x00\x00{}",
        b"\x02\x00\x00\x00\x00\x00\x00\x00[]",
        (40).to_bytes(8, "little") + b'{"a":{"dtype":"F32"},"a":{"dtype":"F32"}}'[:40],
        b"\xff" * 100,
    ],
)
def test_what_is_no_safetensors_file_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(data)
    with pytest.raises(BrainfedError):
        read_header(path)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    entry = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    header = b"{" + entry + b"," + entry + b"}"
    path = tmp_path / "mine.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(MalformedError, match="safetensors"):
        read_header(path)


def test_a_name_that_no_plan_can_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    for name in ('a"b', "a b", "x" * 201, "a\nb"):
        save_file({name: np.zeros(1, np.float32)}, path)
        with pytest.raises(TensorsError, match="can't hold"):
            network_of(path)
    with pytest.raises(UsageError, match="can't be read"):
        network_of(tmp_path / "missing.safetensors")


def test_a_pattern_without_a_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="such a name"):
        network_of(saved(tmp_path / "mine.safetensors"), ["nrom.*"])


def test_a_file_that_has_nothing_to_average_makes_no_plan(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file({"steps": np.array(1, np.int64)}, path)
    with pytest.raises(TensorsError, match="No plan"):
        network_of(path)


def test_brainfed_neither_trains_nor_scores_it(small: Small, plan: Plan) -> None:
    site: Workspace = small.sites["hospital-a"]
    write_dataset(site.data, plan)
    with pytest.raises(PlanError, match="can't train it"):
        train_round(site)
    with pytest.raises(PlanError, match="can't evaluate it"):
        evaluate(site, today=TODAY)


def test_weights_of_their_own_are_refused_where_brainfed_trains(tmp_path: Path) -> None:
    small = a_federation(tmp_path / "federation")
    with pytest.raises(PlanError, match="trained by brainfed"):
        took(small, saved(tmp_path / "mine.safetensors"))


def test_a_coordinator_has_no_update(small: Small, tmp_path: Path) -> None:
    with pytest.raises(WrongRoleError):
        take_update(small.coordinator, saved(tmp_path / "mine.safetensors"), COUNTS)
