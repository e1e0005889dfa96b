"""Stores: everything that speaks SQL. The seam is internal; docs/explain/stores.md says who owns which row."""
