"""The best orthos of a context, with proof that nothing is better (docs/best.md)."""
