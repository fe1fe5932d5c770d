"""Make connections: schedule, dial, record, listen. Knows nothing of NAT or of reports."""
