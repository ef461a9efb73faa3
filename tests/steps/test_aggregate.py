import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from brainfed.errors import (
    FileRefusedError,
    MalformedError,
    QuorumError,
    SignatureError,
    WrongRoleError,
    WrongRoundError,
)
from brainfed.formats import ledger, rounds, signature, weights
from brainfed.formats.manifest import Score
from brainfed.formats.record import InputStatus
from brainfed.steps import stretches as module
from brainfed.steps.aggregate import aggregate
from brainfed.steps.exchange import export
from tests import attacks
from tests.builders import a_plan
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_waiting_federation,
    carry,
    close_round,
    copy_of,
    leftovers,
    sign,
    snapshot,
    take,
    train,
)

THREE = ("hospital-a", "hospital-b", "hospital-c")


@pytest.fixture(scope="module")
def waiting_once(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return a_waiting_federation(tmp_path_factory.mktemp("waiting"), sites=THREE)


@pytest.fixture
def waiting(waiting_once: Small, tmp_path: Path) -> Small:
    """Three updates at the coordinator, ready to be averaged."""
    return copy_of(waiting_once, tmp_path)


def audit(record_path: Path, files: list[Path]) -> None:
    """Compute the global weights again: safetensors, numpy, hashlib, json; none of our code."""
    record = json.loads(record_path.read_bytes())
    by_digest = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in files}
    inputs = [entry for entry in record["inputs"] if entry["status"] == "included"]
    assert [entry["sender"] for entry in inputs] == sorted(entry["sender"] for entry in inputs)
    updates = [safetensors.numpy.load_file(by_digest[entry["digest"]]) for entry in inputs]
    total = sum(entry["weight"] for entry in inputs)
    result = safetensors.numpy.load_file(by_digest[record["global_digest"]])
    assert set(result) == set(updates[0])
    for name, values in result.items():
        mean = None
        for entry, update in zip(inputs, updates, strict=True):
            product = update[name].astype(np.float64) * entry["weight"]
            mean = product if mean is None else mean + product
        expected = (mean / total).astype(np.float32)
        assert values.tobytes() == expected.tobytes(), name


def files_of(small: Small) -> list[Path]:
    return list(small.coordinator.rounds.rglob("*.safetensors"))


def test_twenty_lines_of_numpy_come_to_the_same_bits(waiting: Small) -> None:
    done = aggregate(waiting.coordinator, today=TODAY)
    audit(done.record, files_of(waiting))


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_the_bits_do_not_depend_on_the_size_of_the_blocks(
    waiting: Small, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    if block == 1:  # as many blocks as values: only a few of them
        waiting = a_waiting_federation(
            waiting.root / "tiny",
            plan=a_plan(network={"channels": (1, 1)}, participation={"quorum_sites": 1}),
        )
    monkeypatch.setattr(module, "n_in_a_stretch", lambda *_: block)
    done = aggregate(waiting.coordinator, today=TODAY)
    audit(done.record, files_of(waiting))


def test_the_weights_are_those_that_the_plan_names(tmp_path: Path) -> None:
    for by in ("patients", "cases", "slices"):
        small = a_federation(tmp_path / by, plan=a_plan(aggregation={"weights": by}))
        for number, site in enumerate(small.sites.values(), start=1):
            train(site, n_patients=number, n_cases=10 * number, n_slices=100 * number)
            carry(site, small.coordinator, small.medium(site.name))
        done = aggregate(small.coordinator, today=TODAY)
        factor = {"patients": 1, "cases": 10, "slices": 100}[by]
        assert [part.weight for part in done.parts] == [factor, 2 * factor]
        assert [part.share for part in done.parts] == [1 / 3, 2 / 3]
        audit(done.record, files_of(small))


def test_the_order_of_arrival_changes_no_byte_of_any_file(tmp_path: Path) -> None:
    small = a_federation(tmp_path / "start", THREE)
    for site in small.sites.values():
        train(site)
        export(site, small.medium(site.name))
    results = set()
    for order in itertools.permutations(THREE):
        place = copy_of(small, tmp_path / "-".join(order)).coordinator
        for name in order:
            take(place, small.medium(name))
        done = aggregate(place, today=TODAY)
        results.add((done.digest, done.record.read_bytes()))
    assert len(results) == 1


def test_the_sum_is_in_name_order_where_the_order_shows(tmp_path: Path) -> None:
    """1e30 + 1 - 1e30 is 0 or 1, by the order; only name order gives these three means."""
    small = a_federation(tmp_path, THREE)
    values = {
        "hospital-a": (1e30, 1, 1e30),
        "hospital-b": (1, 1e30, -1e30),
        "hospital-c": (-1e30, -1e30, 1),
    }
    for name in reversed(THREE):
        path = train(small.sites[name], n_patients=1)
        for index, value in enumerate(values[name]):
            attacks.put_value(path, index, value)
        carry(small.sites[name], small.coordinator, small.medium(name))
    done = aggregate(small.coordinator, today=TODAY)
    mean = np.frombuffer(attacks.header_and_body(done.path)[1], "<f4")[:3]
    assert mean.tolist() == [0, 0, np.float32(1 / 3)]


def test_equal_updates_give_themselves(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    for site in small.sites.values():
        path = train(site)
        _, body = attacks.header_and_body(path)
        if site.name == "hospital-a":
            same = body
        text, _ = attacks.header_and_body(path)
        attacks.put_header(path, text, same)
        carry(site, small.coordinator, small.medium(site.name))
    done = aggregate(small.coordinator, today=TODAY)
    assert attacks.header_and_body(done.path)[1] == same


def test_the_record_names_every_input_its_digest_and_its_weight(waiting: Small) -> None:
    parent = rounds.newest_global(waiting.coordinator, waiting.known)
    done = aggregate(waiting.coordinator, today=TODAY)
    record, _ = rounds.verify_record(done.record, waiting.known)
    assert [entry.sender for entry in record.inputs] == list(THREE)
    for entry, path in zip(record.inputs, rounds.update_paths(waiting.coordinator, 1), strict=True):
        assert entry.digest == signature.digest_of(path).hex()
        assert entry.weight == weights.read_manifest(path).n_patients
        assert entry.status is InputStatus.INCLUDED
    assert record.parent == parent.digest
    assert record.global_digest == done.digest == signature.digest_of(done.path).hex()
    assert (record.round, record.edition, record.supersedes) == (1, 1, None)
    assert record.day == "2026-03-01"


def test_the_new_global_weights_are_signed_and_name_their_parent(waiting: Small) -> None:
    parent = rounds.newest_global(waiting.coordinator, waiting.known)
    aggregate(waiting.coordinator, today=TODAY)
    newest = rounds.newest_global(waiting.coordinator, waiting.known)
    assert (newest.manifest.round, newest.manifest.parent) == (1, parent.digest)
    assert newest.manifest.n_patients is None
    assert set(newest.manifest.versions) == {"brainfed", "numpy"}
    last = ledger.read(waiting.coordinator.ledger_path)[-1]
    assert (last["event"], last["digest"]) == ("made", newest.digest)


def test_each_part_tells_the_norm_of_the_change(waiting: Small) -> None:
    parent = rounds.newest_global(waiting.coordinator, waiting.known)
    before = np.frombuffer(attacks.header_and_body(parent.path)[1], "<f4").astype(np.float64)
    done = aggregate(waiting.coordinator, today=TODAY)
    for part, path in zip(done.parts, rounds.update_paths(waiting.coordinator, 1), strict=True):
        after = np.frombuffer(attacks.header_and_body(path)[1], "<f4")
        assert part.change_norm == pytest.approx(np.linalg.norm(after - before), rel=1e-12)


def test_each_part_tells_the_dice_that_its_site_reports(tmp_path: Path) -> None:
    def score(of: str, mean: int | None, **changes: object) -> Score:
        fields = {
            "weights": of, "subset": "validation", "measure": "dice", "region": "WT",
            "n": 5 if mean is not None else "fewer than 5", "mean": mean, "sd": None,
        }  # fmt: skip
        return Score.model_validate(fields | changes)

    small = a_federation(tmp_path)
    scores = {
        "hospital-a": (
            score("incoming", 1, measure="soft-slice-dice"),
            score("incoming", 500_000),
            score("result", 2, region="TC"),
            score("result", 750_000),
        ),
        "hospital-b": (score("incoming", None), score("result", None)),
    }
    for name, site in small.sites.items():
        train(site, scores=scores[name])
        carry(site, small.coordinator, small.medium(name))
    first, second = aggregate(small.coordinator, today=TODAY).parts
    assert (first.dice_before, first.dice_after) == (0.5, 0.75)
    assert (second.dice_before, second.dice_after) == (None, None)


# --- who must be there -------------------------------------------------------------------------


def test_too_few_updates_close_nothing(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    train(small.sites["hospital-a"])
    carry(small.sites["hospital-a"], small.coordinator, small.medium())
    before = snapshot(small.coordinator)
    with pytest.raises(QuorumError) as caught:
        aggregate(small.coordinator, today=TODAY)
    assert caught.value.exit_code == 7
    assert "at least 2" in str(caught.value.expected)
    assert snapshot(small.coordinator) == before


def test_an_update_without_its_signature_does_not_count_to_the_quorum(tmp_path: Path) -> None:
    small = a_waiting_federation(tmp_path)
    signature.signature_path(rounds.update_paths(small.coordinator, 1)[0]).unlink()
    with pytest.raises(QuorumError):
        aggregate(small.coordinator, today=TODAY)


def test_a_closed_round_is_not_closed_again(waiting: Small) -> None:
    aggregate(waiting.coordinator, today=TODAY)
    before = snapshot(waiting.coordinator)
    with pytest.raises(QuorumError) as caught:
        aggregate(waiting.coordinator, today=TODAY)
    assert "round 1 is closed" in str(caught.value.found)
    assert snapshot(waiting.coordinator) == before


def test_a_site_that_sent_nothing_is_recorded_as_absent(tmp_path: Path) -> None:
    small = a_federation(tmp_path, THREE)
    for name in ("hospital-c", "hospital-a"):
        train(small.sites[name])
        carry(small.sites[name], small.coordinator, small.medium(name))
    done = aggregate(small.coordinator, today=TODAY)
    record, _ = rounds.verify_record(done.record, small.known)
    assert [(entry.sender, entry.status.value) for entry in record.inputs] == [
        ("hospital-a", "included"),
        ("hospital-b", "absent"),
        ("hospital-c", "included"),
    ]
    absent = done.parts[1]
    assert (absent.weight, absent.share, absent.n_patients, absent.change_norm) == (
        0,
        0,
        None,
        None,
    )
    audit(done.record, files_of(small))


def test_only_the_coordinator_aggregates(waiting: Small) -> None:
    with pytest.raises(WrongRoleError):
        aggregate(waiting.sites["hospital-a"], today=TODAY)


def test_counts_that_can_not_be_averaged_exactly_are_refused(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    for site in small.sites.values():
        # Import refuses such a count; these were put there by hand.
        path = sign(train(site, n_patients=2**28), site)
        folder = small.coordinator.round_folder(1)
        folder.mkdir(exist_ok=True)
        for file in (path, signature.signature_path(path)):
            shutil.copy(file, folder)
    before = snapshot(small.coordinator)
    with pytest.raises(MalformedError, match="exactly"):
        aggregate(small.coordinator, today=TODAY)
    assert snapshot(small.coordinator) == before


# --- what was damaged or killed ----------------------------------------------------------------


def put_stranger(path: Path, small: Small) -> None:
    """An update of another parent, put into the folder by hand."""
    site = small.sites["hospital-a"]
    path.unlink()
    sign(train(site, parent="0" * 64, edition=9).rename(path), site)


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda path, small: attacks.put_value(path, 0, 9.0), SignatureError),
        (lambda path, small: attacks.truncate(path), MalformedError),
        (lambda path, small: sign(path, small.sites["hospital-b"]), FileRefusedError),
        (put_stranger, WrongRoundError),
    ],
)
def test_an_update_that_was_changed_after_its_import_closes_nothing(
    waiting: Small, damage: Callable[[Path, Small], object], error: type[FileRefusedError]
) -> None:
    damage(rounds.update_paths(waiting.coordinator, 1)[0], waiting)
    before = snapshot(waiting.coordinator)
    with pytest.raises(error):
        aggregate(waiting.coordinator, today=TODAY)
    assert snapshot(waiting.coordinator) == before
    assert leftovers(waiting.coordinator.root) == []


def test_a_killed_aggregation_is_made_again_even_after_one_more_update_came(
    tmp_path: Path,
) -> None:
    small = a_federation(tmp_path, THREE)
    for name in THREE[:2]:
        train(small.sites[name])
        carry(small.sites[name], small.coordinator, small.medium(name))
    first = aggregate(small.coordinator, today=TODAY)
    signature.signature_path(first.path).unlink()  # as if killed before the last signature
    train(small.sites[THREE[2]])
    carry(small.sites[THREE[2]], small.coordinator, small.medium(THREE[2]))
    second = aggregate(small.coordinator, today=TODAY)
    assert second.round == 1
    assert second.digest != first.digest
    assert len(rounds.records(small.coordinator, 1)) == 1
    audit(second.record, files_of(small))


def test_rounds_follow_each_other(tmp_path: Path) -> None:
    small = a_federation(tmp_path)
    first, second = close_round(small), close_round(small)
    assert (first.round, second.round) == (1, 2)
    record, _ = rounds.verify_record(second.record, small.known)
    assert record.parent == first.digest
    audit(second.record, files_of(small))


def test_a_missing_global_is_no_parent(tmp_path: Path) -> None:
    small = a_waiting_federation(tmp_path)
    path = rounds.global_path(small.coordinator, 0)
    assert path is not None
    attacks.put_value(path, 0, 1.0)
    with pytest.raises(SignatureError):
        aggregate(small.coordinator, today=TODAY)
