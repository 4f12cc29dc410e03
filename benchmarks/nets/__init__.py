"""Nets that the benchmarks and tests share."""
