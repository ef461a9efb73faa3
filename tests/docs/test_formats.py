"""The pages of `docs/formats/` are held against the code: fields, limits, errors, examples."""

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import h5py
import numpy as np
import pytest

from brainfed import errors
from brainfed import plan as plans
from brainfed.core import averaging, canonical, claims, contenders, labels, metrics, sshsig
from brainfed.core.architecture import tensor_table
from brainfed.errors import BrainfedError, MalformedError
from brainfed.formats import (
    case_file,
    dataset,
    document,
    erasure,
    federation,
    floor,
    identities,
    ledger,
    manifest,
    quality_page,
    record,
    roster,
    rounds,
    score_table,
    scores,
    signature,
    simulation,
    simulation_findings,
    verify,
    weights,
    workspace,
)
from brainfed.formats.acceptance import Acceptance
from brainfed.formats.amendment import Amendment
from brainfed.formats.approval import Approval
from brainfed.formats.document import Belonging, Document, Header, PlanVersion
from brainfed.formats.enrolment import Enrolment
from brainfed.formats.erasure import Erasure
from brainfed.formats.final import Final
from brainfed.formats.manifest import Kind, Manifest
from brainfed.formats.record import Input, Record
from brainfed.formats.roster import Role, Roster
from brainfed.formats.scores import Scores
from brainfed.formats.start import Start
from brainfed.formats.workspace import Workspace
from brainfed.steps import (
    admit,
    aggregate,
    exchange,
    finish,
    initialise,
    receive,
    simulation_report,
)
from brainfed.steps import start as start_step
from brainfed.steps.gather import KINDS
from tests import builders, scored, simulated

DOCS = Path(__file__).resolve().parents[2] / "docs"
FORMATS = DOCS / "formats"
PAGES = sorted(FORMATS.glob("*.md"))
OURS = [
    *PAGES,
    *(
        page
        for room in ("explanation", "how-to", "decisions")
        for page in (DOCS / room).glob("*.md")
    ),
]
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "v1"
DAY = date(2026, 11, 23)
REGENERATE = "run `python docs/formats/examples.py`"


def page(name: str) -> str:
    return (FORMATS / f"{name}.md").read_text("utf-8")


def block(name: str, mark: str) -> str:
    """The fenced block below a line `<!-- mark -->`."""
    found = re.search(
        rf"<!-- {re.escape(mark)} -->\n```[a-z]*\n(.*?)^```$", page(name), re.S | re.M
    )
    assert found, f"{name}.md has no block under <!-- {mark} -->"
    return found[1]


def table(text: str) -> list[list[str]]:
    """The rows of the table that `text` begins with, without its head."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("|"):
            break
        lines.append([cell.strip() for cell in line.strip("|").split("|")])
    return lines[2:]


def table_under(name: str, mark: str) -> list[list[str]]:
    rows = table(page(name).split(f"<!-- {mark} -->\n", 1)[1])
    assert rows, f"{name}.md has no table under <!-- {mark} -->"
    return rows


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def canonical_of(shown: str) -> bytes:
    """The bytes of the file from JSON that is shown with line breaks."""
    return canonical.dumps(json.loads(shown))


@pytest.fixture(scope="module")
def examples() -> ModuleType:
    spec = importlib.util.spec_from_file_location("format_examples", FORMATS / "examples.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["format_examples"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


# --- fields -------------------------------------------------------------------------------------

FIELD_TABLES = [
    (path.stem, mark)
    for path in PAGES
    for mark in re.findall(r"<!-- fields: ([\w.]+) -->", path.read_text("utf-8"))
]


def class_of(dotted: str) -> Any:
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def fields_of(kind: Any) -> list[str]:
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return list(kind.model_fields)


@pytest.mark.parametrize(("name", "dotted"), FIELD_TABLES)
def test_the_table_of_fields_names_every_field_in_the_order_of_the_code(
    name: str, dotted: str
) -> None:
    rows = table_under(name, f"fields: {dotted}")
    assert [codes(row[0])[0] for row in rows] == fields_of(class_of(dotted))


def test_every_model_of_an_exchanged_or_local_json_file_has_a_table_of_fields() -> None:
    def below(kind: type[Document]) -> set[type[Document]]:
        return {kind, *(found for sub in kind.__subclasses__() for found in below(sub))}

    models: set[Any] = below(Document) - {Document, Header}
    assert Belonging in models
    models |= {dataset.Index, dataset.CaseEntry, dataset.SkippedCase, dataset.ExcludedCase}
    models |= {dataset.SplitFile, quality_page.QualityEntry, quality_page.Picture}
    models |= {score_table.About}
    models |= {simulation.Settings, simulation.SiteCounts, simulation.RunResult}
    models |= {simulation.Outcome, simulation.Point, simulation.PatientScore, simulation.HandOver}
    models |= {simulation_findings.Findings, simulation_findings.Judged, claims.Claim}
    models = {kind for kind in models if kind.__module__.startswith("brainfed.")}
    assert {class_of(dotted) for _, dotted in FIELD_TABLES} == models


def test_the_common_fields_of_signed_json_are_those_of_every_kind() -> None:
    rows = table_under("signed-json", "fields: brainfed.formats.document.Header plus kind")
    named = [codes(row[0])[0] for row in rows]
    assert named == [*Header.model_fields, "kind"]
    assert all(set(named) <= set(kind.model_fields) for kind in KINDS.values())
    assert set(codes(rows[1][2])) == set(KINDS)


def test_who_signs_what_is_what_the_code_lets_sign() -> None:
    rows = {codes(kind)[0]: by for kind, by, _ in table(after("signed-json", "## Who signs what"))}
    assert set(rows) == set(KINDS)
    for kind, roles in verify.SIGNERS.items():
        name = kind.model_fields["kind"].default
        assert {role for role in Role if str(role) in rows[name]} == roles, name


def after(name: str, heading: str) -> str:
    """What stands below a heading, from the first table on."""
    text = page(name).split(f"\n{heading}\n", 1)[1]
    return text[text.index("|") :]


WORDS = [
    ("manifest", "kind", manifest.Kind),
    ("manifest", "weights", manifest.ScoredWeights),
    ("manifest", "measure", floor.DICE),
    ("manifest", "region", plans.Region),
    ("record", "rule", plans.Rule),
    ("record", "weights_by", plans.WeightBy),
    ("record", "status", record.InputStatus),
    ("record", "reason", record.Reason),
    ("scores", "group", scores.Group),
    ("scores", "measure", manifest.Measure),
    ("scores", "region", plans.Region),
    ("roster", "role", roster.Role),
    ("roster", "status", roster.Status),
    ("split", "rule", plans.SplitRule),
    ("erasure", "reason", erasure.ErasureReason),
    ("case", "protocol", labels.LabelProtocol),
    ("simulation", "contenders", contenders.Contender),
    ("simulation", "training", contenders.Training),
    ("simulation", "verdict", claims.Verdict),
]


@pytest.mark.parametrize(("name", "field", "kind"), WORDS)
def test_a_field_of_a_closed_list_names_all_of_its_words(name: str, field: str, kind: Any) -> None:
    (cell,) = re.findall(rf"^\| `{field}` \| ([^|]*) \|", page(name), re.M)
    assert codes(cell) == [str(member) for member in kind]


def test_the_purposes_are_the_same_on_every_page() -> None:
    names = (
        "manifest",
        "start",
        "acceptance",
        "amendment",
        "record",
        "scores",
        "approval",
        "final",
        "erasure",
    )
    for name in names:
        (cell,) = re.findall(r"^\| `purpose` \| ([^|]*) \|", page(name), re.M)
        assert tuple(codes(cell)) == get_args(document.Purpose)


def test_the_measures_of_files_are_those_that_are_computed() -> None:
    assert [str(m) for m in manifest.Measure] == [str(m) for m in metrics.Measure]


EXAMPLES: dict[tuple[str, str], type[Document]] = {
    ("enrolment", "enrolment"): Enrolment,
    ("roster", "roster"): Roster,
    ("start", "start"): Start,
    ("acceptance", "acceptance"): Acceptance,
    ("amendment", "amendment"): Amendment,
    ("record", "record"): Record,
    ("scores", "scores"): Scores,
    ("approval", "approval"): Approval,
    ("final", "final"): Final,
    ("erasure", "erasure"): Erasure,
    ("manifest", "manifest-update"): Manifest,
    ("manifest", "manifest-below-floor"): Manifest,
    ("manifest", "manifest-global"): Manifest,
}


def test_every_kind_of_signed_json_has_an_example_on_its_page() -> None:
    assert set(KINDS.values()) == set(EXAMPLES.values()) - {Manifest}


@pytest.mark.parametrize(("name", "mark"), EXAMPLES)
def test_a_field_that_is_left_out_or_unknown_or_of_another_version_is_refused(
    name: str, mark: str
) -> None:
    kind = EXAMPLES[name, mark]
    content = json.loads(block(name, f"example: {mark}"))
    for field in content:
        with pytest.raises(MalformedError):
            kind.loads(canonical.dumps({k: v for k, v in content.items() if k != field}))
    with pytest.raises(MalformedError):
        kind.loads(canonical.dumps(content | {"comment": None}))
    for version in (0, 2):
        with pytest.raises(MalformedError, match="of format 1"):
            kind.loads(canonical.dumps(content | {"format": version}))


def test_an_unknown_word_is_refused_by_the_name_of_its_field() -> None:
    content = json.loads(block("record", "example: record"))
    with pytest.raises(MalformedError) as caught:
        Record.loads(canonical.dumps(content | {"rule": "fedprox"}))
    assert caught.value.where == "rule"
    assert "fedavg" in str(caught.value.expected)
    assert "newer than yours" in str(caught.value.hint)


# --- limits, errors, links, words ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("signed-json", document.MAX_JSON_BYTES),
        ("weights", weights.MAX_HEADER_BYTES),
        ("signature", sshsig.MAX_SIGNATURE_BYTES),
        ("start", plans.MAX_PLAN_BYTES),
        ("averaging", averaging.MAX_TOTAL_WEIGHT),
    ],
)
def test_a_limit_on_a_page_is_the_limit_in_the_code(name: str, value: int) -> None:
    assert f"{value:,}" in page(name)


def test_the_largest_integer_of_canonical_json_is_the_one_of_the_page() -> None:
    assert str(canonical.MAX_INTEGER) in block("canonical-json", "canonical: accepted").split()
    assert str(canonical.MAX_INTEGER + 1) in block("canonical-json", "canonical: refused").split()


def error_rows() -> list[tuple[str, str, int]]:
    rows = []
    for path in PAGES:
        for line in path.read_text("utf-8").splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            if line.startswith("|") and len(cells) == 3 and "Error`" in cells[1]:
                rows += [(path.stem, name, int(cells[2])) for name in codes(cells[1])]
    return rows


def test_every_error_on_a_page_exists_and_has_that_exit_code() -> None:
    rows = error_rows()
    assert len(rows) > 50
    for where, name, exit_code in rows:
        assert issubclass(getattr(errors, name), BrainfedError), f"{where}.md: {name}"
        assert getattr(errors, name).exit_code == exit_code, f"{where}.md: {name}"


def test_every_refusal_of_a_file_has_its_row() -> None:
    named = {name for _, name, _ in error_rows()}
    assert {kind.__name__ for kind in errors.FileRefusedError.__subclasses__()} <= named


def test_every_page_is_in_the_index() -> None:
    index = page("README")
    assert [path.name for path in PAGES if f"]({path.name})" not in index] == ["README.md"]


def test_the_modules_that_the_pages_name_exist() -> None:
    source = DOCS.parent / "src" / "brainfed"
    for path in OURS:
        for name in re.findall(
            r"`((?:core|formats|steps|cli)/\w+)(?:\.py)?`", path.read_text("utf-8")
        ):
            assert (source / f"{name}.py").is_file(), f"{path.name}: {name}"


# --- examples -----------------------------------------------------------------------------------


def test_the_examples_on_the_pages_are_those_of_the_script(examples: ModuleType) -> None:
    made = examples.examples()
    found: dict[str, str] = {}
    for path in PAGES:
        for _, name, text, _ in examples.BLOCK.findall(path.read_text("utf-8")):
            assert text == made[name], f"{path.name}, {name}: {REGENERATE}"
            found[name] = text
    assert set(found) == set(made)


@pytest.mark.parametrize(("name", "mark"), EXAMPLES)
def test_an_example_is_read_and_written_back(name: str, mark: str) -> None:
    data = canonical_of(block(name, f"example: {mark}"))
    assert EXAMPLES[name, mark].loads(data).dumps() == data


def test_the_digests_of_the_index_are_those_of_the_golden_files() -> None:
    lines = (line.split("  ") for line in block("README", "example: digests").splitlines())
    listed = {name: digest for digest, name in lines}
    signed = {path.with_suffix("").relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*.sig")}
    assert set(listed) == signed
    for name, digest in listed.items():
        assert hashlib.sha256((GOLDEN / name).read_bytes()).hexdigest() == digest
    made = Record.loads(canonical_of(block("record", "example: record")))
    start = canonical_of(block("start", "example: start"))
    assert made.federation == listed["federation/start.json"] == hashlib.sha256(start).hexdigest()
    prefix = f"rounds/r0002/walk-{made.federation[:8]}.r0002"
    assert made.global_digest == listed[f"{prefix}.uni-lead.global.safetensors"]
    for entry in made.inputs:
        assert entry.digest == listed[f"{prefix}.{entry.sender}.update.safetensors"]


@pytest.mark.parametrize("line", block("canonical-json", "canonical: accepted").splitlines())
def test_a_canonical_line_of_the_page_is_read_and_written_back(line: str) -> None:
    assert canonical.dumps(canonical.loads(line.encode())) == line.encode()


@pytest.mark.parametrize("line", block("canonical-json", "canonical: refused").splitlines())
def test_a_line_that_the_page_calls_refused_is_refused(line: str) -> None:
    with pytest.raises(MalformedError):
        canonical.loads(line.encode())


def test_the_signature_of_the_page_is_over_the_file_of_the_page() -> None:
    data = block("signature", "example: enrolment").rstrip("\n").encode()
    assert f"{len(data)} bytes in one line" in page("signature")
    text = block("signature", "example: enrolment-signature").encode()
    found = sshsig.parse_signature(text)
    sshsig.verify(found, hashlib.sha256(data).digest())
    assert found.armored == text
    assert found.key.line == Enrolment.loads(data).key


def test_the_line_for_ssh_keygen_on_the_page_accepts_the_example(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed (Debian: openssh-client)")
    (line,) = re.findall(r"^    (ssh-keygen -Y verify .*)$", page("signature"), re.M)
    (tmp_path / "federation").mkdir()
    signers = block("roster", "example: allowed-signers")
    (tmp_path / "federation" / "roster").write_text(signers)
    data = block("signature", "example: enrolment").rstrip("\n")
    (tmp_path / "u.safetensors").write_text(data)
    text = block("signature", "example: enrolment-signature")
    (tmp_path / "u.safetensors.sig").write_text(text)
    good = run_line(line, tmp_path)
    assert good.returncode == 0, good.stderr
    assert 'Good "brainfed" signature for hospital-a' in good.stdout
    (tmp_path / "u.safetensors").write_text(data + " ")
    assert run_line(line, tmp_path).returncode != 0


def run_line(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of a page in a shell, as a person would."""
    return subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False)


def test_the_files_for_ssh_keygen_of_the_page_follow_from_its_roster() -> None:
    there = Roster.loads(canonical_of(block("roster", "example: roster")))
    assert there.allowed_signers().decode() == block("roster", "example: allowed-signers")
    assert there.revoked_keys().decode() == block("roster", "example: revoked")


def test_the_header_of_the_page_is_the_header_of_the_example_file() -> None:
    (path,) = (GOLDEN / "rounds" / "r0001").glob("*.hospital-a.update.safetensors")
    data = path.read_bytes()
    text = block("weights", "example: header").replace("\n", "").encode()
    text += b" " * (-len(text) % 8)
    assert data.startswith(len(text).to_bytes(8, "little") + text)
    assert hashlib.sha256(data).hexdigest() in block("weights", "example: layout")


@pytest.mark.parametrize("n_dimensions", [2, 3])
def test_the_names_of_the_tensors_are_those_of_the_page(n_dimensions: int) -> None:
    rows = table_under("weights", "tensors")
    by_name = {codes(row[0])[0]: row[1:] for row in rows}
    channels = (3, 5, 7, 4)
    network = {"channels": channels, "norm": "instance", "deep_supervision": True}
    if n_dimensions == 3:
        network |= {"architecture": "unet-3d", "patch": (16, 16, 16)}
    plan = builders.a_plan(
        scans={"required": ("t1", "flair"), "regions": ("WT", "TC", "ET")}, network=network
    )
    known = {"r": 3, "c": lambda level: (2, *channels)[level]}
    n = len(channels)
    ranges = {"": [0], "1 to L": range(1, n + 1), "1 to L - 1": range(1, n), "2 to L - 1": [2, 3]}
    expected = {}
    for name, (shape, levels) in by_name.items():
        assert (".norm" in name or "deep" in name) == ("only with" in levels)
        for level in ranges[levels.split(";")[0]]:
            formula = f"{shape[:-1]},)"  # a shape of one number is a tuple too
            values = eval(formula, {"__builtins__": {}}, known | {"l": level})
            if len(values) == 4 and n_dimensions == 3:
                values = (*values, values[-1])
            expected[name.replace("{l}", str(level))] = values
    assert expected == tensor_table(plan)


def test_the_plan_digests_of_the_page_follow_from_its_plan_text() -> None:
    start = Start.loads(canonical_of(block("start", "example: start")))
    text = block("start", "example: plan")
    assert start.plan_text == text
    assert start.plan == PlanVersion(version=1, digest=hashlib.sha256(text.encode()).hexdigest())
    named = codes(re.findall(r"^\| data \| (.*) \|$", page("start"), re.M)[0])
    wanted = "".join(
        part for part in re.split(r"(?m)^(?=\[)", text) if part[1:].split("]")[0] in named
    )
    assert start.data == hashlib.sha256(wanted.rstrip("\n").encode() + b"\n").hexdigest()
    plan = plans.parse(text.encode())
    (network,) = re.findall(r"(?m)^\[network\]\n(?:.+\n)+", text)
    tensors = [[name, *shape] for name, shape in tensor_table(plan).items()]
    content = canonical.dumps({"network": network, "tensors": tensors})
    assert start.network == hashlib.sha256(content).hexdigest()


def test_the_ledger_of_the_page_is_a_whole_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text(block("ledger", "example: ledger"))
    assert len(ledger.read(path)) == 3


def test_the_local_files_of_the_pages_are_read_by_the_code(tmp_path: Path) -> None:
    dataset.index_path(tmp_path).write_text(block("cases-index", "example: cases"))
    dataset.split_path(tmp_path).write_text(block("split", "example: split"))
    identities.path_of(tmp_path).write_text(block("identities", "example: identities"))
    (entry,) = dataset.read_index(tmp_path)
    known = identities.read(tmp_path)
    assert known.case_id(known.cases[entry.id]) == entry.id
    assert known.patient_id(known.patients[entry.patient]) == entry.patient
    assert set(dataset.read_split(tmp_path).assignments) == {entry.patient}
    assert {codes(row[0])[0] for row in table_under("identities", "keys: identities")} == set(
        json.loads(block("identities", "example: identities"))
    )


def test_the_score_table_page_names_every_column_and_shows_a_table(tmp_path: Path) -> None:
    rows = table_under("score-table", "columns: score-table")
    assert tuple(codes(row[0])[0] for row in rows) == score_table.COLUMNS
    (shown,) = re.findall(r"```csv\n(.*?)```", page("score-table"), re.S)
    (tmp_path / "table.csv").write_text(shown)
    found, missed = score_table.read_table(tmp_path / "table.csv")
    assert found.dice > 0.8
    assert (missed.n_voxels_predicted, missed.dice) == (0, 0)


def test_the_simulation_page_names_every_column_claim_and_word(tmp_path: Path) -> None:
    rows = table_under("simulation", "columns: simulation-scores")
    assert tuple(codes(row[0])[0] for row in rows) == simulation_findings.COLUMNS
    simulated.a_simulation(tmp_path)
    (judged,) = simulation_report.write_report(tmp_path).findings.judged
    named = {codes(row[0])[0] for row in table_under("simulation", "claims")}
    assert named == {claim.name for claim in judged.claims}
    made = {path.name for path in tmp_path.iterdir()} - {"results"}
    assert made <= set(codes(page("simulation").split("## Settings")[0]))


def test_the_case_page_lists_every_dataset_and_attribute(tmp_path: Path) -> None:
    path = tmp_path / "case.h5"
    case = builders.a_case(builders.a_plan(scans={"required": ("t1", "flair")}))
    case_file.write_case(path, case)
    with h5py.File(path, "r") as file:
        listed = [codes(row[0])[0] for row in table_under("case", "attributes")]
        assert sorted(listed) == sorted(file.attrs)
        rows = {codes(row[0])[0]: row for row in table_under("case", "datasets")}
        assert set(rows) == set(file)
        for name, values in file.items():
            sizes = {"modality": 2, "z": case.label.shape[0], "y": 32, "x": 32, "1": 1}
            _, kind, axes, chunk, _ = rows[name]
            assert str(values.dtype) == kind
            assert values.shape == tuple(sizes[axis] for axis in axes[1:-1].split(", "))
            assert values.chunks == tuple(sizes[axis] for axis in chunk[1:-1].split(", "))
            assert values.compression == "lzf"
    assert f"`{case_file.CASE_FORMAT}`" in page("case")


def test_the_training_log_page_names_every_field_of_every_line() -> None:
    named: dict[str, list[str]] = {}
    for line, field, *_ in table_under("training-log", "lines"):
        named.setdefault(line, []).append(codes(field)[0])
    lines = [
        json.loads(line) for line in block("training-log", "example: training-log").splitlines()
    ]
    assert [list(line) for line in lines] == [
        named["score"],
        *[named["step"]] * 2,
        named["score"],
        named["closing"],
    ]


# --- averaging ----------------------------------------------------------------------------------


@pytest.mark.parametrize("line", block("averaging", "example: averaging-cases").splitlines())
def test_the_mean_of_the_page_is_the_mean_of_the_code(line: str) -> None:
    shares, values, mean = (part.split() for part in line.split(" | "))
    arrays = [np.array([int(bits, 16)], np.uint32).view(np.float32) for bits in values]
    result = averaging.weighted_mean(arrays, [int(share) for share in shares])
    assert f"{result.view(np.uint32)[0]:08x}" == mean[0]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    """A coordinator and three sites after round 1, by the steps; the sites' values are random."""
    root = tmp_path_factory.mktemp("federation")
    initialise.initialise(root / "uni-lead", Role.COORDINATOR, "uni-lead")
    names = ("ab", "a-c", "a1")
    for name in names:
        initialise.initialise(root / name, Role.SITE, name)
    found = {name: workspace.find(root / name) for name in ("uni-lead", *names)}
    lead, sites = found["uni-lead"], [found[name] for name in names]
    plan_path = root / "plan.toml"
    plan_path.write_text(plans.render(builders.a_plan()))
    enrolments = [site.outbox / f"{site.name}.enrolment.json" for site in sites]
    admit.admit(lead, enrolments, confirm=lambda _: True)
    start_step.start_federation(lead, plan_path, initial_weights=random_weights, today=DAY)
    with workspace.locked(lead):
        for number, site in enumerate(sites, start=1):
            receive.receive(site, [lead.outbox], confirm=lambda _: True)
            write_update(site, number)
            exchange.export(site, None)
        receive.receive(lead, [site.outbox for site in sites], confirm=lambda _: True)
        aggregate.aggregate(lead, today=DAY)
        finish.finish(lead, round_number=1, today=DAY)
    receive.receive(sites[0], [lead.outbox], confirm=lambda _: True)
    receive.receive(sites[0], [sites[1].outbox, plan_path], confirm=lambda _: True)
    stranger = root / "stranger"
    initialise.initialise(stranger, Role.SITE, "stranger")
    receive.receive(lead, [*stranger_file(stranger)], confirm=lambda _: True)
    builders.write_dataset(sites[0].data, builders.a_plan())
    scored.score(sites[0], scored.rows_of(range(3)), number=1)
    exchange.export(sites[0], None)
    return found


def stranger_file(root: Path) -> list[Path]:
    """A record-like file that nobody in the roster has signed."""
    place = workspace.find(root)
    path = root / "outbox" / "stranger.json"
    path.write_bytes(canonical.dumps({"kind": "record"}))
    signature.sign_file(path, place.private_key())
    return [path]


def random_weights(plan: plans.Plan, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(shape).astype(np.float32)
        for name, shape in tensor_table(plan).items()
    }


def write_update(site: Workspace, number: int) -> None:
    known = federation.load(site)
    about = rounds.new_manifest(
        known,
        1,
        kind=Kind.UPDATE,
        sender=site.name,
        parent=rounds.newest_global(site, known).digest,
        split="0" * 64,
        n_patients=3**number,
        n_cases=3**number,
        n_slices=100 * number,
        n_validation=1,
        versions={"brainfed": "0.1.0"},
    )
    folder = site.round_folder(1)
    folder.mkdir()
    weights.write(
        folder / known.weights_name(about), about, random_weights(known.first_plan, number)
    )


def test_the_numpy_block_gives_the_bits_of_aggregate(places: dict[str, Workspace]) -> None:
    text = block("averaging", "run: averaging")
    assert len([line for line in text.splitlines() if line]) <= 15
    scope: dict[str, Any] = {}
    exec(compile(text, "averaging.md", "exec"), scope)
    lead = places["uni-lead"]
    result = rounds.global_path(lead, 1)
    assert result is not None
    updates = rounds.update_paths(lead, 1)
    mean = scope["average"](list(reversed(updates)))
    assert mean.tobytes() == result.read_bytes()[weights.data_start(result) :]
    flat = [np.frombuffer(path.read_bytes()[weights.data_start(path) :], "<f4") for path in updates]
    shares = [weights.read_manifest(path).n_patients or 0 for path in updates]
    order = sorted(range(3), key=lambda i: weights.read_manifest(updates[i]).sender)
    ours = averaging.weighted_mean([flat[i] for i in order], [shares[i] for i in order])
    assert ours.tobytes() == mean.tobytes()


def test_the_record_names_every_active_site_by_name(places: dict[str, Workspace]) -> None:
    (path,) = rounds.records(places["uni-lead"], 1)
    inputs: tuple[Input, ...] = Record.loads(path.read_bytes()).inputs
    assert [entry.sender for entry in inputs] == ["a-c", "a1", "ab"]


def reserved_weights(lead: Workspace, path: Path) -> None:
    """A weight file of the reserved kind, signed by the coordinator."""
    known = federation.load(lead)
    parent = rounds.global_path(lead, 0)
    assert parent is not None
    about = rounds.new_manifest(
        known,
        1,
        kind=Kind.STATE,
        sender=lead.name,
        parent=signature.digest_of(parent).hex(),
        versions={"brainfed": "0.1.0"},
    )
    weights.write(path, about, random_weights(known.first_plan))


@pytest.mark.parametrize("kind", ["release", "state"])
def test_a_kind_that_never_comes_in_is_named_on_the_page_and_refused_by_name(
    kind: str, places: dict[str, Workspace], tmp_path: Path
) -> None:
    assert f"`{kind}`" in page("README").split("## Kinds that import refuses")[1].split("##")[0]
    lead = places["uni-lead"]
    site = workspace.find(shutil.copytree(places["a1"].root, tmp_path / "a1"))
    path = tmp_path / "file"
    if kind == "state":
        reserved_weights(lead, path)
    else:
        path.write_bytes(canonical.dumps({"format": 1, "kind": kind}))
    signature.sign_file(path, lead.private_key())
    (file,) = receive.receive(site, [path], confirm=lambda _: True).files
    assert isinstance(file.error, errors.FileRefusedError)
    assert kind in str(file.error.found)


# --- the workspace ------------------------------------------------------------------------------


def test_the_marker_of_the_page_makes_a_workspace(tmp_path: Path) -> None:
    (tmp_path / workspace.MARKER).write_text(block("workspace", "parse: brainfed.toml"))
    assert workspace.find(tmp_path) == Workspace(tmp_path, Role.SITE, "hospital-a", workspace.KEY)


def layout_patterns() -> list[str]:
    parts = {
        "<federation>": r"test-[0-9a-f]{8}",
        "<N>": r"\d{4}",
        "<V>": r"\d{4}",
        "<edition>": r"(\.e\d+)?",
        "<name>": r"[a-z0-9-]+",
        "<id>": r"[0-9a-f]{16}",
        "<file>": r"[^/]+",
    }
    patterns = []
    for line in block("workspace", "layout").splitlines():
        pattern = re.escape(line.split()[0])
        for name, meaning in parts.items():
            pattern = pattern.replace(re.escape(name), meaning)
        patterns.append(pattern)
    return patterns


def test_every_file_of_a_workspace_is_in_the_layout(places: dict[str, Workspace]) -> None:
    patterns = layout_patterns()
    used = set()
    for place in places.values():
        for path in place.root.rglob("*"):
            if path.is_file():
                name = path.relative_to(place.root).as_posix()
                hits = [pattern for pattern in patterns if re.fullmatch(pattern, name)]
                assert hits, f"{name} is not in the layout of workspace.md"
                used |= set(hits)
    unused = set(patterns) - used
    # The cases of these workspaces are written by the tests, without scans and without pictures.
    unused = {p for p in unused if not re.match(r"data/(cache|quality|review)", p)}
    assert {re.sub(r"\\", "", p).split("/")[0] for p in unused} <= {"inbox", "reports", "rounds"}
    assert not any(
        not re.search("training|optimiser|state|local", p) for p in unused if p.startswith("rounds")
    )


def test_local_and_secret_files_are_for_their_owner_alone(places: dict[str, Workspace]) -> None:
    if sys.platform == "win32":
        pytest.skip("Windows has other permissions")
    site = places["ab"]
    secret = [site.key_path, site.root / workspace.MARKER, site.ledger_path]
    secret += [path for path in site.data.rglob("*") if path.is_file()]
    assert len(secret) > 5
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in secret)


def test_every_event_of_the_ledger_and_its_fields_are_on_the_page(
    places: dict[str, Workspace],
) -> None:
    rows = {codes(row[0])[0]: codes(row[1]) for row in table_under("ledger", "events")}
    assert list(rows) == [str(event) for event in ledger.Event]
    seen = set()
    for place in places.values():
        for entry in ledger.read(place.ledger_path):
            further = set(entry) - {"at", "event", "previous"}
            assert further <= set(rows[entry["event"]])
            seen.add(entry["event"])
    assert seen >= {"made", "accepted", "refused"}


# --- the page on architecture -------------------------------------------------------------------


def test_every_module_has_its_place_on_the_page_on_architecture() -> None:
    text = (DOCS / "explanation" / "architecture.md").read_text("utf-8")
    named = set(codes(text))
    for room in ("core", "formats", "steps"):
        for path in (DOCS.parent / "src" / "brainfed" / room).glob("*.py"):
            assert path.stem in named or path.stem == "__init__", f"{room}/{path.name}"


def test_every_decision_is_in_the_list() -> None:
    folder = DOCS / "decisions"
    listed = re.findall(r"\]\((\d{4}-[a-z-]+\.md)\)", (folder / "README.md").read_text("utf-8"))
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
