"""Layers that never leave a site: its own, kept round by round, and in no file that travels."""

import os
import shutil
import signal
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from brainfed.core import canonical
from brainfed.core.architecture import network_table, tensor_table
from brainfed.core.device import Precision
from brainfed.core.labels import LabelProtocol
from brainfed.core.metrics import Measure
from brainfed.core.scoring import CaseScore
from brainfed.core.training import Step, Weights
from brainfed.core.unet import initial_weights
from brainfed.errors import (
    MalformedError,
    NotReadyError,
    PlanError,
    WrongRoundError,
)
from brainfed.formats import checkpoint, dataset, federation, ledger, rounds
from brainfed.formats.dataset import ExclusionReason, Subset
from brainfed.formats.erasure import ErasureReason
from brainfed.formats.roster import Role
from brainfed.formats.weights import WeightsFile
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan, plan_digest
from brainfed.steps import local_layers
from brainfed.steps.admit import admit
from brainfed.steps.aggregate import aggregate
from brainfed.steps.archive import archive
from brainfed.steps.audit import Verdict, audit
from brainfed.steps.choose_weights import Wish
from brainfed.steps.evaluate import EvaluateResult, evaluate
from brainfed.steps.exchange import export
from brainfed.steps.exclude import choose, exclude
from brainfed.steps.keep_round import digest_of_round
from brainfed.steps.one_round import train_from
from brainfed.steps.predict import Wish as PredictWish
from brainfed.steps.predict import predict
from brainfed.steps.purge import purge
from brainfed.steps.receive import receive
from brainfed.steps.score_cases import entries_of, read_cases, scores_of
from brainfed.steps.status import status
from brainfed.steps.taking_part import Wishes
from brainfed.steps.train import TrainResult, train_round
from tests.builders import a_geometry, write_dataset
from tests.federation import TODAY, a_workspace
from tests.predicting import write_scans
from tests.steps.joined import a_joined_site, a_quick_plan, finished, joined

HEAD = ("head.bias", "head.weight")
STEM = ("encoder.level1.conv1.bias", "encoder.level1.conv1.weight")
SITES = ("hospital-a", "hospital-b")


def a_plan(local: tuple[str, ...] = HEAD, **changes: Any) -> Plan:
    """Two sites, each with layers of its own."""
    network = {"local": local, **changes.pop("network", {})}
    training = {"optimiser": "adam", "rate": 0.01, **changes.pop("training", {})}
    return a_quick_plan(rounds=4, network=network, training=training, **changes)


def trained(place: Workspace, **changes: Any) -> TrainResult:
    done = train_round(place, threads=1, device="cpu", **changes)
    assert done is not None
    return done


def brought(from_: Workspace, to: Workspace) -> None:
    export(from_, None)
    taken = receive(to, [from_.outbox], confirm=lambda request: True)
    assert not taken.refused, taken.refused


def closed(places: dict[str, Workspace], *turn: str) -> None:
    """These sites train, or all; the coordinator closes the round and brings it to everybody."""
    coordinator = places["uni-lead"]
    sites = [place for place in places.values() if place is not coordinator]
    for site in sites:
        if not turn or site.name in turn:
            trained(site)
            brought(site, coordinator)
    aggregate(coordinator, today=TODAY)
    for site in sites:
        brought(coordinator, site)


def layers_of(place: Workspace, number: int) -> Weights:
    local = set(federation.load(place).first_plan.network.local)
    table = network_table(federation.load(place).first_plan)
    path = place.round_folder(number) / checkpoint.LAYERS
    wanted = {name: table[name] for name in table if name in local}
    return checkpoint.read_layers(path, wanted).tensors


def global_of(place: Workspace, number: int) -> WeightsFile:
    path = rounds.global_path(place, number)
    assert path is not None
    return rounds.verify_weights(path, federation.load(place))


def whole(place: Workspace, file: WeightsFile, **options: Any) -> Weights:
    return local_layers.whole(place, federation.load(place), file, **options)


def same(some: Weights, others: Weights) -> bool:
    return {n: a.tobytes() for n, a in some.items()} == {n: a.tobytes() for n, a in others.items()}


def scored(place: Workspace, **wish: Any) -> EvaluateResult:
    return evaluate(place, Wish(**wish), today=TODAY, threads=1, device="cpu")


def soft(rows: Iterable[CaseScore]) -> list[float]:
    """The one score that every change of the weights moves."""
    return [row.values[Measure.SOFT_SLICE_DICE] for row in rows]


# --- a whole federation ---------------------------------------------------------------------------


@pytest.mark.parametrize("local", [HEAD, STEM], ids=["last layer", "first layer"])
def test_two_rounds_share_all_but_the_local_layers_and_the_audit_passes(
    tmp_path: Path, local: tuple[str, ...]
) -> None:
    places = joined(tmp_path, a_plan(local), *SITES)
    for _ in (1, 2):
        closed(places)
    a, b = (whole(places[name], global_of(places[name], 2)) for name in SITES)
    assert set(a) == set(network_table(a_plan(local)))
    differing = {name for name in a if a[name].tobytes() != b[name].tobytes()}
    assert differing == set(local)
    for name in SITES:
        assert not same(layers_of(places[name], 1), layers_of(places[name], 2))
    found = audit([places["uni-lead"].root])
    assert found.verdict is Verdict.REDERIVED, found.findings


def test_no_file_that_travels_holds_a_local_tensor_by_name_or_by_its_bytes(tmp_path: Path) -> None:
    places = joined(tmp_path, a_plan(), *SITES)
    for _ in (1, 2):
        closed(places)
    trained(places["hospital-a"])
    (tmp_path / "stick").mkdir()
    export(places["hospital-a"], tmp_path / "stick")
    archive(places["uni-lead"], tmp_path / "walk")
    own = [layers_of(places[n], r)["head.weight"].tobytes() for n in SITES for r in (1, 2)]
    own.append(initial_weights(a_plan())["head.weight"].tobytes())
    folders = [tmp_path / "stick", tmp_path / "walk", places["uni-lead"].root]
    folders += [places[name].outbox for name in SITES]
    files = [p for folder in folders for p in sorted(folder.rglob("*")) if p.is_file()]
    tables = [load_file(path) for path in files if path.suffix == ".safetensors"]
    assert len(tables) > 8
    assert all(set(table) == set(tensor_table(a_plan())) for table in tables)
    assert not [path for path in files for data in own if data in path.read_bytes()]
    assert not [path for path in files if path.name == checkpoint.LAYERS]


def test_each_site_scores_the_same_global_weights_with_its_own_layers(tmp_path: Path) -> None:
    plan = a_plan(training={"steps_per_round": 12})
    places = joined(tmp_path, plan, *SITES)
    closed(places)
    found = []
    for name in SITES:
        place, file = places[name], global_of(places[name], 1)
        mine = {**load_file(file.path), **layers_of(place, 1)}
        cases = read_cases(place.data, entries_of(place.data, plan, Subset.VALIDATION), plan)
        wanted = soft(scores_of(mine, plan, cases, device=torch.device("cpu")))
        done = scored(place)
        assert done.weights.digest == file.digest
        assert soft(done.rows) == pytest.approx(wanted, rel=1e-12)
        assert done.score_path is not None
        found.append(wanted)
    assert found[0] != pytest.approx(found[1], rel=1e-6)  # the same cases lie at both


def test_without_local_layers_a_round_is_what_training_alone_gives(tmp_path: Path) -> None:
    plan = a_plan(())
    place = a_joined_site(tmp_path, plan)
    file = global_of(place, 0)
    start = load_file(file.path)
    assert same(start, initial_weights(plan))
    cases = list(read_cases(place.data, entries_of(place.data, plan, Subset.TRAIN), plan))
    wanted = train_from(start, plan, training=cases, site=place.name, device="cpu", threads=1)
    assert same(load_file(trained(place).update.path), wanted.weights)
    assert not list(place.rounds.rglob(checkpoint.LAYERS))
    known = federation.load(place)
    assert local_layers.digest_of(place, known, file) == file.digest
    subsets = (Subset.TRAIN, Subset.VALIDATION)
    entries = [[e.id, e.digest] for s in subsets for e in entries_of(place.data, plan, s)]
    split = dataset.split_digest(place.data)
    content = [file.digest, plan_digest(plan), place.name, "float32", split, entries]
    before = sha256(canonical.dumps(content)).hexdigest()
    assert digest_of_round(place, plan, file.digest, Precision.FLOAT32) == before


# --- which layers ---------------------------------------------------------------------------------


def test_weights_of_a_round_go_with_the_newest_layers_up_to_it(tmp_path: Path) -> None:
    plan = a_plan(participation={"quorum_sites": 1})
    places = joined(tmp_path, plan, *SITES)
    closed(places)
    closed(places, "hospital-b")
    closed(places)
    a = places["hospital-a"]
    first, third = layers_of(a, 1), layers_of(a, 3)
    for number, wanted in ((1, first), (2, first), (3, third)):
        loaded = whole(a, global_of(a, number))
        assert same({name: loaded[name] for name in HEAD}, wanted)
        assert same(
            {n: loaded[n] for n in tensor_table(plan)}, load_file(global_of(a, number).path)
        )
    drawn = initial_weights(plan)
    assert same({n: whole(a, global_of(a, 0))[n] for n in HEAD}, {n: drawn[n] for n in HEAD})


def test_a_round_begins_with_the_site_s_own_layers_of_the_round_before(tmp_path: Path) -> None:
    plan = a_plan()
    places = joined(tmp_path, plan, *SITES)
    closed(places)
    a = places["hospital-a"]
    start = {**load_file(global_of(a, 1).path), **layers_of(a, 1)}
    cases = list(read_cases(a.data, entries_of(a.data, plan, Subset.TRAIN), plan))
    wanted = train_from(
        start, plan, training=cases, round_number=2, site=a.name, device="cpu", threads=1
    ).weights
    update = trained(a).update
    assert same({**load_file(update.path), **layers_of(a, 2)}, wanted)
    assert same(whole(a, update), wanted)


def test_a_site_without_layers_of_its_own_begins_with_the_seed_s_and_is_told(
    tmp_path: Path,
) -> None:
    plan = a_plan()
    places = joined(tmp_path, plan, *SITES)
    closed(places, "hospital-b")
    a = places["hospital-a"]
    told: list[str] = []
    loaded = whole(a, global_of(a, 1), progress=lambda what, *_: told.append(what))
    drawn = initial_weights(plan)
    assert same({name: loaded[name] for name in HEAD}, {name: drawn[name] for name in HEAD})
    assert told == ["layers that stay local"]
    assert [scored(places[name]).layers_are_drawn for name in SITES] == [True, False]
    closed(places)  # it trains on from there
    assert not same(layers_of(a, 2), {name: drawn[name] for name in HEAD})


@pytest.mark.parametrize(
    ("changes", "turns"),
    [
        ({"method": "ciil"}, 4),
        (
            {
                "method": "iil",
                "training": {
                    "patience": 1,
                    "epochs_per_round": 2,
                    "steps_per_round": 0,
                    "schedule": "constant",
                },
            },
            2,
        ),
    ],
    ids=["ciil", "iil"],
)
def test_in_a_relay_each_site_goes_on_with_its_own_layers(
    tmp_path: Path, changes: dict[str, Any], turns: int
) -> None:
    places = joined(tmp_path, a_plan(**changes), "hospital-b", "hospital-a")
    order = ["hospital-b", "hospital-a"] * 2
    for number in range(1, turns + 1):
        closed(places, order[number - 1])
    for name in SITES:
        own = [n for n in range(1, turns + 1) if order[n - 1] == name]
        kept = sorted(path.parent.name for path in places[name].rounds.rglob(checkpoint.LAYERS))
        assert kept == [f"r{number:04d}" for number in own]
        loaded = whole(places[name], global_of(places[name], turns))
        assert same({n: loaded[n] for n in HEAD}, layers_of(places[name], own[-1]))
    found = audit([places["uni-lead"].root])
    assert found.verdict is Verdict.REDERIVED, found.findings


def test_kept_moments_are_those_of_the_whole_network(tmp_path: Path) -> None:
    keeps = {"optimiser_state": "keep", "schedule": "constant"}
    places = joined(tmp_path, a_plan(training=keeps), *SITES)
    closed(places)
    a = places["hospital-a"]
    moments = checkpoint.read_moments(a.round_folder(1) / checkpoint.OPTIMISER)
    assert moments is not None
    assert {name.rpartition("/")[0] for name in moments} == set(network_table(a_plan()))
    told: list[str] = []
    trained(a, progress=lambda what, *_: told.append(what))
    assert "optimiser" not in told  # they were taken up


def test_a_robust_rule_and_its_audit_see_what_travels_alone(tmp_path: Path) -> None:
    sites = (*SITES, "hospital-c")
    places = joined(tmp_path, a_plan(aggregation={"rule": "median"}), *sites)
    closed(places)
    updates = [load_file(path) for path in rounds.update_paths(places["uni-lead"], 1)]
    median = load_file(global_of(places["hospital-a"], 1).path)
    for name in tensor_table(a_plan()):
        assert np.array_equal(median[name], np.median([u[name] for u in updates], axis=0))
    assert audit([places["uni-lead"].root]).verdict is Verdict.REDERIVED


# --- interrupted, damaged, erased -----------------------------------------------------------------


def test_an_interrupted_round_ends_in_the_same_update_and_the_same_layers(tmp_path: Path) -> None:
    places = joined(tmp_path / "a", a_plan(training={"steps_per_round": 6}), *SITES)
    closed(places)
    a = places["hospital-a"]
    shutil.copytree(a.root, tmp_path / "copy")
    undisturbed = Workspace(tmp_path / "copy", a.role, a.name)

    def stop(step: Step) -> None:
        if step.number == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(a, on_step=stop)
    assert not (a.round_folder(2) / checkpoint.LAYERS).exists()
    again, wanted = trained(a), trained(undisturbed)
    assert again.word == "continued after step 3"
    assert again.update.digest == wanted.update.digest
    paths = [place.round_folder(2) / checkpoint.LAYERS for place in (a, undisturbed)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_mode & 0o777 == 0o600


def test_a_round_begins_anew_where_the_layers_that_it_began_with_were_changed(
    tmp_path: Path,
) -> None:
    places = joined(tmp_path, a_plan(), *SITES)
    closed(places)
    a = places["hospital-a"]
    path = a.round_folder(1) / checkpoint.LAYERS

    def stop(step: Step) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trained(a, on_step=stop)
    path.unlink()
    assert trained(a).word.startswith("begun anew")


def cut(data: bytes) -> bytes:
    return data[:-4]


def one_bit_changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def emptied(data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("harm", [cut, one_bit_changed, emptied])
def test_damaged_layers_are_refused_and_nothing_begins_anew(
    tmp_path: Path, harm: Callable[[bytes], bytes]
) -> None:
    places = joined(tmp_path, a_plan(), *SITES)
    closed(places)
    a = places["hospital-a"]
    path = a.round_folder(1) / checkpoint.LAYERS
    path.write_bytes(harm(path.read_bytes()))
    for command in (trained, scored):
        with pytest.raises(MalformedError, match="stay at this site are damaged") as caught:
            command(a)
        assert "backup" in str(caught.value.hint)
    assert not list(a.round_folder(2).glob("*"))


def test_layers_of_another_plan_or_round_are_refused(tmp_path: Path) -> None:
    places = joined(tmp_path, a_plan(), *SITES)
    closed(places)
    a = places["hospital-a"]
    path = a.round_folder(1) / checkpoint.LAYERS
    good = path.read_bytes()
    own = layers_of(a, 1)
    checkpoint.write_layers(path, checkpoint.Layers(1, 1, {"head.bias": own["head.bias"]}))
    with pytest.raises(MalformedError, match="damaged"):
        trained(a)
    path.write_bytes(good)
    closed(places)
    shutil.copy(a.round_folder(2) / checkpoint.LAYERS, path)
    with pytest.raises(WrongRoundError, match="of another training"):
        scored(a, round=1)


def test_an_update_is_scored_with_the_layers_of_its_own_training_or_not_at_all(
    tmp_path: Path,
) -> None:
    places = joined(tmp_path, a_plan(), *SITES)
    a = places["hospital-a"]
    update = trained(a).update
    scored(a, weights=update.path)
    path = a.round_folder(1) / checkpoint.LAYERS
    later = checkpoint.Layers(1, 2, layers_of(a, 1))
    checkpoint.write_layers(path, later)
    with pytest.raises(WrongRoundError, match="of another training"):
        scored(a, weights=update.path)
    path.unlink()
    with pytest.raises(NotReadyError, match="are gone"):
        scored(a, weights=update.path)


def test_a_round_that_is_trained_again_has_layers_of_its_own_edition(tmp_path: Path) -> None:
    plan = a_plan(participation={"quorum_sites": 1})
    places = joined(tmp_path, plan, *SITES)
    a, b, lead = places["hospital-a"], places["hospital-b"], places["uni-lead"]
    late = tmp_path / "late"
    late.mkdir()
    trained(b)
    export(b, late)
    closed(places, "hospital-a")
    first = trained(a).update
    early = layers_of(a, 2)
    assert not receive(lead, [late], confirm=lambda request: True).refused
    aggregate(lead, today=TODAY, wishes=Wishes(without={}, again=True, taken_in=("hospital-b",)))
    brought(lead, a)
    second = trained(a).update
    assert (first.manifest.edition, second.manifest.edition) == (1, 2)
    assert not same(layers_of(a, 2), early)
    scored(a, weights=second.path)
    with pytest.raises(WrongRoundError, match="of another training"):
        scored(a, weights=first.path)


def test_scores_with_other_layers_are_not_taken_up(tmp_path: Path) -> None:
    places = joined(tmp_path, a_plan(), *SITES)
    closed(places)
    a = places["hospital-a"]

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        raise KeyboardInterrupt

    for _ in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            evaluate(a, today=TODAY, threads=1, device="cpu", progress=stop)
    assert scored(a).n_kept == 2
    for _ in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            evaluate(a, today=TODAY, threads=1, device="cpu", progress=stop)
    changed = {name: array + np.float32(1) for name, array in layers_of(a, 1).items()}
    checkpoint.write_layers(a.round_folder(1) / checkpoint.LAYERS, checkpoint.Layers(1, 1, changed))
    assert scored(a).n_kept == 0


@pytest.mark.parametrize(
    ("subset", "stays"), [(Subset.TRAIN, False), (Subset.VALIDATION, False), (Subset.TEST, True)]
)
def test_a_patient_who_was_trained_on_takes_the_layers_of_all_rounds_along(
    tmp_path: Path, subset: Subset, *, stays: bool
) -> None:
    places = joined(tmp_path, a_plan(), *SITES, n_test=1)
    for _ in (1, 2):
        closed(places)
    a = places["hospital-a"]
    trained(a)
    case = dataset.cases_of(a.data, subset)[0].id
    chosen = choose(a, case, ExclusionReason.BAD_SCAN)
    assert len(chosen.layers) == (0 if stays else 3)
    exclude(a, chosen)
    there = [path.parent.name for path in sorted(a.rounds.rglob(checkpoint.LAYERS))]
    assert there == (["r0001", "r0002", "r0003"] if stays else [])


def test_purge_erases_the_layers(tmp_path: Path) -> None:
    places = joined(tmp_path, a_plan(), *SITES)
    closed(places)
    a = places["hospital-a"]
    purge(a, reason=ErasureReason.ENDED, today=TODAY)
    assert not list(a.root.rglob(checkpoint.LAYERS))


# --- where they can be run ------------------------------------------------------------------------


def test_the_test_patients_stay_closed_at_a_site_without_layers_of_its_own(tmp_path: Path) -> None:
    places = joined(tmp_path, a_plan(), *SITES, n_test=1)
    closed(places, "hospital-b")
    a, b = (finished(places[name], 1) for name in SITES)
    wish = Wish(subset=Subset.TEST)
    with pytest.raises(NotReadyError, match="test patients stay closed"):
        evaluate(a, wish, today=TODAY, confirmed=True, threads=1, device="cpu")
    assert not [e for e in ledger.read(a.ledger_path) if e["event"] == "opened-test"]
    assert evaluate(b, wish, today=TODAY, confirmed=True, threads=1, device="cpu").n_cases == 1


def test_an_evaluator_is_refused_and_told_why(tmp_path: Path) -> None:
    places = joined(tmp_path, a_plan(), *SITES)
    evaluator = a_workspace(tmp_path / "clinic-e", Role.EVALUATOR, "clinic-e")
    enrolment = evaluator.outbox / "clinic-e.enrolment.json"
    admit(places["uni-lead"], [enrolment], confirm=lambda candidate: True)
    export(places["uni-lead"], None)
    brought(places["uni-lead"], evaluator)
    write_dataset(evaluator.data, a_plan())
    with pytest.raises(PlanError, match="only a site can evaluate them") as caught:
        scored(evaluator)
    assert caught.value.found == "the role evaluator"
    assert "network.local" in str(caught.value.where)
    assert "Nothing to score" in " ".join(status(evaluator).todo)


def predicted(place: Workspace | None, file: WeightsFile, root: Path, start: Path | None) -> Path:
    """The label map of one case that has none."""
    if not (root / "scans").exists():
        write_scans(root / "scans", "p1", a_geometry())
    out = root / f"out-{place.name if place else 'outside'}"
    wish = PredictWish(
        weights=file.path,
        scans=root / "scans",
        out=out,
        protocol=LabelProtocol.WHOLE_TUMOUR,
        start=start,
    )
    predict(wish, place, tell=lambda trusted: None, device="cpu", threads=1)
    return out / "p1.nii.gz"


def test_a_site_predicts_with_its_own_layers_and_nobody_else_can(tmp_path: Path) -> None:
    places = joined(tmp_path, a_plan(training={"steps_per_round": 12}), *SITES)
    a, lead = places["hospital-a"], places["uni-lead"]
    with pytest.raises(NotReadyError, match="no trained layers of its own"):
        predicted(a, global_of(a, 0), tmp_path, None)
    closed(places)
    file = global_of(a, 1)
    maps = [predicted(places[name], file, tmp_path, None) for name in SITES]
    assert maps[0].read_bytes() != maps[1].read_bytes()
    start = lead.federation_folder / "start.json"
    for place, given in ((lead, None), (None, start), (a, start)):
        with pytest.raises(PlanError, match="only a site can run them"):
            predicted(place, file, tmp_path / "other", given)
    assert not (tmp_path / "other").exists() or not list((tmp_path / "other").glob("out-*"))
