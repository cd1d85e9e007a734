"""The search itself: pure computation on arrays, no database, no Celery; clocks only measure its speed.

It imports nothing of the project (.importlinter): NumPy, regex, zstandard and its own compiled modules.
"""
