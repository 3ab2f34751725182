"""In-tree PEP 517 backend: generate the C sources, then let setuptools build them."""

from setuptools import build_meta as _setuptools
from setuptools.build_meta import (  # noqa: F401  (re-exported hooks that need no change)
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from cffi_build.build import write_generated_sources


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    write_generated_sources()
    return _setuptools.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    write_generated_sources()
    return _setuptools.build_editable(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory, config_settings=None):
    write_generated_sources()
    return _setuptools.build_sdist(sdist_directory, config_settings)
