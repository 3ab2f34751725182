"""arm64 (VMSAv8-64) paging."""
