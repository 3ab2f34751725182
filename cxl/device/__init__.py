"""Devices: what is behind a root port."""
