"""What the kernel is and did: namespaces, SNAT rules, counters, limits."""
