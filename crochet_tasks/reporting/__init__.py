"""Status and statistics of a deployment."""
