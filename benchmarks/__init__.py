"""Benchmarks; each prints ratios of one interleaved run."""
