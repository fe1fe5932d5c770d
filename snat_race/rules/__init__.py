"""The SNAT rules of a host: read, judged, rewritten, loaded, undone."""
