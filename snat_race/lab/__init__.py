"""Experiments on this machine's kernel: a scenario, set up as a testbed, measured variant by variant."""
