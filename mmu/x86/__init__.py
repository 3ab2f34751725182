"""x86-64 paging."""
