"""The engine: executes runs on top of the store's seam. docs/explain/architecture.md shows how data flows."""
