"""What help costs: `python tests/benchmarks/bench_help.py`.

CPU seconds (user and system, of the whole process) of `brainfed --help` and of a bare typer app
with as many commands, in turns, so that a busy machine slows both alike; prints the medians and
their ratio, and writes them to `docs/results/help.md`.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import typer

from brainfed.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1.3
N_RUNS = 31

OURS = "from brainfed.__main__ import main; main()"
BARE = """
import typer
app = typer.Typer(add_completion=False)
def command() -> None:
    "Do one thing."
for number in range({n}):
    app.command(f"command-{{number}}")(command)
app()
"""


def cpu_seconds(program: Path) -> float:
    """Of one run of a program with `--help`."""
    with subprocess.Popen(
        [sys.executable, program, "--help"], stdout=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{program.name} failed")
    return usage.ru_utime + usage.ru_stime


def report(ours: list[float], bare: list[float], n_commands: int) -> str:
    ratio = statistics.median(ours) / statistics.median(bare)
    verdict = "within" if ratio <= LIMIT else "ABOVE"
    return "\n".join(
        [
            "# What help costs",
            "",
            f"CPU seconds of a whole process, median of {len(ours)} runs in turns; made by",
            "`python tests/benchmarks/bench_help.py`.",
            "",
            "| | median | fastest | slowest |",
            "|---|---|---|---|",
            f"| `brainfed --help` | {_row(ours)} |",
            f"| a bare typer app with {n_commands} commands | {_row(bare)} |",
            "",
            f"Ratio of the medians: {ratio:.2f}, {verdict} the limit of {LIMIT}.",
            "",
            f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python "
            f"{platform.python_version()}, typer {version('typer')}, rich {version('rich')}, "
            f"brainfed {version('brainfed')}.",
            "",
        ]
    )


def _row(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} | {min(seconds):.3f} | {max(seconds):.3f}"


def main() -> None:
    n_commands = len(typer.main.get_command(app).commands)
    with tempfile.TemporaryDirectory() as folder:
        ours_program, bare_program = Path(folder, "ours.py"), Path(folder, "bare.py")
        ours_program.write_text(OURS)
        bare_program.write_text(BARE.format(n=n_commands))
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(N_RUNS):
            ours.append(cpu_seconds(ours_program))
            bare.append(cpu_seconds(bare_program))
    # The first run of each fills the caches of the disk.
    text = report(ours[1:], bare[1:], n_commands)
    sys.stdout.write(text)
    (ROOT / "docs" / "results" / "help.md").write_text(text)


if __name__ == "__main__":
    main()
