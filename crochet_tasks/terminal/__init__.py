"""The terminal: standard streams that may fail, numbers, tables, progress."""
