"""``python -m snat_race``."""

from snat_race.cli import main

if __name__ == "__main__":
    main()
