"""The read side: orthos, words, phrases, provenance and events."""
