"""Errors of the contract.

LabelmintError
├── AddressError             a seed, index or distribution that addresses no sample
├── ArrayError               bytes that are not the array they claim to be
└── BundleError              a bundle that cannot be used
    ├── BundleNotFoundError  no bundle at the path
    ├── ManifestError        the manifest is malformed or contradicts itself
    ├── IntegrityError       a file is missing, truncated or altered
    └── DigestMismatchError  a sound bundle, but not the one that was asked for
"""


class LabelmintError(Exception):
    """Root of every error labelmint raises on purpose.

    Attributes:
        field: Name of the request, manifest or settings field at fault; empty if there is none.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class AddressError(LabelmintError):
    """A seed, index or class distribution lies outside what addresses a sample."""


class ArrayError(LabelmintError):
    """Bytes, dtype and shape do not describe one array."""


class BundleError(LabelmintError):
    """A bundle cannot be used."""


class BundleNotFoundError(BundleError):
    """There is no bundle at the path."""


class ManifestError(BundleError):
    """The manifest is malformed or contradicts itself."""


class IntegrityError(BundleError):
    """A file of the bundle is missing, truncated or altered."""


class DigestMismatchError(BundleError):
    """The bundle is sound but is not the one that was asked for."""
