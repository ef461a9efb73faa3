"""What the signed files say of each round's global weights, and what of it may be shown."""

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from brainfed.core.metrics import Measure
from brainfed.formats import federation, rounds
from brainfed.formats.dataset import Subset
from brainfed.formats.scores import Group
from brainfed.plan import Region
from brainfed.steps.over_sites import Unseen, overall
from brainfed.steps.standings import Source, Standing, arranged, limited, standings
from tests.federation import Small, copy_of, train
from tests.reported import VALIDATION, a_reported_federation, rows_of

N_ROUNDS = 3


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return a_reported_federation(tmp_path_factory.mktemp("reported"), N_ROUNDS)


def a_standing(**changes: object) -> Standing:
    row = Standing(
        round=1,
        edition=1,
        site="hospital-a",
        subset=Subset.VALIDATION,
        group=Group.ALL,
        measure=Measure.DICE,
        region=Region.WT,
        n=24,
        mean=0.8,
        sd=0.1,
        quartiles=(0.7, 0.8, 0.9),
        source=Source.SCORES,
    )
    return replace(row, **changes)


def dice(rows: tuple[Standing, ...], site: str, number: int) -> Standing:
    (found,) = [
        row
        for row in rows
        if (row.site, row.round, *row.what[2:])
        == (site, number, Subset.VALIDATION, Group.ALL, Measure.DICE, Region.WT)
    ]
    return found


def test_an_update_speaks_of_the_weights_that_came_and_a_score_file_of_those_it_names(
    small: Small,
) -> None:
    rows = standings(small.coordinator, small.known).rows
    for number in range(N_ROUNDS + 1):
        values = [r.dice for r in rows_of("hospital-a", number) if r.region is Region.WT]
        found = dice(rows, "hospital-a", number)
        assert found.mean == pytest.approx(statistics.fmean(values), abs=0.0051)
        assert found.n == VALIDATION["hospital-a"]
        assert found.source is (Source.SCORES if number == N_ROUNDS else Source.UPDATE)
    assert dice(rows, "hospital-a", N_ROUNDS).quartiles is not None
    assert dice(rows, "hospital-b", N_ROUNDS).quartiles is None


def test_a_site_below_the_floor_is_there_without_a_figure(small: Small) -> None:
    found = dice(standings(small.coordinator, small.known).rows, "hospital-c", 0)
    assert (found.n, found.mean, found.sd) == ("fewer than 5", None, None)


def test_a_site_without_an_update_has_no_figure_of_the_round_before(small: Small) -> None:
    rows = standings(small.coordinator, small.known).rows
    # Absent in round 2, so nothing is known of round 1.
    assert {row.round for row in rows if row.site == "hospital-c"} == {0, 2, N_ROUNDS}


def test_a_site_sees_only_what_it_said_itself(small: Small) -> None:
    place = small.sites["hospital-b"]
    rows = standings(place, federation.load(place)).rows
    assert {row.site for row in rows} == {"hospital-b"}


def test_a_changed_file_is_left_out_and_named(small: Small, tmp_path: Path) -> None:
    mine = copy_of(small, tmp_path)
    path = rounds.update_paths(mine.coordinator, 1)[0]
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    scores = next(mine.coordinator.rounds.rglob("*.hospital-b.scores.json"))
    scores.write_bytes(scores.read_bytes() + b" ")
    told = standings(mine.coordinator, mine.known)
    assert set(told.left_out) == {path.name, scores.name}
    assert "hospital-a" not in {row.site for row in told.rows if row.round == 0}


def test_figures_of_weights_that_are_not_in_force_are_not_taken(
    small: Small, tmp_path: Path
) -> None:
    mine = copy_of(small, tmp_path)
    before = standings(mine.coordinator, mine.known).rows
    for path in rounds.signed(mine.coordinator, 1, "*.global.safetensors"):
        path.unlink()
    rows = standings(mine.coordinator, mine.known).rows
    assert {row.round for row in before} - {row.round for row in rows} == {1}


def test_an_unsigned_update_says_nothing(small: Small, tmp_path: Path) -> None:
    mine = copy_of(small, tmp_path)
    site = mine.sites["hospital-a"]
    before = standings(site, federation.load(site)).rows
    train(site)
    assert standings(site, federation.load(site)).rows == before


def test_how_many_weight_files_test_figures_were_sent_of(small: Small) -> None:
    told = standings(small.coordinator, small.known)
    assert told.tested == {"hospital-a": 1, "hospital-b": 1, "hospital-c": 1}
    assert told.n_trained[1, "hospital-a"] > 0
    assert any(name.startswith("brainfed ") for name in told.versions)


def test_of_two_sources_the_richer_one_counts() -> None:
    rows = [a_standing(source=s, n=n) for n, s in enumerate(reversed(Source), start=1)]
    (found,) = arranged(rows)
    assert found.source is Source.TABLE


def test_what_an_older_file_states_too_finely_is_rounded_and_cut() -> None:
    row = a_standing(n=19, mean=0.81234, sd=0.10987)
    (found,) = limited([row], 5)
    assert (found.mean, found.sd, found.quartiles) == (0.81, 0.11, None)
    (found,) = limited([replace(row, n=20, quartiles=(0.123, 0.456, 0.789))], 5)
    assert found.quartiles == (0.12, 0.46, 0.79)


@pytest.mark.parametrize("n", [1, 4, 9, "fewer than 5"])
def test_below_the_floor_nothing_is_shown_but_that(n: int | str) -> None:
    row = a_standing(n=n) if isinstance(n, int) else a_standing(n=n, mean=None, sd=None)
    (found,) = limited([row], 10)
    assert (found.n, found.mean, found.sd, found.quartiles) == ("fewer than 10", None, None, None)


def test_a_sites_own_higher_floor_is_kept() -> None:
    row = a_standing(n="fewer than 30", mean=None, sd=None, quartiles=None)
    assert limited([row], 5) == (row,)
    assert row.n_at_most == 29


def test_of_one_patient_there_is_no_mean_and_of_two_no_spread_whatever_the_floor() -> None:
    found = [limited([a_standing(n=n, quartiles=None)], 1)[0] for n in (1, 2, 3)]
    assert [row.mean for row in found] == [None, 0.8, 0.8]
    assert [row.sd for row in found] == [None, None, 0.1]


def test_a_group_that_could_be_subtracted_is_not_shown() -> None:
    whole, most = a_standing(), a_standing(group=Group.COMPLETE, n=21)
    few = a_standing(group=Group.INCOMPLETE, n=3)
    assert limited([whole, most, few], 5) == (whole,)
    assert limited([whole, most], 5) == (whole,)
    both = (whole, replace(most, n=18, quartiles=None), replace(few, n=6, quartiles=None))
    assert limited(both, 5) == both


def test_the_mean_over_sites_is_the_mean_over_their_patients() -> None:
    patients = {"a": [0.2, 0.4, 0.9], "b": [0.5, 0.7], "c": [0.1, 0.3, 0.6, 0.8]}
    rows = [
        a_standing(site=site, n=len(v), mean=statistics.fmean(v), sd=statistics.stdev(v))
        for site, v in patients.items()
    ]
    (found,) = overall(rows)
    everybody = [value for values in patients.values() for value in values]
    assert found.n == 9
    assert found.mean == pytest.approx(statistics.fmean(everybody))
    assert found.sd == pytest.approx(statistics.stdev(everybody))
    assert (found.worst_site, found.worst_mean) == ("c", pytest.approx(0.45))
    assert found.spread == pytest.approx(0.15)


def test_the_mean_says_how_many_patients_it_does_not_see() -> None:
    few = a_standing(site="b", n="fewer than 5", mean=None, sd=None, quartiles=None)
    one = a_standing(site="c", n=1, mean=None, sd=None, quartiles=None)
    (found,) = overall([a_standing(), few, one])
    assert found.unseen == (Unseen("b", 4), Unseen("c", 1))
    assert (found.n, found.n_sites) == (24, 1)
    (nobody,) = overall([few])
    assert (nobody.mean, nobody.worst_site, nobody.spread, nobody.n) == (None, None, None, 0)


@pytest.mark.parametrize(
    ("measure", "means", "worst"),
    [
        (Measure.DICE, {"a": 0.7, "b": 0.8}, "a"),
        (Measure.HD95_SURFACE, {"a": 7.0, "b": 8.0}, "b"),
        (Measure.LESION_HD95, {"a": 7.0, "b": 8.0}, "b"),
        (Measure.SENSITIVITY, {"a": 0.9, "b": 0.8}, "b"),
        (Measure.VOLUME_DIFFERENCE, {"a": -7.0, "b": 3.0}, "a"),
    ],
)
def test_which_site_is_worst_depends_on_the_measure(
    measure: Measure, means: dict[str, float], worst: str
) -> None:
    rows = [a_standing(site=site, measure=measure, mean=mean) for site, mean in means.items()]
    assert overall(rows)[0].worst_site == worst
