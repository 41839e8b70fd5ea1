"""The command line's entry: ``wavegen`` and ``python -m wavegen``."""


def main() -> None:
    """Run the command line."""
    from wavegen.cli import app

    app(prog_name="wavegen")


if __name__ == "__main__":
    main()
