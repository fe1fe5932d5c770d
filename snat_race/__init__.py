"""Reproduce, measure and explain the SYNs that Linux loses to the SNAT port race."""

import os

__version__ = "0.1.0"

# numpy's BLAS would start a thread per CPU as it is imported. We compute no linear algebra,
# unshare(CLONE_NEWUSER) refuses a process with threads, and fork() from one is unsafe.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
