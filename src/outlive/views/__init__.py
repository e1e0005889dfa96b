"""Read models: what the command line, pages and programs show of runs, as plain data; each screen has its JSON twin."""
