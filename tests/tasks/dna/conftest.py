"""Fixtures of the tests of the DNA task."""

from common.serving.served import load_export
from common.serving.versions import SHIPPED

import pytest


@pytest.fixture(scope="module")
def spliced():
    """The model of the repository for genes with introns; `shipped` is for those without."""
    return load_export(SHIPPED / "dna-drosophila" / "1")
