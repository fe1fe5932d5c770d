"""The distribution of latencies as text in the format ``.hgrm``, which HdrHistogram's plotters read."""

from snat_race.analysis.histogram import DOUBLINGS, SUB_BUCKETS, Histogram


def distribution(histogram: Histogram, unit_ns: float) -> str:
    """Return the percentile distribution, with all latencies in units of ``unit_ns`` ns.

    Every figure is as in ``output_percentile_distribution()`` of the package hdrhistogram, except for
    StdDeviation. The package forgets to convert that to the unit; here it is converted.
    """
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    highest_ns = 0
    for step in histogram.percentile_steps():
        highest_ns = step.value_ns
        share = step.percent / 100
        line = f"{step.value_ns / unit_ns:12.3f} {share:.12f} {step.total_count:10d}"
        if share < 1:
            line += f" {1 / (1 - share):14.2f}"
        lines.append(line)
    mean = histogram.mean_ns / unit_ns
    deviation = histogram.standard_deviation_ns / unit_ns
    lines += [
        f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
        f"#[Max     = {highest_ns / unit_ns:12.3f}, TotalCount     = {histogram.count:12.3f}]",
        f"#[Buckets = {DOUBLINGS:12d}, SubBuckets     = {SUB_BUCKETS:12d}]",
    ]
    return "\n".join(lines)
