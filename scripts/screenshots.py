"""Write pictures of the page to docs/images, in both themes: `make screenshots`. Needs chromium, as the tests do.

The store is a private one in a temporary folder, with the examples; so the pictures show what `make demo` makes.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from crochet_tasks.embedded import store
from crochet_tasks.settings import Settings

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "images"
CROCHET = [sys.executable, "-m", "crochet_tasks"]
CHROMIUM = "/usr/bin/chromium"
SIZE = {"width": 1120, "height": 760}
COLORS = 160
LARGEST = 150 * 1024
CORPUS = "/corpora/harbour"
PAGES = {"gallery": f"{CORPUS}/orthos?shape=3x3", "corpus": CORPUS, "console": "/console"}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("harbour", "harbour-evening", "market"):
            subprocess.run(
                [*CROCHET, "run", f"examples/{name}.txt", "--state", folder, "--corpus", "harbour"],
                cwd=ROOT,
                check=True,
                env={**os.environ, "CROCHET_RESULT_ORTHOS": "300"},  # noqa: TID251 - of another process
                capture_output=True,
            )
        spread(Path(folder))
        view = subprocess.Popen([*CROCHET, "view", "--state", folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert view.stdout is not None
        try:
            take(view.stdout.readline().split()[4])
        finally:
            view.terminate()
            view.wait()


SPREAD = """
UPDATE work SET finished_at = now() - make_interval(secs => 20 + 860 * (1 - rank))
  FROM (
       SELECT id AS of, percent_rank() OVER (ORDER BY finished_at, id) ^ 1.4 AS rank FROM work WHERE state = 'done'
       ) AS done
 WHERE id = of
"""
FAIL = """
UPDATE work SET state = 'failed', attempts = 8,
       error = '{"code": "worker_lost", "message": "the worker that did it died"}'
 WHERE id IN (SELECT id FROM work WHERE kind = 'search' ORDER BY id LIMIT 3)
"""
TRIES = """
INSERT INTO attempts (work, corpus, number, error, at)
SELECT id, corpus, 8, error, now() - interval '70 s' FROM work WHERE state = 'failed'
"""


def spread(folder: Path) -> None:
    """What took seconds is spread over a quarter of an hour, and some of it has failed, as the console of a deployment
    shows it; the example texts alone are done at once.
    """
    with store.opened(Settings(state_dir=folder)) as process, process.database.transaction() as connection:
        for statement in (SPREAD, FAIL, TRIES):
            connection.exec_driver_sql(statement)


def take(address: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, device_scale_factor=1.5)  # type: ignore[arg-type]
        page.goto(address)
        root = address.partition("/enter")[0]
        schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            for name, path in PAGES.items():
                page.goto(f"{root}{path}")
                save(page, f"{name}-{scheme}")
            page.goto(f"{root}{CORPUS}/orthos?shape=3x3")
            page.locator(".card .open").nth(4).click()
            page.locator(".lines li").nth(1).hover()
            save(page, f"ortho-{scheme}")
        browser.close()


def save(page: Page, name: str) -> None:
    """As a PNG of few colours: letters and lines have no more."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = FOLDER / f"{name}.png"
    picture.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size // 1024} kB")
    if path.stat().st_size > LARGEST:
        raise SystemExit(f"{path} is larger than {LARGEST} bytes")


if __name__ == "__main__":
    main()
