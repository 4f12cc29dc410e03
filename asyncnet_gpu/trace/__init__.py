"""Traced runs for people and tools: critical path, memory over time, Chrome JSON, a page, NVTX."""
