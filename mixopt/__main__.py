"""`python -m mixopt`, and the `mixopt` command."""

import sys


def main() -> None:
    """Run the command line; without its packages, say which to install."""
    try:
        from mixopt.cli import run_command_line
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"mixopt: the command line needs {error.name}: pip install 'mixopt[cli]'\n"
        )
        raise SystemExit(2) from None
    except (ImportError, MemoryError) as error:  # memory ran out as a library was loaded
        reason = " ".join(str(error).split()) or "out of memory"
        sys.stderr.write(f"mixopt: the command line cannot be loaded: {reason}\n")
        raise SystemExit(2) from None
    run_command_line()


if __name__ == "__main__":
    main()
