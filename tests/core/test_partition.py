import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from brainfed.core.cohort import Subset, assign, subset_counts
from brainfed.core.partition import Kind, Member, Partition, draw, fold, parse, split_sites
from brainfed.core.simulated_sites import by_prefix, site_names
from brainfed.errors import ScanError, UsageError
from brainfed.plan import Split, SplitRule
from tests.simulated import BRATS_2018

PAPER_REAL = Split(rule=SplitRule.CEIL, validation=0.2, test=0)
PAPER_EQUAL = Split(rule=SplitRule.FRACTIONS, validation=0.1524, test=0)
KINDS = [Kind.EQUAL, Kind.SIZE_SKEW, Kind.LABEL_SKEW]


def cohort(n: int, folders: tuple[str, ...] = ("",)) -> list[Member]:
    """Patients in turn from each folder; sizes repeat, so that names must break ties."""
    return [
        Member(f"p{number:03d}", 1000 + 37 * (number % 50), 1, folders[number % len(folders)])
        for number in range(n)
    ]


def brats() -> list[Member]:
    names = [f"Brats18_{site}_{n:03d}" for site, count in BRATS_2018.items() for n in range(count)]
    return [Member(name, 100 * place + 5, 1, "") for place, name in enumerate(names)]


def homes(partition: Partition) -> dict[str, str]:
    return {patient: place.site for patient, place in partition.items()}


def sizes(partition: Partition) -> Counter[str]:
    return Counter(homes(partition).values())


def of_subset(partition: Partition, subset: Subset) -> Counter[str]:
    return Counter(place.site for place in partition.values() if place.subset is subset)


# --- the paper ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2018])
def test_the_papers_table_1_comes_out_of_the_210_names(seed: int) -> None:
    partition = draw(Kind.BRATS2018, brats(), n_sites=None, split=PAPER_REAL, seed=seed)
    trained = of_subset(partition, Subset.TRAIN)
    assert sorted(trained.values(), reverse=True) == [70, 27, 17, 12, 11, 9, 6, 6, 4, 3]
    assert of_subset(partition, Subset.VALIDATION).total() == 45
    assert (trained["cbica"], trained["2013-a"], trained["2013-b"]) == (70, 12, 4)
    assert (sizes(partition)["2013-a"], sizes(partition)["2013-b"]) == (15, 5)


def test_which_five_of_2013_are_the_second_site_is_by_lot() -> None:
    second = [
        {
            p
            for p, site in by_prefix((m.patient for m in brats()), seed=seed).items()
            if "-b" in site
        }
        for seed in (1, 1, 2)
    ]
    assert second[0] == second[1] != second[2]


@pytest.mark.parametrize("n_sites", [4, 8, 16, 32])
def test_the_papers_equal_sites_hold_out_32_of_210(n_sites: int) -> None:
    partition = draw(Kind.EQUAL, brats(), n_sites=n_sites, split=PAPER_EQUAL, seed=3)
    trained, held_out = (of_subset(partition, s) for s in (Subset.TRAIN, Subset.VALIDATION))
    assert (trained.total(), held_out.total()) == (178, 32)
    assert set(held_out.values()) == {32 // n_sites}
    assert len(trained) == n_sites
    assert max(trained.values()) - min(trained.values()) <= 1


def test_a_name_that_is_not_of_brats_2018_is_refused() -> None:
    with pytest.raises(ScanError, match="BRATS_001") as caught:
        draw(
            Kind.BRATS2018,
            [*brats(), Member("BRATS_001", 1, 1, "")],
            n_sites=None,
            split=PAPER_REAL,
            seed=1,
        )
    assert "BraTS 2018" in caught.value.message


# --- every kind ---------------------------------------------------------------------------------

SPLITS = st.builds(
    Split,
    rule=st.sampled_from(SplitRule),
    validation=st.sampled_from([0.0, 0.1, 0.2, 0.3]),
    test=st.sampled_from([0.0, 0.1, 0.2]),
)


@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(12, 90),
    n_sites=st.integers(2, 9),
    split=SPLITS,
    seed=st.integers(0, 2**40),
    shuffled=st.randoms(use_true_random=False),
)
def test_each_patient_has_one_place_whatever_the_order_they_come_in(
    kind: Kind, n: int, n_sites: int, split: Split, seed: int, shuffled: random.Random
) -> None:
    members = cohort(n)
    assume(n_sites <= n // 3)
    if kind is Kind.EQUAL:
        assume(n_sites <= subset_counts(n, split)[Subset.TRAIN])
    partition = draw(kind, members, n_sites=n_sites, split=split, seed=seed)
    assert set(partition) == {member.patient for member in members}
    assert len(of_subset(partition, Subset.TRAIN)) == n_sites
    other = list(members)
    shuffled.shuffle(other)
    assert draw(kind, other, n_sites=n_sites, split=split, seed=seed) == partition


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_where_a_patient_is(kind: Kind) -> None:
    found = [
        homes(draw(kind, cohort(60), n_sites=4, split=Split(), seed=seed)) for seed in (5, 5, 6)
    ]
    assert found[0] == found[1] != found[2]


@given(n=st.integers(9, 90), n_sites=st.integers(2, 9), split=SPLITS, seed=st.integers(0, 999))
def test_equal_sites_differ_by_one_patient_in_all_and_in_each_subset(
    n: int, n_sites: int, split: Split, seed: int
) -> None:
    counts = subset_counts(n, split)
    assume(n_sites <= counts[Subset.TRAIN])
    partition = draw(Kind.EQUAL, cohort(n), n_sites=n_sites, split=split, seed=seed)
    for subset in Subset:
        here = of_subset(partition, subset)
        assert here.total() == counts[subset]
        assert max(here.values(), default=0) - min(here[s] for s in sizes(partition)) <= 1
    assert max(sizes(partition).values()) - min(sizes(partition).values()) <= 1


@given(kind=st.sampled_from(KINDS[1:]), n_sites=st.integers(2, 22), seed=st.integers(0, 999))
def test_no_skewed_site_has_fewer_than_three_patients(kind: Kind, n_sites: int, seed: int) -> None:
    partition = draw(kind, cohort(67), n_sites=n_sites, split=Split(), seed=seed)
    assert len(sizes(partition)) == n_sites
    assert min(sizes(partition).values()) >= 3


def test_skewed_sites_split_their_own_patients_by_the_plans_rule() -> None:
    split = Split(rule=SplitRule.CEIL, validation=0.2, test=0.1)
    partition = draw(Kind.SIZE_SKEW, cohort(80), n_sites=5, split=split, seed=4)
    for site, n in sizes(partition).items():
        counts = {subset: of_subset(partition, subset)[site] for subset in Subset}
        assert counts == subset_counts(n, split)


def spread_of_sizes(kind: Kind) -> float:
    """Mean over seeds: the largest site's patients by those of an average one."""
    drawn = [draw(kind, cohort(200), n_sites=5, split=Split(), seed=seed) for seed in range(30)]
    return float(np.mean([max(sizes(partition).values()) / 40 for partition in drawn]))


def spread_of_tumours(kind: Kind) -> float:
    """Mean over seeds: the standard deviation between sites of the mean rank of tumour size."""
    rank = {f"p{number:03d}": number for number in range(200)}
    members = [Member(patient, 10 * place, 1, "") for patient, place in rank.items()]
    found = []
    for seed in range(30):
        partition = draw(kind, members, n_sites=5, split=Split(), seed=seed)
        ranks = [
            np.mean([rank[p] for p, place in partition.items() if place.site == site])
            for site in sizes(partition)
        ]
        found.append(np.std(ranks))
    return float(np.mean(found))


def test_a_size_skew_is_in_the_sizes_and_a_label_skew_in_the_tumours() -> None:
    assert spread_of_sizes(Kind.EQUAL) == 1
    assert spread_of_sizes(Kind.SIZE_SKEW) > 2
    assert spread_of_tumours(Kind.LABEL_SKEW) > 1.5 * spread_of_tumours(Kind.SIZE_SKEW)
    assert spread_of_tumours(Kind.LABEL_SKEW) > 2 * spread_of_tumours(Kind.EQUAL)


# --- folders ------------------------------------------------------------------------------------


def test_each_folder_is_a_site() -> None:
    members = cohort(20, ("CS", "St. Élie"))
    partition = draw(Kind.FOLDER, members, n_sites=None, split=Split(), seed=1)
    assert {m.folder: partition[m.patient].site for m in members} == {
        "CS": "cs",
        "St. Élie": "st-elie",
    }
    assert sizes(partition) == {"cs": 10, "st-elie": 10}


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("CS", ""), "don't lie in a folder"),
        (("CS", "cs"), "same name"),
        (("CS", "---"), "No name of a site"),
        (("CS", "con"), "No name of a site"),
        (("CS", "x" * 41), "No name of a site"),
    ],
)
def test_folders_that_are_no_sites_are_refused(folders: tuple[str, ...], words: str) -> None:
    with pytest.raises(ScanError, match=words):
        draw(Kind.FOLDER, cohort(20, folders), n_sites=None, split=Split(), seed=1)


def test_a_site_that_has_nobody_to_train_on_is_named_with_its_patients() -> None:
    members = [*cohort(10, ("CS",)), Member("q1", 5, 1, "EZ"), Member("q2", 6, 1, "EZ")]
    with pytest.raises(ScanError, match=r"ez \(2\)") as caught:
        draw(Kind.FOLDER, members, n_sites=None, split=Split(), seed=1)
    assert "cs" not in str(caught.value.found)


def test_a_number_becomes_the_name_of_a_site() -> None:
    names = site_names({text: text for text in ("1", "23", "107", "site-01x")})
    assert list(names.values()) == ["site-01", "site-23", "site-107", "site-01x"]


def test_a_simulated_site_has_the_split_that_a_real_one_would_make() -> None:
    members = cohort(30)
    sites = {member.patient: "a" for member in members}
    partition = split_sites(sites, members[::-1], split=Split(), seed=9)
    ordered = sorted(
        sites, key=lambda p: next(m for m in members if m.patient == p).n_tumour_voxels
    )
    real = assign(ordered, {}, Split(), seed=9)
    assert {patient: place.subset for patient, place in partition.items()} == real


# --- folds --------------------------------------------------------------------------------------


@given(
    n_of=st.lists(st.integers(5, 20), min_size=1, max_size=4),
    n_folds=st.integers(2, 5),
    split=SPLITS,
    seed=st.integers(0, 999),
)
def test_every_patient_is_held_out_in_exactly_one_fold(
    n_of: list[int], n_folds: int, split: Split, seed: int
) -> None:
    members = cohort(sum(n_of))
    names = [f"site-{site}" for site, n in enumerate(n_of) for _ in range(n)]
    sites = {member.patient: name for member, name in zip(members, names, strict=True)}
    held_out = Subset.TEST if split.test > 0 else Subset.VALIDATION
    times = Counter[str]()
    for number in range(n_folds):
        found = fold(sites, members, n_folds=n_folds, number=number, split=split, seed=seed)
        assert homes(found) == sites
        assert len(of_subset(found, Subset.TRAIN)) == len(n_of)
        times.update(p for p, place in found.items() if place.subset is held_out)
        for site, n in sizes(found).items():
            assert n // n_folds <= of_subset(found, held_out)[site] <= -(-n // n_folds)
            if split.test == 0:
                assert of_subset(found, Subset.TEST)[site] == 0
        back = fold(sites, members[::-1], n_folds=n_folds, number=number, split=split, seed=seed)
        assert back == found
    assert set(times.values()) == {1}
    assert len(times) == len(members)


def test_folds_of_many_small_sites_are_of_one_size_together() -> None:
    members = cohort(64)
    sites = {member.patient: f"site-{place // 4:02d}" for place, member in enumerate(members)}
    sizes_of = [
        of_subset(
            fold(sites, members, n_folds=3, number=number, split=Split(), seed=1), Subset.TEST
        ).total()
        for number in range(3)
    ]
    assert sorted(sizes_of) == [21, 21, 22]


def test_each_fold_has_small_and_large_tumours_of_each_site() -> None:
    members = [Member(f"p{place:02d}", place, 1, "") for place in range(30)]
    sites = {member.patient: "a" for member in members}
    for number in range(3):
        found = fold(sites, members, n_folds=3, number=number, split=Split(), seed=1)
        held = [m.n_tumour_voxels // 3 for m in members if found[m.patient].subset is Subset.TEST]
        assert held == list(range(10))  # one of each three neighbours


def test_the_validation_of_a_fold_is_the_plans_share_of_the_site() -> None:
    members = cohort(30)
    sites = {member.patient: "a" for member in members}
    found = fold(sites, members, n_folds=3, number=1, split=Split(validation=0.2), seed=1)
    counts = [of_subset(found, subset)["a"] for subset in Subset]
    assert counts == [14, 6, 10]


@pytest.mark.parametrize("n_folds", [0, 1, 5])
def test_folds_that_a_site_has_no_patients_for_are_refused(n_folds: int) -> None:
    members = cohort(14)
    sites = {m.patient: "small" if place < 4 else "large" for place, m in enumerate(members)}
    with pytest.raises(UsageError, match=r"small: 4"):
        fold(sites, members, n_folds=n_folds, number=0, split=Split(), seed=1)


def test_a_fold_that_leaves_a_site_nobody_to_train_on_is_refused() -> None:
    members = cohort(12)
    sites = {m.patient: "tiny" if place < 2 else "large" for place, m in enumerate(members)}
    with pytest.raises(ScanError, match=r"tiny \(2\)"):
        fold(sites, members, n_folds=2, number=0, split=Split(), seed=1)


# --- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("folder", (Kind.FOLDER, None)),
        ("brats2018", (Kind.BRATS2018, None)),
        ("equal:8", (Kind.EQUAL, 8)),
        ("size-skew:2", (Kind.SIZE_SKEW, 2)),
        ("label-skew:32", (Kind.LABEL_SKEW, 32)),
    ],
)
def test_an_option_names_a_kind_and_a_number_where_one_is_wanted(
    text: str, found: tuple[Kind, int | None]
) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "equal",
        "equal:",
        "equal:0",
        "equal:1",
        "equal:-4",
        "equal:x",
        "equal:٣",
        "equal:99999999999",
        "Equal:4",
        "folder:3",
        "folder:",
        "brats2018:10",
        "random:4",
    ],
)
def test_another_option_is_refused_with_the_list_of_kinds(text: str) -> None:
    with pytest.raises(UsageError, match="equal:K, size-skew:K, label-skew:K"):
        parse(text)


@pytest.mark.parametrize(
    ("kind", "largest"), [(Kind.EQUAL, 8), (Kind.SIZE_SKEW, 4), (Kind.LABEL_SKEW, 4)]
)
def test_too_many_sites_are_refused_and_the_most_that_go_are_named(
    kind: Kind, largest: int
) -> None:
    split = Split(validation=0.2, test=0.2)  # 8 of 14 train
    draw(kind, cohort(14), n_sites=largest, split=split, seed=1)
    for n_sites in (largest + 1, 1, None):
        with pytest.raises(UsageError, match=f"at most {largest} "):
            draw(kind, cohort(14), n_sites=n_sites, split=split, seed=1)
