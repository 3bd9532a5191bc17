"""One proxy of each kind with one server behind it, for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proxies.programs import PROXIES, Site, site


@pytest.fixture(scope="session", params=PROXIES)
def behind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Uploads behind a proxy that is set up as the documentation says."""
    with site(request.param, tmp_path_factory.mktemp(request.param)) as running:
        yield running
