from collections.abc import Iterator

import pytest

from brainfed.steps.verdict import Verdict
from tests.fuzz import mutate
from tests.fuzz.corpus import Scene, a_scene
from tests.fuzz.fuzz_core import GENUINE, fuzz, fuzz_import, report


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    yield a_scene()


def test_a_few_thousand_wrong_files_are_refused_in_our_own_words(scene: Scene) -> None:
    tally = fuzz(scene, 4000, seed=7)
    assert not tally.wrong, report(tally)
    assert {name for name, _ in tally.counts} == {
        how.__name__ for how in (*mutate.UNTRUSTED, mutate.malformed_by_a_trusted_signer)
    }


def test_the_genuine_files_are_accepted_so_the_scene_is_no_brick_wall(scene: Scene) -> None:
    kinds = {p.kind for p in scene.papers if any(d == p.digest for _, d in scene.fresh)}
    assert kinds >= {"weights", "roster", "amendment"}
    tally = fuzz(scene, 2000, seed=8)
    assert tally.counts["replay", GENUINE] > 0
    assert tally.counts["replay", Verdict.ALREADY] > 0


def test_the_fuzzer_notices_a_check_that_is_missing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brainfed.core.sshsig.verify", lambda *args: None)
    assert any("ACCEPTED" in case for case in fuzz(scene, 3000, seed=9).wrong)


def test_wrong_files_on_a_stick_leave_nothing_but_ledger_lines() -> None:
    tally = fuzz_import(150, seed=3, batch=75)
    assert not tally.wrong, report(tally)
    assert sum(tally.counts.values()) > 250
