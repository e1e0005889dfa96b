"""What every store has to do, one file per topic, on every kind of database."""
