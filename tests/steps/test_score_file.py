"""What leaves of an evaluation: a file that may grow and never changes what was signed."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainfed.core.metrics import Measure
from brainfed.errors import ConflictError, ScanError, WrongRoleError
from brainfed.formats import (
    dataset,
    federation,
    identities,
    ledger,
    sent,
    signature,
    workspace,
)
from brainfed.formats.dataset import ExclusionReason, Subset
from brainfed.formats.manifest import Kind
from brainfed.formats.scores import Group
from brainfed.formats.workspace import Workspace
from brainfed.steps import erase
from brainfed.steps.exchange import export
from brainfed.steps.exclude import choose, exclude
from brainfed.steps.score_file import put_scores
from tests.builders import a_plan
from tests.faults import killed_everywhere
from tests.federation import (
    TODAY,
    Small,
    a_federation,
    close_round,
    mode_of,
    snapshot,
    train,
)
from tests.scored import global_of, patient, rows_of, score, scores_in, with_a_split
from tests.steps.patients import a_site_with_patients

FLOOR = 5


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path / "federation", plan=a_plan(participation={"floor": FLOOR}))


@pytest.fixture
def site(small: Small) -> Workspace:
    return with_a_split(small.sites["hospital-a"])


def closed(small: Small, n_rounds: int) -> None:
    """Rounds whose updates hold no scores, and were trained by a brainfed that remembers."""
    for site in small.sites.values():
        if site.data.exists() and not sent.path_of(site.data).exists():
            sent.write(site.data, sent.Sent(first_round=0, groups=()))
    for _ in range(n_rounds):
        close_round(small)


def test_the_file_names_its_weights_its_plan_and_its_split(small: Small, site: Workspace) -> None:
    path = score(site, rows_of(range(24)))
    content, known, weights = scores_in(path), small.known, global_of(site)
    assert path is not None
    assert path.parent == site.round_folder(0)
    assert path.name == f"{known.prefix}.r0000.hospital-a.scores.json"
    assert not signature.signature_path(path).exists()
    assert (content.weights, content.round, content.edition) == (weights.digest, 0, 1)
    assert (content.federation, content.plan) == (known.digest, known.plans[0].version)
    assert (content.sender, content.split) == (site.name, dataset.split_digest(site.data))
    assert (content.n_cases, content.day) == (24, TODAY.isoformat())
    last = ledger.read(site.ledger_path)[-1]
    assert (last["what"], last["digest"]) == ("scores", signature.digest_of(path).hex())


def test_it_states_every_measure_over_all_and_over_both_parts(site: Workspace) -> None:
    figures = scores_in(score(site, rows_of(range(24)))).figures
    assert {f.measure for f in figures} == {
        Measure.DICE,
        Measure.SOFT_SLICE_DICE,
        Measure.HD95_SURFACE,
    }
    by_place = {(f.group, f.measure): f for f in figures}
    assert {group: by_place[group, Measure.DICE].n for group in Group} == {
        Group.ALL: 24,
        Group.COMPLETE: 16,
        Group.INCOMPLETE: 8,
    }
    hd95 = by_place[Group.ALL, Measure.HD95_SURFACE]
    assert (hd95.mean, hd95.median) == (15_500_000, 15_500_000)


def test_below_the_floor_it_says_only_that(site: Workspace) -> None:
    content = scores_in(score(site, rows_of(range(4))))
    assert {(f.n, f.mean, f.sd) for f in content.figures} == {("fewer than 5", None, None)}
    assert content.n_cases is None
    assert sent.read(site.data) is None  # no figure left


def test_a_site_s_own_higher_floor_holds(site: Workspace) -> None:
    cautious = replace(site, floor=25)
    assert {f.n for f in scores_in(score(cautious, rows_of(range(24)))).figures} == {
        "fewer than 25"
    }


def test_another_subset_is_added_and_what_was_signed_stays(small: Small, site: Workspace) -> None:
    path = score(site, rows_of(range(10)))
    export(site, small.medium())
    first = scores_in(path)
    assert score(site, rows_of(range(10), shift=0.2)) == path
    assert scores_in(path) == first
    assert path is not None
    assert signature.signature_path(path).exists()
    assert score(site, rows_of(range(30, 38)), subset=Subset.VALIDATION) == path
    assert not signature.signature_path(path).exists()
    both = scores_in(path)
    assert both.keeps(first)
    assert {f.subset for f in both.figures} == {"test", "validation"}
    assert both.n_cases == 18
    export(site, small.medium())
    assert signature.verify_file(small.medium() / path.name).digest == (
        signature.digest_of(path).hex()
    )


def test_figures_that_nobody_signed_are_measured_again(site: Workspace) -> None:
    first = scores_in(score(site, rows_of(range(10))))
    again = scores_in(score(site, rows_of(range(10), shift=0.2)))
    assert again.figures != first.figures
    assert not again.keeps(first)
    assert again.n_cases == 10


def test_a_signature_by_hand_in_the_outbox_counts(small: Small, site: Workspace) -> None:
    path = score(site, rows_of(range(10)))
    export(site, None, unsigned=True)
    assert path is not None
    signature.sign_file(site.outbox / path.name, site.private_key())
    before = path.read_bytes()
    assert score(site, rows_of(range(10), shift=0.2)) == path
    assert path.read_bytes() == before


def test_scoring_again_changes_nothing(site: Workspace) -> None:
    score(site, rows_of(range(24)))
    before = snapshot(site)
    score(site, rows_of(range(24)))
    assert snapshot(site) == before


@pytest.mark.parametrize("others", [range(11), range(9), range(1, 11)], ids=str)
def test_a_few_other_patients_sit_out_a_round(small: Small, site: Workspace, others: range) -> None:
    closed(small, 2)
    assert score(site, rows_of(range(10))) is not None
    assert score(site, rows_of(others), number=1) is None
    assert score(site, rows_of(others), number=2) is not None
    assert score(site, rows_of(others), number=1) is None


def test_where_the_memory_is_gone_only_later_rounds_are_told(small: Small, site: Workspace) -> None:
    closed(small, 1)
    score(site, rows_of(range(10)), number=1)
    sent.path_of(site.data).unlink()
    close_round(small)
    assert score(site, rows_of(range(11)), number=0) is None  # its update of round 1 told of these
    assert score(site, rows_of(range(8)), number=1, subset=Subset.VALIDATION) is None
    assert score(site, rows_of(range(11)), number=2) is not None


def test_weights_that_are_not_global_are_not_told(site: Workspace) -> None:
    path, known = train(site), federation.load(site)
    own = SimpleNamespace(path=path, digest="0" * 64, manifest=SimpleNamespace(kind=Kind.UPDATE))
    assert put_scores(site, known, own, Subset.TEST, rows_of(range(9)), today=TODAY) is None  # type: ignore[arg-type]


def test_scores_of_other_weights_of_the_same_round_are_two_stories(site: Workspace) -> None:
    score(site, rows_of(range(9)))
    other = replace(global_of(site), digest="0" * 64)
    with pytest.raises(ConflictError, match="other global weights"):
        put_scores(site, federation.load(site), other, Subset.TEST, rows_of(range(9)), today=TODAY)


def test_a_coordinator_has_no_scores(small: Small, site: Workspace) -> None:
    with pytest.raises(WrongRoleError):
        put_scores(
            small.coordinator,
            small.known,
            global_of(site),
            Subset.TEST,
            rows_of(range(9)),
            today=TODAY,
        )


def test_a_damaged_memory_lets_nothing_leave(site: Workspace) -> None:
    score(site, rows_of(range(9)))
    sent.path_of(site.data).write_bytes(b"{}")
    before = snapshot(site)
    with pytest.raises(ScanError):
        score(site, rows_of(range(9)), subset=Subset.VALIDATION)
    assert snapshot(site) == before


def test_the_memory_holds_ids_alone_and_is_the_owner_s(site: Workspace) -> None:
    score(site, rows_of(range(9)))
    memory = sent.read(site.data)
    assert memory is not None
    assert memory.patients == set(map(patient, range(9)))
    assert mode_of(sent.path_of(site.data)) == 0o600


def test_killed_anywhere_a_growing_file_is_whole_or_signed_again_to_the_same_bytes(
    small: Small, site: Workspace, tmp_path: Path
) -> None:
    path = score(site, rows_of(range(10)))
    export(site, None)
    assert path is not None
    old, name = path.read_bytes(), path.relative_to(site.root)

    def grow(root: Path) -> None:
        score(workspace.find(root), rows_of(range(40, 50)), subset=Subset.VALIDATION)

    for _, root in killed_everywhere(site.root, tmp_path / "work", grow):
        there = (root / name).read_bytes()
        if there != old:
            assert not signature.signature_path(root / name).exists()
        grow(root)
        assert scores_in(root / name).keeps(scores_in(path))
        assert {f.subset for f in scores_in(root / name).figures} == {"test", "validation"}


def test_a_patient_who_withdraws_is_forgotten_and_unsigned_figures_go(site: Workspace) -> None:
    path = score(site, rows_of(range(10)))
    assert path is not None
    export(site, None, unsigned=True)
    erase.told(site, {patient(3)}, {patient(3)})
    assert not path.exists()
    assert not (site.outbox / path.name).exists()
    assert patient(3).encode() not in sent.path_of(site.data).read_bytes()
    left = [n for n in range(10) if n != 3]
    assert score(site, rows_of(left)) is None  # the difference would be the patient's


def test_a_signed_file_stays_when_a_patient_withdraws(small: Small, site: Workspace) -> None:
    path = score(site, rows_of(range(10)))
    export(site, small.medium())
    assert path is not None
    before = path.read_bytes()
    erase.told(site, {patient(3), None}, {patient(3), None})
    assert path.read_bytes() == before
    assert patient(3).encode() not in sent.path_of(site.data).read_bytes()


def test_the_erasure_of_a_patient_nobody_told_of_changes_nothing(site: Workspace) -> None:
    erase.told(site, {patient(3)}, {patient(3)})
    score(site, rows_of(range(10)))
    before = snapshot(site)
    erase.told(site, {patient(20)}, {patient(20)})
    assert snapshot(site) == before


def test_exclude_forgets_the_patient_and_the_rest_sits_out_a_round(small: Small) -> None:
    site = a_site_with_patients(small.sites["hospital-b"])
    known = identities.read(site.data)
    dora = known.patient_id("Dora Klein")
    others = rows_of(range(9))
    path = score(site, [*others, replace(rows_of([20])[0], patient=dora)])
    with workspace.locked(site):
        exclude(site, choose(site, "dora-2020", ExclusionReason.WITHDRAWN))
    memory = sent.read(site.data)
    assert memory is not None
    assert dora not in memory.patients
    assert path is not None
    assert not path.exists()
    assert score(site, others) is None
