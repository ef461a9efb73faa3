"""A simulation's work on a real Dask scheduler with workers in processes, on this machine alone."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from brainfed import plan as plans
from brainfed.errors import NotReadyError, NoWorkspaceError, ResourceError
from brainfed.formats import dataset
from brainfed.formats.dataset import Subset
from brainfed.steps import cluster
from brainfed.steps import simulated_party as party
from brainfed.steps.cluster import connected
from brainfed.steps.simulated_party import Call, Machine
from tests.builders import write_dataset
from tests.steps.joined import a_quick_plan

distributed = pytest.importorskip("distributed", reason="the extra `cluster` isn't installed")

SECONDS = 300  # the most that anything may take on a busy machine
TODAY = date(2026, 1, 2)
DASK = (sys.executable, "-m", "dask")
SITES = ("hospital-a", "hospital-b")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests alone may connect, and to this machine alone."""
    original = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in {"127.0.0.1", "::1"}, address
        original(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@contextlib.contextmanager
def at_work(*words: str, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask, which ends with the block, and all that it started."""
    with (folder / "dask.log").open("ab") as log:
        process = subprocess.Popen(
            [*DASK, *words],
            cwd=folder,
            env={**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "1", **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def a_scheduler(folder: Path, *words: str, **environment: str) -> Iterator[str]:
    """Gives its address."""
    folder.mkdir(parents=True, exist_ok=True)
    told = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    options += ("--scheduler-file", str(told), *words)
    with at_work("scheduler", *options, folder=folder, **environment):
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                yield json.loads(told.read_text())["address"]
                return
            time.sleep(0.05)
        pytest.fail((folder / "dask.log").read_text())


@contextlib.contextmanager
def workers(
    address: str, folder: Path, *words: str, n: int = 1, n_threads: int = 1, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Processes that work for a scheduler, which knows of them, and after the block of none."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--nworkers", str(n), "--nthreads", str(n_threads), "--host", "127.0.0.1")
    options += ("--no-dashboard", "--local-directory", str(folder), *words)
    n_before = n_workers(address)
    with at_work("worker", address, *options, folder=folder, **environment) as process:
        n_workers(address, until=n_before + n)
        yield process


def n_workers(address: str, until: int | None = None) -> int:
    with distributed.Client(address, set_as_default=False) as client:
        deadline = time.monotonic() + SECONDS
        while True:
            found = client.scheduler_info()["n_workers"]
            if until in {None, found}:
                return int(found)
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler with two workers."""
    folder = tmp_path_factory.mktemp("cluster")
    with a_scheduler(folder) as found, workers(found, folder / "workers", n=2):
        yield found


@pytest.fixture(scope="module")
def lonely_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A scheduler to which each test brings its workers."""
    with a_scheduler(tmp_path_factory.mktemp("lonely")) as found:
        yield found


@pytest.fixture
def lonely(lonely_address: str) -> str:
    """The same, once it knows of no worker."""
    n_workers(lonely_address, until=0)
    return lonely_address


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder, as far as a cluster looks into it."""
    (tmp_path / "out" / "cases").mkdir(parents=True)
    dataset.index_path(tmp_path / "out" / "cases").write_text("{}")
    return tmp_path / "out"


def a_run(folder: Path) -> Path:
    """The folder of a run whose parties have begun and have data."""
    folder.mkdir()
    plan = a_quick_plan()
    (folder / "plan.toml").write_text(plans.render(plan))
    party.begin(folder, "lead", SITES, TODAY)
    for name in SITES:
        shutil.rmtree(folder / name / "data", ignore_errors=True)
        write_dataset(folder / name / "data", plan)
    return folder


def train(folder: Path, name: str) -> Call:
    return Call(party.train, {"place": folder / name, "machine": Machine("cpu")}, computes=True)


def score(folder: Path, name: str) -> Call:
    words = {"place": folder / name, "number": 1, "subset": Subset.VALIDATION}
    return Call(party.score, {**words, "machine": Machine("cpu"), "today": TODAY}, computes=True)


def close(folder: Path) -> Call:
    words = {"folder": folder, "lead": "lead", "number": 1, "senders": SITES}
    return Call(party.close_round, {**words, "receivers": SITES, "today": TODAY})


def test_a_round_on_a_cluster_has_the_bits_of_one_in_this_process(
    address: str, folder: Path
) -> None:
    here = a_run(folder / "here")
    there = Path(shutil.copytree(here, folder / "there"))
    with connected(address, folder, uses_gpu=False) as workers_there:
        assert workers_there.n_workers == 2
        trained = [workers_there.submit(train(there, name)) for name in SITES]
        assert wait(trained, timeout=SECONDS, return_when=FIRST_COMPLETED).done
        assert [future.result(SECONDS)[0] for future in trained] == [3, 3]
        assert all(future.result()[1] > 0 for future in trained)
        workers_there.submit(close(there)).result(SECONDS)
        rows = [workers_there.submit(score(there, name)).result(SECONDS)[0] for name in SITES]
    assert [party.call(train(here, name))[0] for name in SITES] == [3, 3]
    party.call(close(here))
    assert rows == [party.call(score(here, name))[0] for name in SITES]
    pattern = "**/rounds/r0001/*.safetensors"
    found = {path.relative_to(here): path.read_bytes() for path in here.glob(pattern)}
    assert len(found) >= 5
    assert found == {path.relative_to(there): path.read_bytes() for path in there.glob(pattern)}
    assert party.audited(there, "lead") == party.audited(here, "lead")


def test_an_error_of_ours_comes_back_as_it_was_raised(address: str, folder: Path) -> None:
    with (
        pytest.raises(NoWorkspaceError) as caught,
        connected(address, folder, uses_gpu=False) as there,
    ):
        there.submit(train(folder, "nobody")).result(SECONDS)
    with pytest.raises(NoWorkspaceError) as here:
        party.call(train(folder, "nobody"))
    assert caught.value.details() == here.value.details()


def test_work_that_is_given_away_twice_is_done_twice(address: str, folder: Path) -> None:
    clock = Call(time.time_ns, {})
    with connected(address, folder, uses_gpu=False) as there:
        first = there.submit(clock).result(SECONDS)
        assert there.submit(clock).result(SECONDS) != first


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ("tcp://127.0.0.1:1", "Timed out"),
        ("127.0.0.1:8786", "neither"),
        ("tcp://127.0.0.1", "missing port"),
        ("", "neither"),
        ("ftp://127.0.0.1:8786", "neither"),
        ("inproc://127.0.0.1/1/1", "neither"),
        ("tls://127.0.0.1:1", "TLS configuration"),
    ],
)
def test_a_scheduler_that_cannot_be_reached_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, word: str
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with (
        pytest.raises(ResourceError, match="can't be reached") as caught,
        connected(wrong, folder, uses_gpu=False),
    ):
        pass
    assert caught.value.where == wrong
    assert word in (caught.value.found or "")


def test_something_that_listens_but_is_no_scheduler_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        wrong = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with (
            pytest.raises(ResourceError, match="can't be reached"),
            connected(wrong, folder, uses_gpu=False),
        ):
            pass


def test_a_scheduler_without_workers_is_refused_with_the_command_that_starts_one(
    lonely: str, folder: Path
) -> None:
    with (
        pytest.raises(ResourceError, match="has no worker") as caught,
        connected(lonely, folder, uses_gpu=False),
    ):
        pass
    assert caught.value.hint == f"dask worker {lonely} --nthreads 1"


def test_a_cluster_without_a_gpu_is_refused_where_one_is_asked_for(
    address: str, folder: Path
) -> None:
    with (
        pytest.raises(ResourceError, match="no worker with a GPU"),
        connected(address, folder, uses_gpu=True),
    ):
        pass


@pytest.mark.slow
def test_what_computes_goes_to_a_worker_with_a_gpu_alone(
    lonely: str, folder: Path, tmp_path: Path
) -> None:
    asked = Call(os.getenv, {"key": "KIND", "default": "plain"}, computes=True)
    with (
        workers(lonely, tmp_path / "plain", "--no-nanny"),
        workers(lonely, tmp_path / "gpu", "--no-nanny", "--resources", "GPU=1", KIND="gpu"),
        connected(lonely, folder, uses_gpu=True) as there,
    ):
        assert there.n_workers == 2
        found = [there.submit(asked) for _ in range(6)]
        assert {future.result(SECONDS)[0] for future in found} == {"gpu"}


def test_a_worker_with_several_threads_is_refused(
    lonely: str, folder: Path, tmp_path: Path
) -> None:
    with (
        workers(lonely, tmp_path / "wide", "--no-nanny", n_threads=2),
        pytest.raises(ResourceError, match="several things at a time") as caught,
        connected(lonely, folder, uses_gpu=False),
    ):
        pass
    assert caught.value.found == "2"


def test_a_worker_of_another_version_is_refused(lonely: str, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "brainfed-0.0.1.dist-info" / "METADATA"
    other.parent.mkdir()
    other.write_text("Metadata-Version: 2.1\nName: brainfed\nVersion: 0.0.1\n")
    with (
        workers(lonely, tmp_path / "old", "--no-nanny", PYTHONPATH=str(tmp_path)),
        pytest.raises(ResourceError, match="other packages") as caught,
        connected(lonely, folder, uses_gpu=False),
    ):
        pass
    assert "brainfed 0.0.1, " in (caught.value.found or "")


def test_a_worker_without_brainfed_is_refused(lonely: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "brainfed").mkdir()
    (tmp_path / "brainfed" / "__init__.py").touch()
    with (
        workers(lonely, tmp_path / "bare", "--no-nanny", PYTHONPATH=str(tmp_path)),
        pytest.raises(ResourceError, match="can't do brainfed's work") as caught,
        connected(lonely, folder, uses_gpu=False),
    ):
        pass
    assert "No module named" in (caught.value.found or "")


def test_a_worker_that_does_not_see_the_results_folder_is_refused(
    address: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cluster.view
    # This machine has one, where the workers have none.
    monkeypatch.setattr(cluster, "view", lambda place: real(folder))
    with (
        pytest.raises(ResourceError, match="doesn't see the results folder") as caught,
        connected(address, tmp_path / "elsewhere", uses_gpu=False),
    ):
        pass
    assert caught.value.found == "nothing there"


def test_a_worker_is_tried_again_with_each_piece_of_work(address: str, folder: Path) -> None:
    with connected(address, folder, uses_gpu=False) as there:
        # As if a worker had joined later, with another file system under that path.
        dataset.index_path(folder / "cases").write_text('{"another": 1}')
        with pytest.raises(ResourceError, match="doesn't see the results folder") as caught:
            there.submit(Call(time.time_ns, {})).result(SECONDS)
    assert caught.value.found == "another file"


def test_after_ctrl_c_nothing_more_is_begun(address: str, folder: Path, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()

    def mark(number: int) -> Call:
        words = ["sh", "-c", f"touch {marks}/{number}; sleep 1"]
        return Call(subprocess.run, {"args": words, "check": True})

    with (
        pytest.raises(KeyboardInterrupt),
        connected(address, folder, uses_gpu=False) as there,
    ):
        pending = [there.submit(mark(number)) for number in range(20)]
        wait(pending, timeout=SECONDS, return_when=FIRST_COMPLETED)
        raise KeyboardInterrupt
    n_begun = len(list(marks.iterdir()))
    time.sleep(3)
    assert n_begun <= len(list(marks.iterdir())) <= n_begun + 2


@pytest.mark.slow
def test_the_work_of_a_worker_that_dies_is_done_by_another(
    address: str, tmp_path: Path, folder: Path
) -> None:
    alive = tmp_path / "alive"
    alive.mkdir()
    words = ["sh", "-c", f"rmdir {alive} && kill -9 $PPID; echo done"]
    with connected(address, folder, uses_gpu=False) as there:
        one = Call(subprocess.run, {"args": words, "check": True, "capture_output": True})
        (result, _) = there.submit(one).result(SECONDS)
    assert result.stdout == b"done\n"
    assert b"No such file" in result.stderr


@pytest.mark.slow
def test_work_that_kills_its_workers_ends_with_what_is_kept(tmp_path: Path, folder: Path) -> None:
    patience = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with (
        a_scheduler(tmp_path / "dask", **patience) as impatient,
        workers(impatient, tmp_path / "workers"),
        pytest.raises(ResourceError, match="Workers died") as caught,
        connected(impatient, folder, uses_gpu=False) as there,
    ):
        there.submit(Call(os._exit, {"status": 1})).result(SECONDS)
    assert caught.value.found == "1 of them"
    assert "what was finished is kept" in (caught.value.hint or "")


@pytest.mark.slow
def test_a_simulation_whose_workers_have_all_gone_does_not_wait_for_ever(
    lonely: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "WATCH_SECONDS", 0.2)
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 1)
    with (
        workers(lonely, tmp_path / "workers", "--no-nanny") as process,
        pytest.raises(ResourceError, match="No worker is left"),
        connected(lonely, folder, uses_gpu=False) as there,
    ):
        pending = [there.submit(a_nap()) for _ in range(3)]
        os.killpg(process.pid, signal.SIGKILL)
        assert wait(pending, timeout=SECONDS, return_when=FIRST_COMPLETED).done
        pending[0].result(SECONDS)


def test_a_scheduler_that_is_lost_ends_with_what_is_kept(tmp_path: Path, folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        scheduler = stack.enter_context(contextlib.ExitStack())
        found = scheduler.enter_context(a_scheduler(tmp_path / "dask"))
        stack.enter_context(workers(found, tmp_path / "workers", "--no-nanny"))
        with (
            pytest.raises(ResourceError, match="connection to the scheduler was lost") as caught,
            connected(found, folder, uses_gpu=False) as there,
        ):
            pending = there.submit(a_nap())
            scheduler.close()
            pending.result(SECONDS)
    assert "what was finished is kept" in (caught.value.hint or "")


def a_nap() -> Call:
    return Call(subprocess.run, {"args": ["sleep", str(SECONDS)], "check": True})


def test_without_the_extra_the_answer_is_how_to_get_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(NotReadyError) as caught,
        connected("tcp://127.0.0.1:1", folder, uses_gpu=False),
    ):
        pass
    assert "pip install 'brainfed[cluster]'" in (caught.value.hint or "")


def certificates(folder: Path) -> dict[str, str]:
    """An authority, and one certificate by it, as Dask's environment variables name them."""
    folder.mkdir()
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("authority", "party")}
    names = {
        name: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        for name in ("authority", "party")
    }
    now = datetime.now(UTC)
    for name, key in keys.items():
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names["authority"])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=name == "authority", path_length=None), True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
            )
            .sign(keys["authority"], hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        keys["party"].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    prefix = "DASK_DISTRIBUTED__COMM"
    files = {f"{prefix}__TLS__CA_FILE": str(folder / "authority.pem")}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        files[f"{prefix}__TLS__{role}__CERT"] = str(folder / "party.pem")
        files[f"{prefix}__TLS__{role}__KEY"] = str(folder / "key.pem")
    return {**files, f"{prefix}__REQUIRE_ENCRYPTION": "true"}


@pytest.fixture
def under(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Has Dask read an environment anew, as a process does at its start."""
    import dask

    def refresh(environment: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("DASK_DISTRIBUTED__COMM")]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        dask.config.refresh()

    yield refresh
    refresh({})


@pytest.mark.slow
def test_work_goes_over_tls_with_dasks_own_settings_and_not_without_the_certificates(
    tmp_path: Path, folder: Path, under: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    under(certificates(tmp_path / "ours"))
    scheduler = a_scheduler(tmp_path / "dask", "--protocol", "tls")
    with scheduler as found, workers(found, tmp_path / "workers"):
        assert found.startswith("tls://")
        with connected(found, folder, uses_gpu=False) as there:
            assert there.submit(Call(time.time_ns, {})).result(SECONDS)[0] > 0
        monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
        under(certificates(tmp_path / "of-a-stranger"))
        with (
            pytest.raises(ResourceError, match="can't be reached"),
            connected(found, folder, uses_gpu=False),
        ):
            pass
        under({})
        with (
            pytest.raises(ResourceError, match="can't be reached"),
            connected(found.replace("tls:", "tcp:"), folder, uses_gpu=False),
        ):
            pass
