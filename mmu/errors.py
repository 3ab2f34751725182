"""What this package raises: host misuse only. A guest fault is a value (`mmu.types.Fault`)."""


class MmuError(Exception):
    """Base of everything that this package raises."""


class RegionOverlapError(MmuError, ValueError):
    """Two regions of equal priority claim one address."""


class AddressRangeError(MmuError, ValueError):
    """An address or a size outside what the named object covers."""


class AlignmentError(MmuError, ValueError):
    """An address or a size that is not a multiple of what it must be."""


class BusError(MmuError, OSError):
    """A host read or write that some part of the bus refused; `result` is the MemTxResult."""

    def __init__(self, message: str, result: object) -> None:
        super().__init__(message)
        self.result = result


class SnapshotError(MmuError, ValueError):
    """A snapshot that is damaged, or of another machine."""


class ClosedError(MmuError, RuntimeError):
    """Use of something already closed."""


class MirrorWarning(RuntimeWarning):
    """Pages of windows are slower than asked for, because there is no memory for the mirror. Results are the same."""


class FileWarning(RuntimeWarning):
    """A file behind memory that a guest used cannot give its bytes any more: the guest read zeroes, or got errors."""


class GuestError(MmuError, RuntimeError):
    """The guest engine refused or failed in a way that is not a guest fault."""
