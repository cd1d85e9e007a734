"""What operators do to work and texts: list, inspect, cancel, retry, drop."""
