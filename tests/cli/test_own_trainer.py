"""A federation of a network of the sites' own, as its people type it."""

import html
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from brainfed.formats import federation, rounds, weights
from brainfed.formats.workspace import Workspace
from brainfed.plan import Plan
from brainfed.steps.aggregate import aggregate
from tests.builders import a_plan
from tests.cli.typed import Answer, Typed, too_wide
from tests.federation import TODAY, Small, a_federation, carry, snapshot

NETWORK = {
    "architecture": "external",
    "tensors": ("conv.weight F32 4 1 3 3", "norm.mean F32 4", "norm.n I64"),
    "local": ("norm.mean", "norm.n"),
}
COUNTS = ("--patients", 12, "--cases", 13, "--slices", 400)


def a_plan_of_their_own(**changes: object) -> Plan:
    return a_plan(network=NETWORK, **changes)


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return a_federation(tmp_path / "federation", plan=a_plan_of_their_own())


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_file(
        {
            "conv.weight": np.full((4, 1, 3, 3), 2, np.float32),
            "norm.mean": np.ones(4, np.float32),
            "norm.n": np.array(9, np.int64),
        },
        path,
    )
    return path


def a_site(small: Small) -> Workspace:
    return small.sites["hospital-a"]


def export(typed: Typed, small: Small, *words: object) -> Answer:
    return typed("export", *words, "--workspace", a_site(small).root)


def test_export_makes_signs_and_copies_what_their_program_trained(
    typed: Typed, small: Small, mine: Path
) -> None:
    answer = export(typed, small, "--weights", mine, *COUNTS, "--to", small.medium())
    assert answer.code == 0, answer.err
    (carried,) = small.medium().glob("*.update.safetensors")
    assert (carried.parent / f"{carried.name}.sig").exists()
    found = load_file(carried)
    assert set(found) == {"conv.weight"}
    assert (found["conv.weight"] == 2).all()
    manifest = weights.read_manifest(carried)
    assert (manifest.n_patients, manifest.n_cases, manifest.n_slices) == (12, 13, 400)
    before = snapshot(a_site(small))
    assert export(typed, small, "--weights", mine, *COUNTS, "--to", small.medium()).code == 0
    assert snapshot(a_site(small)) == before


def test_counts_go_together_and_with_weights(typed: Typed, small: Small, mine: Path) -> None:
    before = snapshot(a_site(small))
    for words in (COUNTS, ("--weights", mine, "--patients", 12), ("--weights", mine)):
        answer = export(typed, small, *words)
        assert answer.code == 2
        assert "--slices N" in answer.err
    assert snapshot(a_site(small)) == before


def test_a_pickle_is_refused_and_the_way_to_convert_it_is_said(
    typed: Typed, small: Small, tmp_path: Path
) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(pickle.dumps({"conv.weight": 1}))
    answer = export(typed, small, "--weights", path, *COUNTS)
    assert answer.code == 2
    assert "never opens" in answer.err
    assert "save_file" in answer.err


def test_the_coordinator_and_a_network_of_brainfed_have_no_such_update(
    typed: Typed, small: Small, mine: Path, tmp_path: Path
) -> None:
    words = ("export", "--weights", mine, *COUNTS, "--workspace")
    assert typed(*words, small.coordinator.root).code == 3
    ours = a_federation(tmp_path / "ours")
    answer = typed(*words, a_site(ours).root)
    assert answer.code == 4
    assert "train-round" in answer.err


def test_train_round_evaluate_and_predict_say_what_to_do_instead(
    typed: Typed, small: Small, tmp_path: Path
) -> None:
    site = a_site(small)
    newest = rounds.newest_global(site, federation.load(site)).path
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    commands = (
        ("train-round", "--workspace", site.root),
        ("evaluate", "--workspace", site.root),
        ("predict", newest, scans, out, "--labels", "brats2023", "--workspace", site.root),
    )
    for words in commands:
        answer = typed(*words)
        assert answer.code == 4, words
        assert not out.exists()
        assert "export --weights" in " ".join(answer.err.split())


def test_status_names_the_weights_to_train_from_and_the_next_commands(
    typed: Typed, small: Small, mine: Path
) -> None:
    site = a_site(small)
    told = typed("status", "--workspace", site.root).out
    newest = rounds.newest_global(site, federation.load(site)).path
    assert newest.relative_to(site.root).as_posix() in "".join(told.split())
    assert "export --weights FILE" in " ".join(told.split())
    export(typed, small, "--weights", mine, *COUNTS)
    assert "Bring" in typed("status", "--workspace", site.root).out


def test_after_the_last_round_there_is_nothing_to_hand_over(
    typed: Typed, tmp_path: Path, mine: Path
) -> None:
    small = a_federation(tmp_path / "federation", plan=a_plan_of_their_own(rounds=1))
    for site in small.sites.values():
        words = ("--to", small.medium(), "--workspace", site.root)
        assert typed("export", "--weights", mine, *COUNTS, *words).code == 0
        carry(site, small.coordinator, small.medium())
    aggregate(small.coordinator, today=TODAY)
    carry(small.coordinator, a_site(small), small.medium("back"))
    answer = export(typed, small, "--weights", mine, *COUNTS)
    assert answer.code == 4
    assert "All rounds" in answer.err


def test_plan_words_report_and_inspect_tell_of_a_network_of_their_own(
    typed: Typed, small: Small, mine: Path
) -> None:
    site = a_site(small)
    answer = typed("plan", "check", site.federation_folder / "plan.toml")
    words = " ".join(answer.out.split())
    assert "the sites' own, of 3 tensors" in words
    assert "as the sites agreed" in words
    assert "Dice" not in words
    assert too_wide(answer.out) == []
    export(typed, small, "--weights", mine, *COUNTS)
    (update,) = site.round_folder(1).glob("*.safetensors")
    told = typed("inspect", update)
    assert told.code == 0
    assert "0000000000000000" in told.out
    for more in ((), ("--model-card",)):
        done = typed("report", *more, "--json", "--workspace", small.coordinator.root)
        assert done.code == 0, done.err
        page = html.unescape(Path(done.json["page"]).read_text())
        assert "by the sites' own program" in page
    assert "Weights that the coordinator brought" in page
    assert "Drawn by chance" not in page
