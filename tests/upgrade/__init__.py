"""What older releases have left, opened by this code: databases with runs under way, and frozen journals.

A folder per release holds what `python -m tests.upgrade.freeze FOLDER` wrote
with its code. Nothing in it is ever edited; a release adds a folder.
"""
