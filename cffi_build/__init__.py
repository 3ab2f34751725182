"""Build time only: renders the C tables, declares the C interface to cffi, and is the PEP 517 backend."""
