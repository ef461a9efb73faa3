"""What a series is: descriptions as they are met on scanners, and the signs of contrast."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed.core.sequence_rule import default_rule, parse_rule
from brainfed.core.sequences import Choice, choose, judge
from brainfed.core.series import Doubtful, NotOurs, Recognised, SeriesFacts
from brainfed.plan import Modality

T1, T1CE, T2, FLAIR = Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR
RULE = default_rule()
ORIGINAL, DERIVED = ("ORIGINAL", "PRIMARY", "M"), ("DERIVED", "SECONDARY", "M")
TIMES = {
    "t1": {"echo_ms": 3.0, "repetition_ms": 2000.0, "inversion_ms": 900.0},
    "t2": {"echo_ms": 98.0, "repetition_ms": 5000.0},
    "flair": {"echo_ms": 120.0, "repetition_ms": 9000.0, "inversion_ms": 2500.0},
}
_number = iter(range(1, 1_000_000))


def a_series(description: str, like: str = "t1", at: str = "", **changes: object) -> SeriesFacts:
    """A series of 24 slices; `at` is the time of day, as in 1015."""
    number = next(_number)
    facts = SeriesFacts(
        series=f"1.2.{number}",
        number=number,
        description=description,
        image_type=ORIGINAL,
        n_files=24,
        n_slices=24,
        n_images=24,
        thickness_mm=5.0,
        started=f"20240131{at}00.000000" if at else "",
        **TIMES[like],
    )
    return replace(facts, **changes)


def chosen(*study: SeriesFacts) -> dict[Modality, str]:
    return {m: facts.description for m, facts in choose(study, RULE).images.items()}


# --- names of series, as vendors and sites write them

T2_NAMES = """
t2_tse_tra | AX T2 FSE | T2W_TSE | eT2W TSE | sT2W_3D_VISTA | Ax T2 PROPELLER | AXT2
T2 TSE ax 4mm | t2_blade_tra | t2_spc_sag_p2_iso | Sag CUBE T2 | T2 axial | T2 AX FS
OAx T2 FRFSE | t2_tse_dark_tra | AX T2 TSE POST | T2 post gado | T2 nach KM
T2 ponderado axial | T2 pesata assiale | 3DT2 | T2 transversaal | t2w_tse_tra_p2 | T2 横断
Ax T2 fs pat2 | AX_T2_BLADE_3mm | COR T2 TSE | T2W ax basal ganglia
""".replace("\n", "|")
FLAIR_NAMES = """
t2_tirm_tra_dark-fluid | AX T2 FLAIR | FLAIR_longTR | T2W_FLAIR
t2_space_dark-fluid_sag_p2_iso | Sag CUBE FLAIR | 3D_Brain_VIEW_FLAIR | AXFLAIR
t2_spc_da-fl_sag | Ax FLAIR +C | FLAIR axial | T2 FLAIR post | FLAIRpost | T2flair
FLAIR ax 3mm | sag 3D FLAIR | 3DFLAIR | eFLAIR FLAIR | FLAIR nach KM | t2_flair_cor
""".replace("\n", "|")
NATIVE_NAMES = """
T1 nativ | t1_se_tra nativ | T1 ohne KM | t1 vor KM | T1 nativ axial | AX T1 PRE
Ax T1 pre gad | T1 W/O | AX T1 W/O CONTRAST | T1 without contrast | t1_mprage_pre | T1 C-
T1 CE- | AX T1 NON CONTRAST | T1 PLAIN | T1 unenhanced | Sag T1 sans injection | T1 SANS GADO
T1 avant injection | T1 AX SIN CONTRASTE | T1 S/C | T1 sin gadolinio | T1 senza mdc
T1 basale | T1 SE SENZA | T1 sem contraste | T1 zonder contrast | T1 voor contrast | T1 blanco
T1 kontrastsız | T1 bez kontrastu | T1 przed kontrastem | T1 utan kontrast | 造影前T1
T1 単純 | T1 平扫 | T1 без контраста | AXT1PRE | T1precontrast | T1 o. KM
""".replace("\n", "|")
CONTRAST_NAMES = """
t1_mprage_sag_KM | T1 nach KM | t1_se_tra+KM | T1 mit Kontrastmittel | T1 n. KM | AX T1 POST
T1 POST GAD | AX T1 +C | Ax T1 C+ | SAG MPRAGE POST | AX T1 W/ CONTRAST | T1 with contrast
T1+C | T1+GD | BRAVO +C | AX BRAVO POST | 3D T1 FSPGR POST | T1W_3D_TFE_CE | sT1W_3D_TFE Gd
T1-CE | t1ce | T1GD | MPRAGE_Gd | T1 APRÈS GADO | T1 GADO | Ax T1 après injection
T1 avec injection | 3DT1 GADO | T1 INJ | T1 axial con contraste | T1 C/C | T1 con gadolinio
T1 CON CIV | T1 con mdc | T1 dopo mdc | T1 MDC | T1 m.d.c. | T1 con contrasto
T1 com contraste | T1 pós contraste | T1 pos gd | T1 com gadolínio | T1 met contrast
T1 na gado | T1 na contrast | T1 kontrastlı | T1 po kontraście | T1 z kontrastem
T1 efter kontrast | 造影後T1 | 造影 T1 | T1 增强 | T1 с контрастом | AXT1POST | T1wGd
AxT1Post | eTHRIVE post | vibe_tra_km | T1 FS post | Sag T1 FLAIR POST | T1 Dotarem
T1 gadovist axial | T1 delayed | T1 enhanced
""".replace("\n", "|")
SILENT_T1_NAMES = """
t1_mprage_sag_p2_iso | t1_mpr_sag_p2_iso | AX T1 | SAG T1 FLAIR | T1W_SE | sT1W_3D_TFE | BRAVO
Ax FSPGR 3D | 3D MPRAGE | t1_fl2d_tra | t1_tirm_tra | T1 axial postop | AX T1 W/WO CONTRAST
T1 mit und ohne KM | T1 FS ohne FS | T1 pre op | T1 post RT | T1 sans et avec injection
T1 con y sin contraste | Stealth T1 | T1 w/o fat sat
""".replace("\n", "|")
NO_SCANS = """
localizer | AAHead_Scout | Survey | 3 PLANE LOC | 3-pl T2 FGRE S | Smart Brain T1
Repérage T1 | t1_localizer | ep2d_diff_3scan_trace | DWI T2 | ADC | eADC | DTI 30 dir T2
T2* GRE | AX T2 GRE | t2_fl2d_tra_hemo | T2 STAR | SWI T2 | Ax SWAN | T2_FFE
perfusion T1 DCE | rCBV T1 | ASL | T1 dynamic | TOF 3D T1 | MRA T1 post | MIP T1 | T1 SUB
Subtraction T1 post | T1 Soustraction | T1 reformat | COR T1 MPRs | Screen Save T1 | T1 map
MAGiC T2 | T2 STIR | PD T2 TSE | DIR T2 | Ciss T2 | SAG T1 C SPINE | T2 cervical
T1 Orbita post | T1 sella post gad | T1 Hypophyse KM | T2 IAC | T1 HALS KM | T1 phase
mp2rage UNI T1 | B0 map | svs_se | asset cal T1 | T2 MRV | AX HEAD | ax se | Sequence 3
Patient Protocol | T1 拡散 |
""".replace("\n", "|")


def names(text: str) -> list[str]:
    return sorted({name.strip() for name in text.split("|")})


@pytest.mark.parametrize("name", [name for name in names(T2_NAMES) if name])
def test_a_series_of_this_name_is_a_t2(name: str) -> None:
    assert judge([a_series(name, "t2")], RULE) == (Recognised(T2),)


@pytest.mark.parametrize("name", [name for name in names(FLAIR_NAMES) if name])
def test_a_series_of_this_name_is_a_flair(name: str) -> None:
    assert judge([a_series(name, "flair")], RULE) == (Recognised(FLAIR),)


@pytest.mark.parametrize("name", [name for name in names(NATIVE_NAMES) if name])
def test_a_series_of_this_name_is_a_t1_without_contrast(name: str) -> None:
    assert judge([a_series(name)], RULE) == (Recognised(T1),)


@pytest.mark.parametrize("name", [name for name in names(CONTRAST_NAMES) if name])
def test_a_series_of_this_name_with_an_agent_is_a_t1_with_contrast(name: str) -> None:
    assert judge([a_series(name, contrast_agent="GADOVIST")], RULE) == (Recognised(T1CE),)
    # The name alone is one sign, and a T1 without contrast before it is a second.
    first, second = judge([a_series("AX T1", at="1000"), a_series(name, at="1020")], RULE)
    assert (first, second) == (Recognised(T1), Recognised(T1CE))
    (alone,) = judge([a_series(name)], RULE)
    assert isinstance(alone, Doubtful)


@pytest.mark.parametrize("name", [name for name in names(SILENT_T1_NAMES) if name])
def test_a_t1_whose_name_says_nothing_of_contrast_is_asked_for(name: str) -> None:
    (verdict,) = judge([a_series(name)], RULE)
    assert isinstance(verdict, Doubtful)
    assert verdict.modalities == (T1, T1CE)
    assert verdict.words.startswith("can't tell T1 from T1ce: series ")
    assert verdict.words.endswith("says nothing of contrast")


@pytest.mark.parametrize("name", names(NO_SCANS))
def test_a_series_of_this_name_is_none_of_ours(name: str) -> None:
    for like in TIMES:
        (verdict,) = judge([a_series(name, like)], RULE)
        assert isinstance(verdict, NotOurs), verdict


# --- contrast: more than one sign, and none that disagrees


def test_a_silent_t1_before_one_with_contrast_is_without() -> None:
    study = [a_series("t1", at="1000"), a_series("t1", at="1020", contrast_agent="Gd")]
    assert judge(study, RULE) == (Recognised(T1), Recognised(T1CE))
    assert judge(study[::-1], RULE) == (Recognised(T1CE), Recognised(T1))


def test_without_times_order_is_no_sign() -> None:
    study = [a_series("t1"), a_series("t1", contrast_agent="Gd")]
    assert all(isinstance(verdict, Doubtful) for verdict in judge(study, RULE))


def test_two_silent_t1s_are_both_asked_for_though_one_comes_later() -> None:
    study = [a_series("t1 sag", at="1000"), a_series("t1 tra", at="1020")]
    assert all(isinstance(verdict, Doubtful) for verdict in judge(study, RULE))


@pytest.mark.parametrize(
    ("name", "agent", "before", "why"),
    [
        ("T1 nativ", "GADOVIST", "", "its text without"),
        ("T1 post", "NONE", "", "the agent's tag without"),
        ("T1 post", "NONE", "t1", "the agent's tag without"),
        ("T1 pre injection, post", "GADOVIST", "t1", "says both"),
        ("T1", "GADOVIST", "", "by the agent's tag alone"),
        ("T1 KM", "", "", "by its text alone"),
        ("T1", "NONE", "", "says without contrast by the agent's tag alone"),
        ("T1", "", "T1 post gad", "follows a T1 with it"),
        ("T1 nativ", "", "T1 post gad", "follows a T1 with it"),
    ],
)
def test_one_sign_or_signs_that_disagree_are_a_question(
    name: str, agent: str, before: str, why: str
) -> None:
    study = [a_series(name, at="1020", contrast_agent=agent)]
    if before:
        given = "GADOVIST" if "post" in before else ""
        study.append(a_series(before, at="1000", contrast_agent=given))
    verdict = judge(study, RULE)[0]
    assert isinstance(verdict, Doubtful), verdict
    assert why in verdict.words


def test_a_name_of_the_whole_examination_says_nothing_of_a_series() -> None:
    protocol = "BRAIN WITH CONTRAST T1"
    study = [
        a_series("t1", at="1000", protocol=protocol),
        a_series("t2", "t2", at="1010", protocol=protocol),
        a_series("x", at="1020", protocol=protocol),
    ]
    first, _, third = judge(study, RULE)
    assert isinstance(first, Doubtful)
    assert isinstance(third, NotOurs)


def test_a_protocol_of_one_series_speaks_where_its_description_is_silent() -> None:
    facts = a_series("AX", protocol="t1_se_tra_KM", contrast_agent="Gd")
    assert judge([facts], RULE) == (Recognised(T1CE),)


def test_a_description_and_a_protocol_that_disagree_about_contrast_are_a_question() -> None:
    facts = a_series("T1 post", protocol="t1_nativ", contrast_agent="Gd")
    assert isinstance(judge([facts], RULE)[0], Doubtful)


@given(
    name=st.sampled_from(["T1", "T1 nativ", "T1 KM", "T1 pre post"]),
    agent=st.sampled_from(["", "none", "Gadovist"]),
    others=st.lists(
        st.tuples(
            st.sampled_from(["T1", "T1 nativ", "T1 KM"]),
            st.sampled_from(["", "none", "Gadovist"]),
            st.sampled_from(["", "0900", "1100"]),
        ),
        max_size=4,
    ),
)
def test_contrast_is_never_decided_by_one_sign_or_against_one(
    name: str, agent: str, others: list[tuple[str, str, str]]
) -> None:
    study = [a_series(name, at="1000", contrast_agent=agent)]
    study += [a_series(n, at=at, contrast_agent=a) for n, a, at in others]
    verdict = judge(study, RULE)[0]
    says_with = [name == "T1 KM", agent == "Gadovist"]
    says_without = [name == "T1 nativ", agent == "none"]
    if verdict == Recognised(T1CE):
        assert any(says_with)
        assert not any(says_without)
        assert all(says_with) or any(at == "0900" for _, _, at in others)
    if verdict == Recognised(T1):
        assert not any(says_with)
        assert name == "T1 nativ" or any(at == "1100" for _, _, at in others)


# --- what is refused whatever it is called


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"modality": "CT"}, "modality CT"),
        ({"modality": "PT"}, "modality PT"),
        ({"modality": ""}, "not given"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.7.2"}, "secondary capture"),
        ({"sop_class": "1.2.840.10008.5.1.4.1.1.66.4"}, "not an MR image"),
        ({"burned_in": True}, "burned-in"),
        ({"photometric": "RGB"}, "not a grey image (RGB)"),
        ({"n_orientations": 3}, "a localizer"),
        ({"n_slices": 3, "n_images": 3}, "3 slices"),
        ({"n_images": 48}, "48 images at 24 places"),
        ({"n_echoes": 2, "n_images": 48}, "2 echo times"),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, "a localizer"),
        ({"image_type": ("DERIVED", "PRIMARY", "PROJECTION IMAGE")}, "an angiogram"),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, "a reformat"),
        ({"image_type": ("DERIVED", "SECONDARY", "SCREEN SAVE")}, "a picture of a screen"),
        ({"scanning_sequence": ("EP", "SE")}, "echo-planar"),
    ],
)
def test_a_series_of_the_right_name_is_refused_for(change: dict[str, object], why: str) -> None:
    facts = a_series("T2", "t2")
    assert judge([facts], RULE) == (Recognised(T2),)
    (verdict,) = judge([replace(facts, **change)], RULE)
    assert isinstance(verdict, NotOurs)
    assert why in verdict.words


@pytest.mark.parametrize(
    ("name", "like", "modalities"),
    [
        ("T2 tse", "t1", (T2,)),
        ("FLAIR", "t1", (FLAIR,)),
        ("FLAIR", "t2", None),  # no inversion time in the header: nothing is against it
        ("T2 tse", "flair", (T2,)),
        ("T1 post", "t2", (T1, T1CE)),
        ("T1 und T2", "t1", (T1, T1CE, T2)),
    ],
)
def test_a_name_that_does_not_fit_the_numbers_is_a_question(
    name: str, like: str, modalities: tuple[Modality, ...] | None
) -> None:
    (verdict,) = judge([a_series(name, like)], RULE)
    if modalities is None:
        assert verdict == Recognised(FLAIR)
    else:
        assert isinstance(verdict, Doubtful)
        assert verdict.modalities == modalities


# --- one series of each


def a_study() -> list[SeriesFacts]:
    return [
        a_series("localizer", at="0955", n_orientations=3),
        a_series("t1_se_tra", at="1000"),
        a_series("t2_tse_tra", "t2", at="1005"),
        a_series("t2_tirm_tra_dark-fluid", "flair", at="1010"),
        a_series("ep2d_diff_ADC", at="1015", image_type=(*DERIVED, "ADC")),
        a_series("t1_se_tra_KM", at="1030", contrast_agent="Gadovist"),
    ]


def test_a_whole_study_is_told_apart() -> None:
    choice = choose(a_study(), RULE)
    assert {m: f.description for m, f in choice.images.items()} == {
        T1: "t1_se_tra",
        T1CE: "t1_se_tra_KM",
        T2: "t2_tse_tra",
        FLAIR: "t2_tirm_tra_dark-fluid",
    }
    assert not choice.doubts
    assert [facts.description for facts, _ in choice.left_over] == ["localizer", "ep2d_diff_ADC"]


@given(st.permutations(range(6)))
def test_the_order_of_the_series_in_the_folder_does_not_count(order: list[int]) -> None:
    study = a_study()
    assert choose([study[i] for i in order], RULE).images == choose(study, RULE).images


def test_an_original_is_taken_over_a_derived_one_with_more_slices() -> None:
    original = a_series("t2 tra", "t2")
    derived = a_series(
        "t2 mod", "t2", image_type=DERIVED, n_slices=200, n_images=200, thickness_mm=1.0
    )
    choice = choose([derived, original], RULE)
    assert choice.images == {T2: original}
    assert choice.left_over == ((derived, f"t2, but DERIVED; {original} is the ORIGINAL"),)


def test_a_certain_derived_series_does_not_stand_where_a_doubtful_original_may() -> None:
    derived = a_series("T1 KM mod", image_type=DERIVED, contrast_agent="Gd")
    original = a_series("T1 KM")
    choice = choose([derived, original], RULE)
    assert T1CE not in choice.images
    assert choice.doubts[T1CE].series == (original,)


def test_a_derived_series_without_an_original_is_taken_and_said_so() -> None:
    facts = a_series("t2 tra", "t2", image_type=DERIVED)
    choice = choose([facts], RULE)
    assert choice.images == {T2: facts}
    assert choice.remarks == (f"{facts}, taken as t2, is DERIVED; there is no ORIGINAL of it",)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"n_slices": 4, "n_images": 4}, "4 slices"),
        ({"n_sizes": 2}, "several sizes"),
        ({"n_images": 48}, "48 images at 24 places"),
        ({"n_orientations": 3}, "3 directions"),
        ({"n_echoes": 2}, "2 echo times"),
    ],
)
def test_a_derived_series_does_not_stand_in_silence_where_the_original_is_broken(
    broken: dict[str, object], why: str
) -> None:
    derived = a_series("t2 tra", "t2", image_type=DERIVED)
    original = a_series("t2 tra", "t2", **broken)
    choice = choose([derived, original, a_series("localizer")], RULE)
    assert choice.images == {}
    assert choice.doubts[T2].series == (derived,)
    assert why in choice.doubts[T2].words
    sound = a_series("t2 tra", "t2")
    assert choose([derived, original, sound], RULE).images == {T2: sound}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["T1", "T1 nativ", "T1 KM", "T2", "FLAIR", "T1 mpr", "DWI"]),
            st.booleans(),
            st.sampled_from(["", "Gadovist"]),
            st.sampled_from(["", "0900", "1000"]),
            st.integers(20, 22),
        ),
        max_size=6,
    )
)
def test_no_derived_series_ever_stands_where_an_original_may(
    rows: list[tuple[str, bool, str, str, int]],
) -> None:
    study = [
        a_series(
            name,
            {"T2": "t2", "FLAIR": "flair"}.get(name, "t1"),
            at=at,
            image_type=DERIVED if derived else ORIGINAL,
            contrast_agent=agent,
            n_slices=n,
            n_images=n,
        )
        for name, derived, agent, at, n in rows
    ]
    choice = choose(study, RULE)
    verdicts = dict(zip([f.series for f in study], judge(study, RULE), strict=True))
    for modality, facts in choice.images.items():
        may_be = [
            f
            for f in study
            if verdicts[f.series] == Recognised(modality)
            or (
                isinstance(verdicts[f.series], Doubtful)
                and modality in verdicts[f.series].modalities
            )
        ]
        assert not facts.is_derived or all(f.is_derived for f in may_be)
    # Every series is used, asked for or left over, and only one of these.
    used = [f.series for f in choice.images.values()]
    asked = {f.series for doubt in choice.doubts.values() for f in doubt.series}
    left = [f.series for f, _ in choice.left_over]
    assert sorted([*used, *asked, *left]) == sorted(f.series for f in study)


def test_more_and_thinner_slices_are_taken() -> None:
    thick = a_series("T2 tra", "t2")
    thin = a_series("T2 spc", "t2", n_slices=176, n_images=176, thickness_mm=1.0)
    choice = choose([thick, thin], RULE)
    assert choice.images == {T2: thin}
    assert choice.left_over == ((thick, f"t2, but {thin} has more or thinner slices"),)


@pytest.mark.parametrize("change", [{}, {"n_slices": 20, "n_images": 20, "thickness_mm": 3.0}])
def test_two_series_of_which_none_is_better_are_a_question(change: dict[str, object]) -> None:
    one, other = a_series("T2 tra", "t2"), replace(a_series("T2 rep", "t2"), **change)
    choice = choose([one, other], RULE)
    assert not choice.images
    assert choice.doubts[T2].series == (one, other)
    assert str(one) in choice.doubts[T2].words
    assert str(other) in choice.doubts[T2].words


def test_a_doubt_between_t1_and_t1ce_stands_under_both() -> None:
    facts = a_series("t1_mprage")
    choice = choose([facts], RULE)
    assert choice.doubts[T1] == choice.doubts[T1CE]
    assert choice.doubts[T1].series == (facts,)


def test_a_doubtful_series_is_left_over_where_others_are_certain() -> None:
    unsure = a_series("t1 cor", at="1040")
    choice = choose([*a_study(), unsure], RULE)
    assert set(choice.images) == set(Modality)
    assert "another series is certain" in dict(choice.left_over)[unsure]


def test_an_empty_study_has_nothing() -> None:
    assert choose([], RULE) == Choice({})


def test_a_sites_words_name_its_series() -> None:
    rule = parse_rule(
        b'format = "brainfed-sequences-0"\n[words]\nt1 = ["hirnrot"]\ncontrast = ["rot"]\n', "rule"
    )
    facts = a_series("HIRNROT ROT", contrast_agent="Gd")
    assert choose([facts], rule).images == {T1CE: facts}
    assert not choose([facts], RULE).images


def test_a_thickness_that_is_not_known_is_not_held_against_the_other() -> None:
    more = a_series("T2 tra", "t2", n_slices=30, n_images=30)
    fewer = a_series("T2 rep", "t2", thickness_mm=None)
    assert choose([fewer, more], RULE).images == {T2: more}


def test_a_t1_that_says_both_is_no_t1_without_to_come_after() -> None:
    study = [a_series("T1 pre injection, post", at="1000"), a_series("T1 KM", at="1020")]
    assert all(isinstance(verdict, Doubtful) for verdict in judge(study, RULE))
