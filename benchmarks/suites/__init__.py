"""Suites of workloads against rivals, behind ``asyncnet bench``; the way in is `runner.run`."""
