"""Guest programs that are shipped: sources and their assembled bytes."""
