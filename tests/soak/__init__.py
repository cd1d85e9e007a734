"""A deployment that works for hours, and what grows meanwhile."""
