"""Benchmarks: what Outlive costs, beside DBOS, on this machine in this hour. `make bench` runs them.

The runner (`python -m bench`) owns the order of things and the report; what is
measured happens in processes of `bench.programs`, one per system and scenario.
"""
