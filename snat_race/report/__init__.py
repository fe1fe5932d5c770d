"""From finished results to something to look at."""
