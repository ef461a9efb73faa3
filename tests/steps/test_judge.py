"""What a party makes of files that are rightly signed, and yet not right."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from brainfed.errors import (
    BrainfedError,
    ConflictError,
    MalformedError,
    StrangerError,
    WrongFederationError,
    WrongRoundError,
)
from brainfed.formats import document, federation, rounds, signature, weights, workspace
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.document import Belonging, PlanVersion
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.manifest import Manifest
from brainfed.formats.roster import Roster
from brainfed.formats.workspace import Workspace
from brainfed.steps.admit import admit, revoke
from brainfed.steps.aggregate import aggregate
from brainfed.steps.exchange import export
from brainfed.steps.rotate import rotate
from brainfed.steps.verdict import Verdict
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    a_waiting_federation,
    carry,
    close_round,
    enrolment_of,
    random_weights,
    say_yes,
    sign,
    take,
    train,
)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def bring(small: Small, to: Workspace, content: Belonging | Roster, signer: Any) -> Any:
    """Bring a document, signed by a workspace or a key, to a party; gives what became of it."""
    path = small.medium("brought") / "brought.json"
    path.unlink(missing_ok=True)
    path.write_bytes(content.dumps())
    (file,) = take(to, sign(path, signer)).files
    return file


def global_again(small: Small, round_number: int, signer: Any, **changes: Any) -> BrainfedError:
    """Other global weights of a round, brought to hospital-a."""
    site = small.sites["hospital-a"]
    path = rounds.global_path(small.coordinator, 1)
    assert path is not None
    manifest = weights.read_manifest(path).model_dump() | {"round": round_number} | changes
    forged = small.medium("forged") / "g.safetensors"
    forged.unlink(missing_ok=True)
    weights.write(
        forged, Manifest.model_validate(manifest), random_weights(small.known.first_plan, 5)
    )
    (file,) = take(site, sign(forged, signer)).files
    assert file.error is not None
    return file.error


def test_a_replaced_coordinator_key_can_not_close_a_round_again(small: Small) -> None:
    close_round(small)
    stolen = small.coordinator.private_key()
    rotate(small.coordinator)
    lead = workspace.find(small.coordinator.root)
    carry(lead, small.sites["hospital-a"], small.medium("rotated"))
    assert isinstance(global_again(small, 1, stolen, edition=2), StrangerError)


def test_global_weights_of_a_round_beyond_the_plan_are_refused(small: Small) -> None:
    close_round(small)
    assert isinstance(global_again(small, 3, small.coordinator), WrongRoundError)


def next_roster(small: Small, **changes: Any) -> Roster:
    old = small.known.roster
    fields = {"version": 2, "previous": old.digest, "federation": small.known.digest}
    return old.model_copy(update=fields | changes)


def test_a_roster_that_skips_versions_is_refused(small: Small) -> None:
    site = small.sites["hospital-a"]
    file = bring(small, site, next_roster(small, version=9999), small.coordinator)
    assert isinstance(file.error, WrongRoundError)
    assert federation.load(site).roster.version == 1


def test_another_roster_of_an_older_version_is_an_alarm(small: Small) -> None:
    site = small.sites["hospital-a"]
    for _ in range(2):
        revoke(small.coordinator, "hospital-b")
        rotate(small.coordinator)
        small = Small(small.root, workspace.find(small.coordinator.root), small.sites)
    carry(small.coordinator, site, small.medium("rosters"))
    old = document.read(federation.roster_path(small.coordinator, 2), Roster)
    forged = old.model_copy(update={"previous": "0" * 64})
    file = bring(small, site, forged, small.coordinator)
    assert isinstance(file.error, ConflictError)
    assert "two stories" in file.error.message


def test_no_count_of_one_site_can_keep_a_round_from_closing(small: Small) -> None:
    site, other = small.sites.values()
    path = train(site, n_patients=2**29 - 1)
    stick = small.medium("absurd")
    shutil.copy(path, stick / "u.safetensors")
    (file,) = take(small.coordinator, sign(stick / "u.safetensors", site)).files
    assert isinstance(file.error, MalformedError)
    assert "hospital-a" in str(file.error.hint)
    largest = (2**29 - 1) // 2
    path.unlink()
    train(site, n_patients=largest)
    train(other, n_patients=largest)
    for place in (site, other):
        assert not carry(place, small.coordinator, small.medium(place.name)).refused
    assert aggregate(small.coordinator, today=TODAY).round == 1


def a_record_for(small: Small, **own: Any) -> Any:
    """The record of round 1 with another entry of hospital-a, or none, brought to hospital-a."""
    done = aggregate(small.coordinator, today=TODAY)
    record, _ = rounds.verify_record(done.record, small.known)
    entries = [e for e in record.inputs if e.sender != "hospital-a"]
    if own:
        mine = next(e for e in record.inputs if e.sender == "hospital-a")
        entries.append(mine.model_copy(update=own))
    inputs = tuple(sorted(entries, key=lambda entry: entry.sender))
    changed = record.model_copy(update={"inputs": inputs})
    return bring(small, small.sites["hospital-a"], changed, small.coordinator)


def test_a_record_that_leaves_a_site_out_without_a_word_is_an_alarm(tmp_path: Path) -> None:
    file = a_record_for(a_waiting_federation(tmp_path))
    assert isinstance(file.error, ConflictError)
    assert "without a word" in file.error.message


def test_a_record_that_weighs_a_sites_update_otherwise_is_an_alarm(tmp_path: Path) -> None:
    file = a_record_for(a_waiting_federation(tmp_path), weight=1)
    assert isinstance(file.error, ConflictError)
    assert "another weight" in file.error.message


def test_a_second_acceptance_that_names_another_plan_is_found_out(small: Small) -> None:
    site = small.sites["hospital-a"]
    export(site, None)
    carry(site, small.coordinator, small.medium("first"))
    path = federation.acceptance_path(site, site.name, 1)
    content = document.read(path, Acceptance)
    again = content.model_copy(update={"day": "2026-03-02"})
    assert bring(small, small.coordinator, again, site).verdict is Verdict.ALREADY
    other = content.model_copy(update={"plan": PlanVersion(version=1, digest="0" * 64)})
    file = bring(small, small.coordinator, other, site)
    assert isinstance(file.error, WrongFederationError)


LOW_ORDER = "age1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq5cu47z"
"""Thirty-two zero bytes in bech32: a well-formed recipient for which nothing can be encrypted."""


@pytest.mark.parametrize("recipient", ["age1" + "q" * 58, LOW_ORDER])
def test_a_recipient_for_which_nothing_can_be_encrypted_is_not_admitted(
    tmp_path: Path, recipient: str
) -> None:
    pytest.importorskip("pyrage")
    small = a_federation(tmp_path)
    site = small.sites["hospital-a"]
    rotate(site)
    site = workspace.find(site.root)
    path = enrolment_of(site)
    content = document.read(path, Enrolment).model_copy(update={"recipient": recipient})
    path.write_bytes(content.dumps())
    before = small.known.roster
    with pytest.raises(MalformedError, match="The age recipient is none"):
        admit(small.coordinator, [sign(path, site)], confirm=say_yes)
    assert small.known.roster == before
    assert signature.signature_path(path).exists()
