"""Benchmarks: ratios against a direct call, and against peers where they are given."""
