"""A relay as people type it: whose turn it is, and what happens out of turn."""

from pathlib import Path

from brainfed.cli.plan_words import plan_in_words
from brainfed.steps.exchange import export
from tests.builders import a_plan, write_dataset
from tests.cli.typed import Typed, too_wide
from tests.federation import Small, a_federation, train

SITES = ("hospital-a", "hospital-b")


def a_ciil_federation(root: Path) -> Small:
    """By the seed 1 the first turn is hospital-b's."""
    return a_federation(root, sites=SITES, plan=a_plan(method="ciil", rounds=4))


def on_a_stick(small: Small, *names: str) -> Path:
    stick = small.medium("updates")
    for name in names:
        train(small.sites[name])
        export(small.sites[name], stick)
    return stick


def test_an_import_that_only_comes_out_of_turn_ends_with_7(typed: Typed, tmp_path: Path) -> None:
    small = a_ciil_federation(tmp_path)
    stick = on_a_stick(small, "hospital-a", "hospital-b")
    answer = typed("import", stick, "--workspace", small.coordinator.root)
    assert answer.code == 7
    words = " ".join(answer.out.split())
    assert "It is the turn of hospital-b, not of hospital-a" in words
    assert "1 file refused" in answer.out
    told = typed("status", "--workspace", small.coordinator.root)
    assert "Close round 1, hospital-b's turn: brainfed aggregate" in told.out
    closed = typed("aggregate", "--workspace", small.coordinator.root)
    assert closed.code == 0
    assert "is that of hospital-a." in " ".join(closed.out.split())
    assert too_wide(told.out) == []


def test_an_import_with_another_refusal_beside_it_ends_with_6(typed: Typed, tmp_path: Path) -> None:
    small = a_ciil_federation(tmp_path)
    stick = on_a_stick(small, "hospital-a")
    (stick / "unsigned.json").write_text('{"kind": "record"}')
    answer = typed("import", stick, "--workspace", small.coordinator.root)
    assert answer.code == 6
    assert "2 files refused" in answer.out


def test_train_round_out_of_turn_says_whose_turn_it_is(typed: Typed, tmp_path: Path) -> None:
    small = a_ciil_federation(tmp_path)
    site = small.sites["hospital-a"]
    write_dataset(site.data, small.known.first_plan)
    answer = typed("train-round", "--workspace", site.root)
    assert answer.code == 7
    assert "It is the turn of hospital-b" in answer.err
    assert "brainfed status" in answer.err
    assert not site.round_folder(1).exists()
    told = typed("status", "--workspace", site.root)
    assert "It is the turn of hospital-b, in round 1" in " ".join(told.out.split())


def test_before_it_joins_a_site_reads_who_will_get_its_weights() -> None:
    words = " ".join(str(part) for part in plan_in_words(a_plan(method="ciil", rounds=8)))
    assert "one after the other, round and round" in words
    assert "8 turns at most" in words
    assert "own weights, not a mean" in words
    training = {"patience": 8, "schedule": "constant", "epochs_per_round": 50}
    words = " ".join(str(part) for part in plan_in_words(a_plan(method="iil", training=training)))
    assert "once to each" in words
    assert "has not risen for 8 passes over its training slices, 50 at most" in words


def test_before_it_joins_a_site_reads_what_becomes_of_its_weights_by_the_rule() -> None:
    words = " ".join(str(part) for part in plan_in_words(a_plan(aggregation={"rule": "median"})))
    assert "the coordinator sends back the median of each weight" in words
    assert "all sites count alike" in words
