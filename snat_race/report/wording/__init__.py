"""The only place where results become English: causes, verdicts, warnings, findings, numbers, times."""
