"""`outlive_worker`, `outlive_migrate`, and `outlive` for all others."""
