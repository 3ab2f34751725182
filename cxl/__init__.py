"""CXL policy: registers, windows and devices that end up as striped regions on a bus."""
