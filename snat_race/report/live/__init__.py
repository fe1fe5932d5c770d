"""What a run shows while it runs, on a terminal."""
