"""What help and completion cost: `python tests/benchmarks/bench_help.py`.

CPU seconds (user and system, of the whole process) of `brainfed --help`, of a completion in a
shell, and of the help of a bare typer app with as many commands, in turns, so that a busy machine
slows all alike; prints the medians and ratios, and writes them to `docs/results/help.md`.
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
app = typer.Typer(add_completion=False{plain})
def command() -> None:
    "Do one thing."
for number in range({n}):
    app.command(f"command-{{number}}")(command)
app()
"""
COMPLETE = {
    "_BRAINFED_COMPLETE": "complete_bash",
    "COMP_WORDS": "brainfed evaluate --sub",
    "COMP_CWORD": "2",
}


def cpu_seconds(program: Path, variables: dict[str, str]) -> float:
    """Of one run of a program with `--help`, or of the completion that variables ask for."""
    with subprocess.Popen(
        [sys.executable, program, "--help"],
        stdout=subprocess.DEVNULL,
        env=os.environ | variables,
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{program.name} failed")
    return usage.ru_utime + usage.ru_stime


def report(seconds: dict[str, list[float]]) -> str:
    ours, completing, bare, _ = map(statistics.median, seconds.values())
    ratios = f"{ours / bare:.2f} for help, {completing / bare:.2f} for the tab key"
    verdict = "within" if max(ours, completing) / bare <= LIMIT else "ABOVE"
    return "\n".join(
        [
            "# What help and completion cost",
            "",
            f"CPU seconds of a whole process, median of {N_RUNS - 1} runs in turns; made by",
            "`python tests/benchmarks/bench_help.py`.",
            "",
            "| | median | fastest | slowest |",
            "|---|---|---|---|",
            *(f"| {name} | {_row(times)} |" for name, times in seconds.items()),
            "",
            f"Ratios to a bare typer app as it comes: {ratios}; {verdict} the limit of {LIMIT}.",
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
    n = len(typer.main.get_command(app).commands)
    bare = f"help of a bare typer app with {n} commands"
    with tempfile.TemporaryDirectory() as folder:
        ours, drawn, plain = (Path(folder, f"{name}.py") for name in ("ours", "drawn", "plain"))
        ours.write_text(OURS)
        drawn.write_text(BARE.format(n=n, plain=""))
        plain.write_text(BARE.format(n=n, plain=", rich_markup_mode=None"))
        programs: dict[str, tuple[Path, dict[str, str]]] = {
            "`brainfed --help`": (ours, {}),
            "the tab key after the beginning of an option": (ours, COMPLETE),
            f"{bare}, as it comes": (drawn, {}),
            f"{bare}, plain text": (plain, {}),
        }
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(N_RUNS):
            for name, (program, variables) in programs.items():
                seconds[name].append(cpu_seconds(program, variables))
    # The first run of each fills the caches of the disk.
    text = report({name: times[1:] for name, times in seconds.items()})
    sys.stdout.write(text)
    (ROOT / "docs" / "results" / "help.md").write_text(text)


if __name__ == "__main__":
    main()
