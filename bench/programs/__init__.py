"""The measured processes: the same scenarios for both systems, so that only the systems differ.

Runs in either virtual environment, so it imports nothing but the standard
library and, in `outlive_side` and `dbos_side`, the one system that it measures.
"""
