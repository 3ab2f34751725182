"""What this package raises. An access that no decoder answers is a value (`cxl.Miss`), never an exception."""

from mmu.errors import MmuError


class TopologyError(MmuError, ValueError):
    """A description that no machine can have, or a request that this machine cannot serve."""


class CommitError(TopologyError):
    """A decoder answered ERROR-NOT-COMMITTED; nothing stays half programmed."""
