"""``python -m snat_race``."""

import sys

if __name__ == "__main__":
    try:
        from snat_race.cli import main

        main()
    except KeyboardInterrupt:  # while Python was still importing
        sys.exit(130)
