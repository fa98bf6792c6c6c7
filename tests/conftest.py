"""What more than one file of tests needs."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium. What needs it is skipped where it or Playwright is missing (labs/requirements-test.txt)."""
    api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -r labs/requirements-test.txt")
    with api.sync_playwright() as playwright:
        chromium = shutil.which("chromium") or playwright.chromium.executable_path
        if not Path(chromium).exists():
            pytest.skip("no Chromium: apt install chromium, or playwright install chromium")
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture
def expect(browser):
    """Playwright's assertions, which give a page ten seconds to come true."""
    from playwright.sync_api import expect

    expect.set_options(timeout=10_000)
    return expect
