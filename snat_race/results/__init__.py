"""The contract: what a result holds, what a counter delta is, how a sample is laid out."""
