"""What operators do to work and texts: list, inspect, cancel, retry, drop; ask for the best, and stop that."""
