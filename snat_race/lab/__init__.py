"""Experiments on this machine's kernel: a scenario, set up as a rig, measured variant by variant."""
