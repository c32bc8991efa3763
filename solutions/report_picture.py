"""The sample of a report in vmae/OWN_VIDEOS.md and README.md: `python solutions/report_picture.py RUN`

RUN is the folder of a tested classifier. The one that is shown comes from what the course ships:

    vmae render motion --level textures
    vmae finetune cpu --out runs/sample --encoder data/tiny --set data.cache=false
    python solutions/report_picture.py runs/sample

The page that `vmae report RUN` writes is shown by Chromium, its sections side by side in columns, and
photographed in twice the pixels that it is shown in. Needs tests/browser/requirements.txt and Chromium, as
`make test-browser` does.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import vmae
from vmae.figures import INK, write_report

PICTURE = vmae.ROOT / "data" / "pictures" / "report.webp"
LARGEST = 150_000
#: Pixels of the page, and of the picture as the documents show it.
WIDTH, SHOWN = 1400, 876
#: Columns in place of one; without a background and in the ink of all figures, for pages light and dark.
STYLE = f"""
:root {{ color-scheme: light; }}
body {{ max-width: none; margin: 0; padding: 1px; columns: 3; column-gap: 2.5rem;
        background: transparent; color: {INK}; }}
h1, h2 {{ margin-top: 0; break-after: avoid; }}
table, img, p, figure {{ break-inside: avoid; }}
table {{ font-size: 12px; white-space: nowrap; }}
th, td {{ padding-right: .4rem; }}
"""


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        page_file = write_report(sys.argv[1], Path(folder) / "report.html")
        chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": WIDTH, "height": 400},
            device_scale_factor=2 * SHOWN / WIDTH,
            color_scheme="light",
        )
        page.goto(page_file.as_uri())
        page.add_style_tag(content=STYLE)
        shot = page.screenshot(full_page=True, omit_background=True)
        browser.close()
    picture = Image.open(io.BytesIO(shot)).convert("RGBA")
    picture = picture.crop(picture.getbbox())
    for quality in range(80, 20, -10):  # the best that is small enough for a README
        picture.save(PICTURE, quality=quality, alpha_quality=quality, method=6)
        if (size := PICTURE.stat().st_size) <= LARGEST:
            break
    else:
        raise SystemExit(f"{PICTURE.name} has {size:,} bytes, more than {LARGEST:,}: lower WIDTH")
    print(
        f"{PICTURE.name}: {picture.width}x{picture.height} pixels, quality {quality}, {size / 1000:.0f} kB"
    )


if __name__ == "__main__":
    main()
