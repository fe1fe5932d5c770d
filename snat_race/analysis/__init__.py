"""From samples and counters to conclusions. Pure: no sockets, no processes, no clocks."""
