"""Measurements beside the peers: `python -m benchmarks`, written to docs/benchmarks.md."""
