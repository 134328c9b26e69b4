"""The images, built once."""

import pytest

from tests.support.containers import IMAGE, TOOLS_IMAGE, build


@pytest.fixture(scope="session")
def image() -> str:
    """The plain image."""
    return build(IMAGE, "INSTANCE_MANAGER_TEST_IMAGE_BASE")


@pytest.fixture(scope="session")
def tools_image() -> str:
    """The image with what volumes of the v1 data engine need."""
    return build(TOOLS_IMAGE, "INSTANCE_MANAGER_TEST_IMAGE_TOOLS_BASE", "--with-tools")
