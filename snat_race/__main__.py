"""``python -m snat_race``, and ``snat-race``."""

import sys


def main() -> None:
    """Run the command line; also while Python is still importing it, Ctrl-C is no accident."""
    try:
        from snat_race.cli import app

        app.main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
