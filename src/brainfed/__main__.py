"""The command line, for `python -m brainfed` and the script; safe against an early Ctrl-C."""

import sys


def main() -> None:
    """Run the command line; exits with its code."""
    try:
        from brainfed.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        sys.stderr.write("error: Stopped by you\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
