"""The release: what the page says is what leaves, and accidents are found before they do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainfed.errors import NotReadyError, TensorsError, WrongRoleError
from brainfed.formats import (
    dataset,
    document,
    federation,
    identities,
    rounds,
    signature,
    weights,
    workspace,
)
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.document import Document
from brainfed.formats.erasure import Erasure, ErasureReason
from brainfed.formats.manifest import Manifest
from brainfed.formats.release import Check, Release, Result
from brainfed.formats.scores import Scores
from brainfed.steps import outgoing, release_facts
from brainfed.steps.exchange import export
from brainfed.steps.purge import purge
from brainfed.steps.release import Released, release
from brainfed.steps.release_facts import WHY
from brainfed.steps.rotate import rotate
from brainfed.steps.train import train_round
from tests.approving import DAY, an_approving_federation, let_go, ready
from tests.builders import a_plan, write_dataset
from tests.federation import Small, a_federation, carry, close_round, mode_of, train
from tests.steps.joined import a_joined_site, a_quick_plan


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path)


def released(small: Small, **changes: Any) -> Released:
    train(small.sites["hospital-a"], **changes)
    return release(small.sites["hospital-a"], today=DAY)


def names(done: Released) -> Check:
    return done.release.checks[-1]


def page_of(done: Released) -> str:
    return done.page.read_text("utf-8")


def test_the_first_sentence_names_patients_and_reader_and_stands_on_the_page(small: Small) -> None:
    done = released(small, n_patients=12)
    sentence = (
        "These weights, trained only on your 12 patients, will be readable by: uni-lead (the "
        "coordinator)."
    )
    assert done.release.sentence == sentence
    assert f'<p class="lead">{sentence}</p>' in page_of(done)


def test_one_patient_is_one_patient(small: Small) -> None:
    assert "your 1 patient, will" in released(small, n_patients=1).release.sentence


def test_the_coordinator_hands_global_weights_on_and_the_page_says_to_whom(small: Small) -> None:
    done = released(small)
    assert [(r.name, r.what) for r in done.release.readers] == [
        ("uni-lead", "update"),
        ("hospital-b", "global weights"),
    ]
    assert "hands on to every active site and evaluator, those that join later too: now " in (
        page_of(done)
    )


def test_in_a_relay_the_next_sites_are_named_by_turn(tmp_path: Path) -> None:
    plan = a_plan(method="ciil", seed=3)
    three = a_federation(tmp_path, ("hospital-a", "hospital-b", "hospital-c"), plan=plan)
    known = three.known
    for name in three.sites:
        others = release_facts.to_come(plan, known, name)
        assert sorted([name, *others]) == sorted(three.sites)
    told = release_facts.readers(three.sites["hospital-a"], known, 1)
    after = release_facts.to_come(plan, known, "hospital-a")
    assert tuple(r.name for r in told if r.role == "site") == after
    sentence = release_facts.first_sentence(5, told, after)
    assert sentence.endswith(f"{after[0]} (a next site), {after[1]} (a next site).")


def test_in_a_relay_of_one_tour_only_those_who_come_after_are_next(tmp_path: Path) -> None:
    training = {"patience": 2, "epochs_per_round": 3, "schedule": "constant"}
    plan = a_plan(method="iil", training=training)
    three = a_federation(tmp_path, ("hospital-a", "hospital-b", "hospital-c"), plan=plan)
    n_after = sorted(len(release_facts.to_come(plan, three.known, name)) for name in three.sites)
    assert n_after == [0, 1, 2]


def test_every_file_that_export_copies_is_named_with_its_size_and_digest(small: Small) -> None:
    done = released(small)
    stick = small.medium()
    export(small.sites["hospital-a"], stick)
    copied = {p.name: p for p in stick.iterdir() if p.suffix not in {".sig", ".txt"}}
    assert {f.name for f in done.release.files} == set(copied)
    for file in done.release.files:
        assert file.n_bytes == copied[file.name].stat().st_size
        assert file.digest == signature.digest_of(copied[file.name]).hex()
        assert file.digest in page_of(done)
        assert file.encrypted_for == ()


def test_where_the_file_is_encrypted_the_page_says_for_whom(tmp_path: Path) -> None:
    pytest.importorskip("pyrage")
    small = a_federation(tmp_path, plan=a_plan(exchange={"encryption": "required"}))
    done = released(small)
    update = done.release.files[-1]
    assert update.encrypted_for == ("uni-lead",)
    assert "encrypted for uni-lead: who finds the medium" in page_of(done)


def test_tensors_have_their_norms_and_their_share_of_the_change(small: Small) -> None:
    done = released(small)
    site = small.sites["hospital-a"]
    known = federation.load(site)
    path = rounds.update_path(site, known, 1, site.name)
    parent = rounds.newest_global(site, known).path
    assert path is not None
    new, old = (weights.read_tensors(p, known.table) for p in (path, parent))
    whole = sum(float(np.sum((new[n] - old[n]).astype(np.float64) ** 2)) for n in new)
    assert [tensor.name for tensor in done.release.tensors] == sorted(known.table)
    for tensor in done.release.tensors:
        change = (new[tensor.name] - old[tensor.name]).astype(np.float64)
        assert tensor.shape == new[tensor.name].shape
        assert tensor.n_bytes == new[tensor.name].nbytes
        assert tensor.norm / 1e6 == pytest.approx(np.linalg.norm(new[tensor.name]), rel=1e-4)
        assert tensor.share / 1e6 == pytest.approx(np.sum(change**2) / whole, rel=1e-3, abs=1e-6)
        assert tensor.name in page_of(done)
    assert done.release.change / 1e6 == pytest.approx(whole**0.5, rel=1e-4)
    assert sum(tensor.share for tensor in done.release.tensors) == pytest.approx(1e6, abs=20)


SCORE = {
    "weights": "result",
    "subset": "validation",
    "measure": "dice",
    "region": "WT",
    "n": 5,
    "mean": 810_000,
    "sd": 100_000,
}


def test_numbers_are_held_against_the_floor(tmp_path: Path) -> None:
    small = a_federation(tmp_path, plan=a_plan(participation={"floor": 5}))
    done = released(small, n_patients=4, scores=[SCORE])
    told = {one.field: one for one in done.release.numbers}
    assert told["n_patients"].floor.startswith("BELOW the floor of 5")
    assert told["result validation dice WT"].floor == "stands for 5 patients, the floor is 5"
    assert done.release.checks[-2].result is Result.PASSED


def test_a_figure_below_the_floor_is_found(tmp_path: Path) -> None:
    small = a_federation(tmp_path, plan=a_plan(participation={"floor": 6}))
    done = released(small, scores=[SCORE])
    assert done.release.checks[-2].result is Result.FOUND
    assert "Look at this first: No figure stands for fewer patients" in page_of(done)


@pytest.mark.parametrize("kind", [Acceptance, Erasure, Manifest, Scores])
def test_every_number_of_the_formats_has_its_reason(kind: type[Document]) -> None:
    schema = kind.model_json_schema()
    of_groups = {"Score", "Figure"}
    tables = [schema, *(t for n, t in schema.get("$defs", {}).items() if n not in of_groups)]
    for table in tables:
        for name, field in table.get("properties", {}).items():
            kinds = {field.get("type"), *(part.get("type") for part in field.get("anyOf", ()))}
            assert "integer" not in kinds or name in WHY, name
            assert not isinstance(field.get("const"), int) or name in WHY, name


def write_names(small: Small, patient: str, visit: str = "1") -> None:
    site = small.sites["hospital-a"]
    site.data.mkdir()
    key = bytes(32)
    known = identities.Identities(key, {"0" * 16: patient}, {"1" * 16: patient}, {"0" * 16: visit})
    identities.write(site.data, known)


def test_a_patients_name_among_the_numbers_is_found_whatever_its_case(small: Small) -> None:
    site = small.sites["hospital-a"]
    write_names(small, "Mueller-Hans")
    path = train(site)
    data = bytearray(path.read_bytes())
    data[-40:-28] = b"mUELLER-hANS"
    path.write_bytes(data)
    done = release(site, today=DAY)
    assert names(done).result is Result.FOUND
    told = f"in the numbers of {path.name}, byte {len(data) - 40}"
    assert told in names(done).details
    assert "mueller" not in page_of(done).lower()  # what was found isn't spread further
    assert "Look at this first" in page_of(done)


def test_a_name_in_signed_json_is_found(small: Small) -> None:
    licence = small.known.first_plan.terms.weights_licence
    write_names(small, licence.upper())
    done = released(small)
    assert names(done).result is Result.FOUND
    assert "in the text of" in names(done).details


def test_honest_files_pass_and_what_cant_be_searched_is_said(small: Small) -> None:
    write_names(small, "Mueller-Hans", visit="12")
    done = released(small)
    assert names(done).result is Result.PASSED
    assert "have fewer than 4 characters and can't be searched for" in names(done).details
    assert "finds accidents, not intent" in names(done).details


def test_the_sites_own_name_is_no_find(small: Small) -> None:
    write_names(small, "hospital-a")
    done = released(small)
    assert names(done).result is Result.PASSED
    assert "of them every such file has" in names(done).details


def test_weights_that_are_not_the_plans_are_refused(small: Small) -> None:
    site = small.sites["hospital-a"]
    path = train(site)
    data = bytearray(path.read_bytes())
    data[-4:] = np.array([np.nan], "<f4").tobytes()
    path.write_bytes(data)
    with pytest.raises(TensorsError, match="NaN"):
        release(site, today=DAY)
    assert not list(site.round_folder(1).glob("*.release.*"))


def test_the_signed_json_says_what_the_page_says_in_integers(small: Small) -> None:
    done = released(small)
    site = small.sites["hospital-a"]
    signed = signature.verify_file(done.path)
    assert signed.key == site.public_key()
    assert document.read(done.path, Release) == done.release
    assert done.release.page == signature.digest_of(done.page).hex()
    assert done.release.update in page_of(done)
    assert not any(isinstance(v, float) for v in _leaves(json.loads(done.path.read_bytes())))
    assert (mode_of(done.path), mode_of(done.page)) == (0o600, 0o600)


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return [leaf for one in inner for leaf in _leaves(one)]
    return [value]


def test_it_is_made_anew_only_if_something_changed(small: Small) -> None:
    site = small.sites["hospital-a"]
    first = released(small)
    assert release(site, today=DAY).already
    update = rounds.update_path(site, small.known, 1, site.name)
    assert update is not None
    update.unlink()
    second = released(small, n_patients=3)
    assert not second.already
    assert second.release.n_patients == 3
    assert second.release.update != first.release.update
    second.page.write_text("edited")
    assert not release(site, today=DAY).already


def test_once_approved_the_page_stays_the_one_that_was_read(tmp_path: Path) -> None:
    small = an_approving_federation(tmp_path)
    done = ready(small)
    site = small.sites["hospital-a"]
    again = release(site, today=DAY)
    assert again.already
    assert again.approval == done.path
    assert again.needs_approval
    assert let_go(small).already


def test_it_never_leaves(small: Small) -> None:
    released(small)
    site = small.sites["hospital-a"]
    carry(site, small.coordinator, small.medium())
    there = [
        p.name
        for root in (small.medium(), small.coordinator.root, site.outbox)
        for p in root.rglob("*.release.*")
    ]
    assert not there
    assert not any("release" in f.name for f in outgoing.due(site, small.known))


def test_a_key_in_a_token_leaves_the_json_unsigned_and_the_page_counts(small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    outside = replace(site, key=f"{site.key}.pub")
    done = release(outside, today=DAY)
    assert not done.is_signed
    assert release(outside, today=DAY).already
    assert page_of(done)


def test_a_purge_erases_it(small: Small) -> None:
    site = small.sites["hospital-a"]
    write_dataset(site.data, small.known.first_plan, n_train=3, n_validation=2)
    done = released(small)
    purge(site, reason=ErasureReason.ENDED, today=DAY)
    assert not done.page.exists()
    assert not done.path.exists()


def test_in_the_next_round_it_is_of_the_next_update(small: Small) -> None:
    close_round(small)
    done = released(small)
    assert (done.release.round, done.path.parent.name) == (2, "r0002")


def test_without_an_update_or_at_another_party_there_is_nothing_to_release(small: Small) -> None:
    with pytest.raises(NotReadyError, match="no update to release"):
        release(small.sites["hospital-a"], today=DAY)
    with pytest.raises(WrongRoleError):
        release(small.coordinator, today=DAY)


def test_a_key_that_the_roster_does_not_name_yet_lets_nothing_leave(small: Small) -> None:
    site = small.sites["hospital-a"]
    train(site)
    rotate(site)
    with pytest.raises(NotReadyError, match="another key") as caught:
        release(workspace.find(site.root))
    assert "brainfed admit" in str(caught.value.hint)


def test_without_cases_the_membership_test_says_that_it_cant_be_measured(small: Small) -> None:
    told = released(small).release.membership
    assert told.words == "Can't be measured: this workspace has no cases or no split."
    assert not told.attacks


def test_an_external_network_cant_be_measured(tmp_path: Path) -> None:
    tensors = ["head.bias F32 3", "head.weight F32 3 4"]
    network = {"architecture": "external", "channels": (4, 8), "tensors": tuple(tensors)}
    small = a_federation(tmp_path, plan=a_plan(network=network))
    done = released(small)
    assert done.release.membership.words == "Can't be measured: brainfed doesn't run this network."


def test_losses_are_measured_for_the_update_and_its_parent(small: Small) -> None:
    site = small.sites["hospital-a"]
    write_dataset(site.data, small.known.first_plan, n_train=11, n_validation=10, n_slices=2)
    done = released(small, split=dataset.split_digest(site.data))
    told = done.release.membership
    assert (told.n_train, told.n_validation) == (11, 10)
    assert [attack.weights for attack in told.attacks] == ["update", "parent"]
    for attack in told.attacks:
        assert attack.low <= attack.auc <= attack.high
        assert attack.false_positives == 100_000
    assert "1 % false positives can't be resolved with 10 validation patients" in told.words
    assert "area under the curve" in page_of(done)
    assert names(done).result is Result.PASSED


@pytest.mark.slow
def test_training_moves_the_losses_of_a_real_site(tmp_path: Path) -> None:
    plan = a_quick_plan(training={"steps_per_round": 150, "rate": 0.01})
    site = a_joined_site(tmp_path, plan, n_train=12, n_validation=10)
    train_round(site, device="cpu", draws=False)
    done = release(site, device="cpu", today=DAY)
    update, parent = done.release.membership.attacks
    assert update != parent


def test_too_few_patients_cant_be_measured(small: Small) -> None:
    site = small.sites["hospital-a"]
    plan = small.known.first_plan
    write_dataset(site.data, plan, n_train=3, n_validation=2)
    split = dataset.split_digest(site.data)
    told = released(small, split=split).release.membership
    assert told.words.startswith("Can't be measured: n too small (3 training and 2 validation")


def test_cases_that_changed_since_training_are_not_measured(small: Small) -> None:
    site = small.sites["hospital-a"]
    write_dataset(site.data, small.known.first_plan, n_train=3, n_validation=2)
    told = released(small).release.membership
    assert "cases or split were changed since the update was trained" in told.words
