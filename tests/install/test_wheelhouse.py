"""A machine without a network: what lies on the stick, what the page says, and that it installs."""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_string
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "install-offline.md"
CONTAINERS = ROOT / "docs" / "how-to" / "containers.md"
DOCKERFILE, DEFINITION = ROOT / "install" / "Dockerfile", ROOT / "install" / "brainfed.def"
PYTHON = "python3.11"


# The scripts stand beside each other and are no package.
sys.path.insert(0, str(ROOT / "install"))
wheelhouse, sbom = import_module("wheelhouse"), import_module("sbom")


def section(page: Path, title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page.read_text("utf-8"), re.S | re.M)
    assert found is not None, title
    return found[1]


def lines_of(page: Path, title: str) -> list[str]:
    """The lines that a person types, by section."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", section(page, title), re.S | re.M)
    return [line for block in blocks for line in block.splitlines()]


def a_wheel(folder: Path, name: str, version: str = "1.0", **files: str) -> Path:
    """A wheel as an archive; INFO in a name of `files` is its folder of metadata."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr(f"{info}/METADATA", metadata + "License-Expression: MIT\n")
        for where, text in files.items():
            packed.writestr(where.replace("INFO", info), text)
    return path


# --- what lies in the folder ---------------------------------------------------------------------


def test_requirements_name_each_wheel_once_in_order_with_its_digest(tmp_path: Path) -> None:
    for name in ("zeta", "brainfed", "Alpha_Beta"):
        a_wheel(tmp_path, name)
    found = wheelhouse.wheels_in(tmp_path)
    first, *lines = wheelhouse.requirement_lines(found, ["dicom", "encrypt"])
    assert first.startswith("# For CPython 3.") and "glibc 2.28" in first
    names = [line.partition(" ")[0] for line in lines]
    assert names == ["alpha-beta==1.0", "brainfed[dicom,encrypt]==1.0", "zeta==1.0"]
    done = subprocess.run(
        ["sha256sum", tmp_path / "zeta-1.0-py3-none-any.whl"], capture_output=True, check=True
    )
    assert lines[-1].endswith(f"--hash=sha256:{done.stdout.decode().split()[0]}")


def test_the_digests_are_those_that_sha256sum_checks(tmp_path: Path) -> None:
    a_wheel(tmp_path, "zeta")
    (tmp_path / "licences").mkdir()
    text = tmp_path / "licences" / "LICENSE"
    text.write_text("MIT")
    wheelhouse.write_sums(tmp_path)
    check = ["sha256sum", "-c", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
    text.write_text("mit")
    done = subprocess.run(check, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"licences/LICENSE: FAILED" in done.stdout


def test_licence_texts_and_the_makers_own_sboms_lie_apart_by_package(tmp_path: Path) -> None:
    files = {
        "INFO/licenses/LICENSE": "the text",
        "INFO/sboms/inside.json": "{}",
        "zeta/vendored/COPYING.txt": "another",
        "zeta/license.py": "code",
    }
    a_wheel(tmp_path, "zeta", **files)
    a_wheel(tmp_path, "bare")
    found = wheelhouse.wheels_in(tmp_path)
    assert wheelhouse.write_licences(tmp_path, found) == ["bare"]
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert {name for name in written if "/" in name} == {
        "licences/zeta-1.0/LICENSE",
        "licences/zeta-1.0/zeta/vendored/COPYING.txt",
        "sboms/zeta-1.0/inside.json",
    }
    with (tmp_path / "licences.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [
            ["bare", "1.0", "MIT", "0"],
            ["zeta", "1.0", "MIT", "2"],
        ]


def test_a_wheel_writes_nothing_above_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "house"
    folder.mkdir()
    a_wheel(folder, "evil", **{"../../LICENSE": "out", "/LICENSE": "root"})
    wheelhouse.write_licences(folder, wheelhouse.wheels_in(folder))
    assert {p.name for p in tmp_path.iterdir()} == {"house"}
    assert (folder / "licences" / "evil-1.0" / "LICENSE").exists()


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ("License-Expression: MIT OR BSD-3-Clause\nLicense: x\n", "MIT OR BSD-3-Clause"),
        ("Classifier: License :: OSI Approved :: BSD License\nLicense: x\n", "BSD License"),
        ("License: Some licence\n        and its text\n", "Some licence"),
        ("Name: nameless\n", "see its text"),
    ],
)
def test_the_licence_is_the_most_exact_that_is_declared(metadata: str, licence: str) -> None:
    assert wheelhouse.licence_of(message_from_string(metadata)) == licence


def test_the_bill_keeps_what_brainfed_needs_and_drops_the_tools_of_a_developer() -> None:
    names = sbom.needed("brainfed", ["encrypt"])
    assert {"brainfed", "torch", "numpy", "bcrypt", "pyrage", "sympy"} <= names
    assert not names & {"pytest", "ruff", "mypy", "pydicom", "distributed", "pip", "cyclonedx-bom"}
    edges = {"root": ["Torch==1"], "Torch==1": ["numpy==1", "pytest==1"], "pytest==1": []}
    bill = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"bom-ref": f"{n}==1", "name": n} for n in ("numpy", "pytest", "Torch")],
        "dependencies": [{"ref": name, "dependsOn": on} for name, on in edges.items()],
    }
    kept = sbom.only(bill, names)
    assert [entry["name"] for entry in kept["components"]] == ["numpy", "Torch"]
    assert [entry["dependsOn"] for entry in kept["dependencies"]] == [["Torch==1"], ["numpy==1"]]


def test_a_folder_with_files_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(SystemExit, match="must be new or empty"):
        wheelhouse.main(["gather", str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_key_that_is_not_there_is_said_before_anything_is_gathered(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="ssh-keygen -t ed25519"):
        wheelhouse.main(["gather", str(tmp_path / "out"), "--key", str(tmp_path / "none")])
    assert list(tmp_path.iterdir()) == []


def test_make_gives_the_words_of_the_page() -> None:
    words = ["make", "-n", "wheelhouse", "CUDA=cu128", "KEY=id", "EXTRAS=dicom", "WHEELHOUSE=w"]
    # As from a shell, also where `make test` itself runs this.
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, env=own)
    line = done.stdout.replace("\\\n", " ").splitlines()[-1]
    given = shlex.split(line)[1:]
    assert given == [
        *("install/wheelhouse.py", "gather", "w", "--extras", "dicom"),
        *("--torch", "cu128", "--key", "id"),
    ]


# --- what the pages say --------------------------------------------------------------------------


def test_the_page_of_containers_shows_the_recipes_as_they_are() -> None:
    text = CONTAINERS.read_text("utf-8")
    assert f"```dockerfile\n{DOCKERFILE.read_text('utf-8')}```\n" in text
    assert f"```text\n{DEFINITION.read_text('utf-8')}```\n" in text


def test_all_three_ways_install_by_the_same_words_and_no_index() -> None:
    def pip_words(text: str) -> set[str]:
        found = re.search(r"python -m pip install(.*?requirements\.txt)", text, re.S)
        assert found is not None
        return set(found[1].replace("\\\n", " ").split())

    typed = pip_words(section(PAGE, "At the site"))
    assert {"--no-index", "--require-hashes"} <= typed
    inside = {"--no-cache-dir", "--root-user-action=ignore"}
    assert pip_words(DOCKERFILE.read_text()) - inside == typed
    assert pip_words(DEFINITION.read_text()) - inside == typed


def test_the_dockerfile_has_known_instructions_no_network_and_a_user_who_is_not_root() -> None:
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    parts = [line.partition(" ")[::2] for line in text.splitlines()]
    assert [name for name, _ in parts] == ["ARG", "FROM", "RUN", "USER", "WORKDIR", "ENTRYPOINT"]
    told = dict(parts)
    assert told["RUN"].split()[0] == "--network=none"
    assert int(told["USER"].partition(":")[0]) > 0
    assert json.loads(told["ENTRYPOINT"]) == ["brainfed"]


def test_the_definition_of_apptainer_has_known_sections_and_its_scripts_are_sh() -> None:
    head, *parts = re.split(r"^%", DEFINITION.read_text(), flags=re.M)
    assert dict(line.split(": ") for line in head.split("\n") if line).keys() == {
        "Bootstrap",
        "From",
    }
    scripts = dict(part.split("\n", 1) for part in parts)
    assert list(scripts) == ["files", "post", "test", "runscript"]
    for name in ("post", "test", "runscript"):
        subprocess.run(["sh", "-n"], input=scripts[name], text=True, check=True)


def test_pages_beside_the_wheels_have_no_link_that_leads_nowhere(tmp_path: Path) -> None:
    wheelhouse._copy_along(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"README.md", "containers.md", "Dockerfile", "brainfed.def"}
    for path in tmp_path.glob("*.md"):
        assert "](" not in path.read_text("utf-8")


# --- from the stick to the demo ------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """A machine of a site: the stick in it, an empty home, and no network."""

    stick: Path
    home: Path

    def types(self, line: str, *, cut: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Type one line in the folder of the stick."""
        return subprocess.run(
            [*cut, "sh", "-c", line],
            cwd=self.stick,
            env={
                "HOME": str(self.home),
                "PATH": f"{self.home / 'path'}:/usr/bin:/bin",
                "TMPDIR": str(self.home / "tmp"),
                "PIP_NO_INDEX": "1",
                "PIP_CONFIG_FILE": os.devnull,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def cut_off() -> list[str]:
    """The words before a command that take the network away, where the system lets us."""
    words = ["unshare", "-rn"]
    can = shutil.which("unshare") and subprocess.run([*words, "true"], check=False).returncode == 0
    return words if can else []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A stick gathered and signed here (which needs an index), at a machine that has none."""
    folder = tmp_path_factory.mktemp("offline")
    home = folder / "home"
    for name in ("path", "tmp"):
        (home / name).mkdir(parents=True)
    (home / "path" / PYTHON).symlink_to(Path(sys.executable).resolve())
    key = folder / "maker"
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me@host", "-f", str(key)]
    subprocess.run(words, check=True)
    stick = folder / "wheelhouse"
    script = [sys.executable, ROOT / "install" / "wheelhouse.py", "gather", stick, "--key", key]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.move(folder / "wheelhouse.signers", home)
    return Site(stick, home)


@pytest.fixture(scope="module")
def typed(site: Site) -> dict[str, subprocess.CompletedProcess[str]]:
    """What the lines of the page came to, up to and with the demo and the plan."""
    cut = cut_off()
    return {line: site.types(line, cut=cut) for line in lines_of(PAGE, "At the site")}


@pytest.mark.slow
def test_a_site_checks_installs_and_runs_the_demo_by_the_lines_of_the_page(
    site: Site, typed: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    for line, done in typed.items():
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    check, _, install, demo, _ = typed.values()
    assert check.stdout.startswith('Good "brainfed-wheelhouse" signature for maker')
    assert len(check.stdout.splitlines()) == 1
    assert "Audit of the coordinator's folder" in demo.stdout
    assert (site.home / "brainfed-demo" / "uni-lead").is_dir()
    assert "Successfully installed" in install.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("typed")
def test_what_is_installed_is_whole_and_comes_from_the_stick_alone(site: Site) -> None:
    assert site.types("~/brainfed/bin/python -m pip check").returncode == 0
    listed = site.types("~/brainfed/bin/python -m pip list --format json")
    installed = {entry["name"].lower().replace("_", "-") for entry in json.loads(listed.stdout)}
    on_stick = {wheel.name for wheel in wheelhouse.wheels_in(site.stick)}
    assert installed - {"pip"} == on_stick
    where = site.types("~/brainfed/bin/python -c 'import brainfed.plan as p; print(p.__file__)'")
    assert where.stdout.startswith(str(site.home / "brainfed"))


@pytest.mark.slow
@pytest.mark.usefixtures("typed")
def test_the_shipped_plans_are_sound_where_they_lie(site: Site) -> None:
    lines = "cd ~/brainfed/lib/python3.*/site-packages/brainfed/plans && for p in *.toml; do "
    done = site.types(f"{lines} ~/brainfed/bin/brainfed plan check $p || exit 1; done", cut=())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("a sound plan") == len(list((ROOT / "plans").glob("*.toml")))


READ_ONLY = """
mount --bind "$HOME/work" "$HOME/work" && mount --bind "$HOME/tmp" "$HOME/tmp" &&
mount -o remount,bind,ro / && ! touch "$HOME/touched" 2>/dev/null &&
cd "$HOME/work" && exec unshare --map-user=4711 --map-group=4711 sh -c '
  B=$HOME/brainfed/bin/brainfed; D=$HOME/brainfed-demo; HOME=/; set -e
  $B init site --name hospital-a --patients 4
  $B check $D/scans/hospital-a --labels brats2017
  $B predict $D/uni-lead/rounds/r0010/*.global.safetensors $D/scans/hospital-a outlines \\
    --labels whole-tumour --start $D/uni-lead/federation/start.json --device cpu
  if $B doctor --help >/dev/null 2>&1; then $B doctor; fi
'
"""
"""A container's rules, by namespaces: no network, a user without a name, a home of nobody."""


@pytest.mark.slow
@pytest.mark.usefixtures("typed")
def test_it_runs_as_in_a_container_where_only_the_workspace_can_be_written(site: Site) -> None:
    cut = ["unshare", "-rmn"]
    if subprocess.run([*cut, "true"], check=False).returncode != 0:
        pytest.skip("namespaces of users and mounts are forbidden here")
    (site.home / "work").mkdir()
    done = site.types(READ_ONLY, cut=cut)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert (site.home / "work" / "brainfed.toml").exists()
    assert list((site.home / "work" / "outlines").iterdir())


@pytest.mark.slow
def test_the_sbom_fits_its_schema_and_has_every_wheel_with_its_digest(site: Site) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (site.stick / "sbom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    parts = [bill["metadata"]["component"], *bill["components"]]
    told = {sbom.canonicalize_name(part["name"]): part["hashes"][0]["content"] for part in parts}
    assert told == {wheel.name: wheel.digest for wheel in wheelhouse.wheels_in(site.stick)}
    assert "me@host" not in text
    broken = text.replace('"SHA-256"', '"SHA-255"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


@pytest.mark.slow
def test_every_wheel_is_pinned_has_a_licence_and_runs_with_the_oldest_glibc(site: Site) -> None:
    pinned = (ROOT / "constraints.txt").read_text("utf-8").lower().replace("_", "-")
    with (site.stick / "licences.csv").open(newline="") as file:
        texts = {row["package"]: int(row["texts"]) for row in csv.DictReader(file)}
    for wheel in wheelhouse.wheels_in(site.stick):
        if wheel.name != "brainfed":
            assert f"{wheel.name}=={wheel.version.partition('+')[0]}\n" in pinned
        assert texts[wheel.name] > 0, wheel.name
        younger = [int(n) for n in re.findall(r"manylinux_2_(\d+)", wheel.path.name)]
        assert min(younger, default=0) <= wheelhouse.GLIBC_MINOR, wheel.path.name


@pytest.mark.slow
def test_a_changed_wheel_is_refused_by_the_check_and_by_pip(site: Site, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    shutil.copytree(site.stick, stick, copy_function=os.link)
    wheel = next(stick.glob("annotated_doc-*.whl"))
    changed = bytearray(wheel.read_bytes())
    changed[100] ^= 1
    wheel.unlink()
    wheel.write_bytes(changed)
    other = Site(stick, site.home)
    check, venv, install, *_ = lines_of(PAGE, "At the site")
    assert "annotated_doc" in other.types(check).stdout
    assert other.types(check).returncode != 0
    elsewhere = Site(stick, tmp_path)
    (tmp_path / "path").symlink_to(site.home / "path")
    assert elsewhere.types(venv).returncode == 0
    done = elsewhere.types(install)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


@pytest.mark.slow
def test_a_changed_list_or_another_maker_is_refused(site: Site, tmp_path: Path) -> None:
    check = lines_of(PAGE, "At the site")[0]
    shutil.copy(site.stick / "SHA256SUMS.sig", tmp_path)
    sums = tmp_path / "SHA256SUMS"
    shutil.copy(site.stick / "SHA256SUMS", sums)
    sums.write_text(sums.read_text().replace("a", "b", 1))
    assert Site(tmp_path, site.home).types(check).returncode != 0
    signers = site.home / "wheelhouse.signers"
    kept = signers.read_text()
    assert "me@host" not in kept
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    signers.write_text(f"maker {(tmp_path / 'other.pub').read_text()}")
    try:
        assert site.types(check).returncode != 0
    finally:
        signers.write_text(kept)
    assert site.types(check).returncode == 0
