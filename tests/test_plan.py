import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainfed import plan as plans
from brainfed.errors import PlanError, UsageError
from brainfed.plan import Plan
from tests.builders import a_plan

FILES = sorted((Path(__file__).resolve().parents[1] / "plans").glob("*.toml"))

FRACTION = st.floats(0, 1)
SLUGS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)


@st.composite
def any_plan(draw: st.DrawFn) -> Plan:
    """Plans from the corners of what is allowed."""
    levels = draw(st.integers(2, 4))
    modalities = draw(st.permutations(list(plans.Modality)))
    cut = draw(st.integers(0, 3))
    epochs = draw(st.integers(0, 1000))
    edge = st.integers(2, 20).map(lambda n: n * 2 ** (levels - 1)).filter(lambda n: n >= 8)
    return Plan.model_validate(
        {
            "name": draw(SLUGS),
            "seed": draw(st.integers(0, 2**53 - 1)),
            "rounds": draw(st.integers(1, 9999)),
            "scans": {
                "required": modalities[: cut + 1],
                "optional": modalities[cut + 1 :],
                "regions": draw(st.permutations(list(plans.Region)))[: draw(st.integers(1, 3))],
            },
            "grid": {
                "in_plane_mm": draw(st.floats(0.001, 20)),
                "size": draw(st.tuples(edge, edge)),
            },
            "intensity": {"zscore": draw(st.sampled_from(plans.ZScore))},
            "split": {"validation": draw(st.floats(0, 0.4)), "test": draw(st.floats(0, 0.4))},
            "network": {
                "channels": draw(st.lists(st.integers(1, 4096), min_size=levels, max_size=levels)),
                "norm": draw(st.sampled_from(plans.Norm)),
                "dropout_levels": draw(st.lists(st.integers(1, levels), max_size=2)),
            },
            "training": {
                "rate": draw(st.floats(0, 10, exclude_min=True)),
                "epochs_per_round": epochs,
                "steps_per_round": 0 if epochs else draw(st.integers(1, 10**6)),
                "augmentation": {"flip": draw(FRACTION), "rotate_degrees": draw(FRACTION)},
            },
            "participation": {"quorum_sites": draw(st.integers(1, 10_000))},
            "terms": {"agreement_sha256": draw(st.sampled_from(["", "0a" * 32]))},
        }
    )


@given(any_plan())
def test_a_rendered_plan_reads_back_as_the_same_plan_and_the_same_bytes(plan: Plan) -> None:
    text = plans.render(plan)
    assert plans.parse(text.encode()) == plan
    assert plans.render(plans.parse(text.encode())) == text


def test_plans_are_shipped() -> None:
    assert {"demo", "sheller2018"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_plan_loads_under_its_own_name(path: Path) -> None:
    assert plans.load(path).name == path.stem


def test_a_rendered_plan_is_complete() -> None:
    def keys(table: dict[str, Any], prefix: str = "") -> list[str]:
        found = []
        for key, value in table.items():
            found += keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [prefix + key]
        return found

    assert keys(tomllib.loads(plans.render(a_plan()))) == plans.known_keys()


def test_the_order_of_the_keys_in_the_file_changes_no_digest() -> None:
    one = plans.parse(b'name = "a"\nrounds = 3\n[network]\nnorm = "none"\n[training]\nbatch = 2\n')
    other = plans.parse(b'rounds = 3\nname = "a"\n[training]\nbatch=2\n[network]\nnorm = "none"')
    assert plans.plan_digest(one) == plans.plan_digest(other)


def test_the_data_digest_changes_with_what_a_case_holds_and_with_nothing_else() -> None:
    plain = plans.data_digest(a_plan())
    assert plans.data_digest(a_plan(rounds=9, training={"rate": 0.1}, seed=3)) == plain
    for change in (
        {"grid": {"size": (64, 32)}},
        {"scans": {"regions": ("TC",)}},
        {"split": {"test": 0.1}},
        {"intensity": {"zscore": "volume"}},
        {"cohort": {"treatment": "any"}},
        {"preparation": {"space": "reference"}},
        {"preparation": {"brain": "classical"}},
    ):
        assert plans.data_digest(a_plan(**change)) != plain


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("[training]\nlerning_rate = 0.1", "training.rate"),
        ("[training]\nbatchs = 3", "training.batch"),
        ("[trainning]\nbatch = 3", "`training`"),
        ("[grid]\nbatch = 3", "training.batch"),
        ("quorum_sites = 3", "participation.quorum_sites"),
        ("[participation]\nqourum_sites = 3", "participation.quorum_sites"),
        ("[training.augmentation]\nflipp = 0.5", "training.augmentation.flip"),
    ],
)
def test_a_misspelt_key_is_named_with_the_nearest_right_one(text: str, near: str) -> None:
    with pytest.raises(PlanError, match="unknown key") as caught:
        plans.parse(f'name = "a"\n{text}\n'.encode())
    assert near in str(caught.value.expected)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("rounds = 0", "rounds"),
        ("rounds = 10000", "rounds"),
        ("rounds = 2.0", "rounds"),
        ('rounds = "2"', "rounds"),
        ("rounds = true", "rounds"),
        ("seed = -1", "seed"),
        ("seed = 9007199254740992", "seed"),
        ("[training]\nrate = 0", "training.rate"),
        ("[training]\nrate = nan", "training.rate"),
        ("[training]\nrate = inf", "training.rate"),
        ('[training]\nloss = "dice"', "training.loss"),
        ("[training]\nbatch = []", "training.batch"),
        ("[training]\nforeground_fraction = 1.5", "training.foreground_fraction"),
        ('[scans]\nrequired = ["t1", "adc"]', "scans.required.1"),
        ("[scans]\nregions = []", "scans.regions"),
        ('[scans]\nrequired = "t1"', "scans.required"),
        ('[scans]\nrequired = ["t1", "t1"]', "scans"),
        ('[scans]\nrequired = ["t1"]\noptional = ["t1"]', "scans"),
        ("[scans]\nrequired = []", "scans"),
        ("[grid]\nsize = [128]", "grid.size.1"),
        ("[grid]\nsize = [4, 128]", "grid.size.0"),
        ("[grid]\nin_plane_mm = -1", "grid.in_plane_mm"),
        ("[split]\nvalidation = 0.5\ntest = 0.5", "split"),
        ("[network]\nchannels = [32]", "network.channels"),
        ("[network]\nchannels = [32, 0]", "network.channels.1"),
        ("[network]\ndropout = 1.0", "network.dropout"),
        ("[training]\nsteps_per_round = 3", "training"),
        ("[training]\nepochs_per_round = 0", "training"),
        ("[participation]\nquorum_sites = 0", "participation.quorum_sites"),
        ('[terms]\nweights_licence = "a b"', "terms.weights_licence"),
        ('[terms]\nweights_licence = "a\\n"', "terms.weights_licence"),
        ('[terms]\nminimum_version = "1"', "terms.minimum_version"),
        ("[terms]\nagreement_sha256 = 'ff'", "terms.agreement_sha256"),
        ("cohort = 2026-01-01", "cohort"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(text: str, key: str) -> None:
    with pytest.raises(PlanError) as caught:
        plans.parse(f'name = "a"\n{text}\n'.encode())
    assert f"`{key}`" in caught.value.message
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"grid": {"size": (30, 32)}, "network": {"channels": (4, 8, 16)}},
        {"network": {"channels": (4, 8), "dropout_levels": (3,)}},
        {"grid": {"size": (8, 8)}, "network": {"channels": (1, 1, 1, 1), "norm": "instance"}},
    ],
)
def test_sections_that_do_not_fit_together_are_refused(changes: dict[str, Any]) -> None:
    tables = {
        name: "\n".join(
            f"{key} = {list(value) if isinstance(value, tuple) else repr(value)}"
            for key, value in table.items()
        )
        for name, table in changes.items()
    }
    text = 'name = "a"\n' + "\n".join(f"[{name}]\n{body}" for name, body in tables.items())
    with pytest.raises(PlanError, match="fit together"):
        plans.parse(text.encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"name",
        b"\xff\xfe",
        b'name = "a"\nname = "b"',
        b'name = "a"\nseed = ' + b"9" * 5000,
        b'name = "a"\nseed = 0x' + b"f" * 5000,
        b'name = "a"\nseed = ' + b"[" * 5000,
        b"a." * 2_000 + b"a = 1",
        b'name = "' + b"a" * 70_000 + b'"',
        b"\0",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_bytes_that_are_no_plan_are_refused_as_a_plan_error(data: bytes) -> None:
    with pytest.raises(PlanError):
        plans.parse(data)


def test_a_plan_that_is_not_there_is_a_plan_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="can't be read"):
        plans.load(tmp_path / "missing.toml")
    with pytest.raises(PlanError, match="can't be read"):
        plans.load(tmp_path)


@pytest.mark.parametrize("name", ["a", "hospital-a", "0", "a" * 40])
def test_a_name_of_small_letters_digits_and_inner_hyphens_is_allowed(name: str) -> None:
    plans.check_name(name)


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a-", "a_b", "a.b", "a b", "a/b", "..", "*", "ä", "a" * 41, "a\n"]
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        plans.check_name(name)
    with pytest.raises(PlanError):
        plans.parse(plans.render(a_plan()).replace('"test"', f'"{name}"').encode())


@pytest.mark.parametrize("name", ["con", "nul", "com1", "Hospital", "a b", "", "-a", "x" * 41])
def test_a_name_that_some_file_system_refuses_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="can't be used"):
        plans.check_name(name)


def test_a_negative_zero_is_written_as_zero() -> None:
    text = b'name = "x"\n[grid]\nin_plane_mm = -0.0\n'

    assert plans.render(plans.parse(text)) == plans.render(plans.parse(b'name = "x"'))


FORMAT_1 = b'format = 1\nname = "a"\n'
ATLAS = {"space": "atlas", "brain": "classical", "atlas": "spgr.nii.gz", "atlas_sha256": "0a" * 32}


def test_a_plan_of_format_1_is_written_without_the_later_tables() -> None:
    old, new = plans.parse(FORMAT_1), plans.parse(b'name = "a"\n')
    assert (old.format, new.format) == (1, 3)
    assert "preparation" not in plans.render(old)
    assert "[preparation]" in plans.render(new)
    assert plans.render(plans.parse(plans.render(old).encode())) == plans.render(old)
    assert not any(key.startswith("preparation") for key in plans.flat(old))
    assert old.preparation == new.preparation  # it means what the defaults say


def test_the_digests_of_a_plan_of_format_1_are_what_they_were() -> None:
    # As brainfed said before there was format 2.
    old = plans.parse(FORMAT_1)
    assert plans.data_digest(old).startswith("fd7e9f1b071a3272adf258dbec39afc3")
    assert plans.plan_digest(old).startswith("d67bd2669d026b3fd8a0d83f433981e1")


def test_a_table_that_came_later_is_refused_in_an_old_plan() -> None:
    with pytest.raises(PlanError) as caught:
        plans.parse(FORMAT_1 + b'[preparation]\nspace = "reference"\n')
    assert "format = 2" in str(caught.value.expected)


def test_an_atlas_needs_its_file_and_digest_and_no_other_space_has_one() -> None:
    assert a_plan(preparation=ATLAS).preparation.atlas == "spgr.nii.gz"
    for wrong in (
        {"space": "atlas", "brain": "classical"},
        {**ATLAS, "space": "reference"},
        {**ATLAS, "atlas_sha256": ""},
        {**ATLAS, "atlas": "../spgr.nii.gz"},
        {**ATLAS, "atlas": "spgr.nrrd"},
        {**ATLAS, "brain": "head"},
        {"space": "mni152"},
    ):
        with pytest.raises(ValueError, match="atlas"):
            a_plan(preparation=wrong)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[network]\npatch = [16, 16, 16]\narchitecture = 'unet-3d'", "network.patch"),
        ("[network]\ndeep_supervision = true", "network.deep_supervision"),
        ("[training]\nclip_norm = 1.0", "training.clip_norm"),
        ("[training]\noptimiser_state = 'keep'", "training.optimiser_state"),
        ("[training.augmentation]\ngamma = 0.5", "training.augmentation.gamma"),
    ],
)
def test_a_key_that_came_later_is_refused_in_an_old_plan_and_not_written_there(
    text: str, key: str
) -> None:
    with pytest.raises(PlanError) as caught:
        plans.parse(FORMAT_1 + text.encode())
    assert f"{key} needs format = 2" in str(caught.value.expected)
    assert key in plans.flat(plans.parse(b'name = "a"\n'))
    assert key not in plans.flat(plans.parse(FORMAT_1))


def test_an_old_plan_knows_new_words_of_its_keys() -> None:
    plan = plans.parse(FORMAT_1 + b"[training]\noptimiser = 'sgd'\nschedule = 'polynomial'\n")
    assert plan.training.momentum == 0.99
    assert plans.parse(plans.render(plan).encode()) == plan


THREE_D = {"architecture": "unet-3d", "channels": (2, 3, 4), "patch": (8, 16, 16)}


def test_a_3d_network_needs_a_patch_that_fits_and_no_other_has_one() -> None:
    assert a_plan(network=THREE_D).network.n_dimensions == 3
    # The grid needs to be no multiple: it is the patch that is halved.
    assert a_plan(network=THREE_D, grid={"size": (33, 35)}).grid.size == (33, 35)
    for wrong, reason in (
        ({**THREE_D, "patch": ()}, "three numbers"),
        ({**THREE_D, "patch": (16, 16)}, "three numbers"),
        ({**THREE_D, "architecture": "unet-2d"}, "empty for others"),
        ({**THREE_D, "patch": (8, 16, 18)}, "multiples of 4"),
        ({**THREE_D, "patch": (8, 64, 16)}, "larger than the slices"),
        ({**THREE_D, "channels": (2, 3, 4, 5), "patch": (8, 8, 8), "norm": "instance"}, "one"),
        ({**THREE_D, "channels": (2, 3), "deep_supervision": True}, "decoder level below"),
    ):
        with pytest.raises(ValueError, match=reason):
            a_plan(network=wrong)


def test_local_names_some_of_the_network_s_tensors_but_not_all() -> None:
    plan = a_plan(network={"local": ("head.bias", "head.weight")})
    assert plans.parse(plans.render(plan).encode()) == plan
    names = plan.network.tensor_names
    deep = {**THREE_D, "norm": "instance", "deep_supervision": True}
    for network, reason in (
        ({"local": ("head.wieght",)}, "'head.wieght'.*'head.weight' is"),
        ({"local": ("encoder.level3.conv1.bias",)}, "not among the tensors"),
        ({"local": ("encoder.level1.norm1.weight",)}, "not among the tensors"),
        ({"local": ("head.bias", "head.bias")}, "twice"),
        ({"local": names}, "nothing to average"),
        ({**deep, "local": ("deep.level3.bias",)}, "not among the tensors"),
    ):
        with pytest.raises(ValueError, match=reason):
            a_plan(network=network)
    norms = ("encoder.level3.norm2.weight", "decoder.level2.norm1.bias", "deep.level2.bias")
    assert a_plan(network={**deep, "local": norms}).network.local == norms


EXTERNAL = {
    "architecture": "external",
    "tensors": ("a.weight F32 4 1 3 3", "a.bias F32 4", "steps I64", "mine.weight F32 2"),
    "local": ("steps", "mine.weight"),
}


def test_an_external_network_is_its_tensors() -> None:
    plan = a_plan(network=EXTERNAL, grid={"size": (33, 35)})
    assert plan.network.n_dimensions == 0
    assert plans.parse(plans.render(plan).encode()) == plan
    for wrong, reason in (
        ({**EXTERNAL, "tensors": ()}, "needs its tensors"),
        ({**EXTERNAL, "tensors": (*EXTERNAL["tensors"], "a.bias F32 5")}, "named once"),
        ({**EXTERNAL, "local": ("steps", "other")}, "'other'"),
        ({**EXTERNAL, "local": ("mine.weight",)}, "'steps' is I64"),
        (
            {**EXTERNAL, "local": ("steps", "mine.weight", "a.weight", "a.bias")},
            "nothing to average",
        ),
        ({**EXTERNAL, "architecture": "unet-2d"}, "external"),
        ({"architecture": "external", "tensors": ('a" F32 4',)}, "pattern"),
        ({"architecture": "external", "tensors": ("a F32 0",)}, "pattern"),
    ):
        with pytest.raises(ValueError, match=reason):
            a_plan(network=wrong)


def test_approval_and_intended_use_came_with_format_3() -> None:
    for text in (b"[exchange]\napproval = true\n", b"[terms]\nintended_use = 'teaching'\n"):
        for old in (1, 2):
            with pytest.raises(PlanError) as caught:
                plans.parse(f'format = {old}\nname = "a"\n'.encode() + text)
            assert f"needs format = 3, not {old}" in str(caught.value.expected)
        assert plans.parse(b'name = "a"\n' + text).format == 3
    assert "exchange.approval" not in plans.flat(plans.parse(b'format = 2\nname = "a"\n'))


def test_the_digest_of_a_plan_of_format_2_is_what_it_was() -> None:
    old = plans.parse(b'format = 2\nname = "a"\n')
    # As brainfed said before there was format 3.
    assert plans.plan_digest(old).startswith("a19068554fd29ea98b8cdbc46065e672")


@pytest.mark.parametrize(
    "use", ["", "x" * 401, "two\nlines", 'a "quote"', "back\\slash", "\u202ea"]
)
def test_an_intended_use_is_one_plain_line(use: str) -> None:
    with pytest.raises(ValueError, match="intended_use"):
        a_plan(terms={"intended_use": use})


def test_an_intended_use_may_be_in_any_language_and_is_read_back() -> None:
    plan = a_plan(terms={"intended_use": "Forschung über Hirntumoren, nicht für die Diagnose."})
    assert plans.parse(plans.render(plan).encode()) == plan
