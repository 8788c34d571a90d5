"""Writes a picture of the page with synthetic films: ``python tests/serve/http/ui/screenshot.py docs/page.png``."""

import base64
import json
import sys
import threading
import time
from pathlib import Path

import uvicorn
from films import make_films
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from serve_films import make_page

RATED = {"Comet Horizon": 5, "Marmalade Castle": 4.5, "Gravity Drift": 4, "Orbit Engine": 2, "Raven Curse": 1}
SIZE = {"width": 1280, "height": 880, "deviceScaleFactor": 1.25, "mobile": False}
DRAWING_SECONDS = 2


def main(path: str) -> None:
    """Rate some films, wait until the page is drawn, write the picture."""
    server = uvicorn.Server(uvicorn.Config(make_page(), port=0, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SIZE)
        light = {"features": [{"name": "prefers-color-scheme", "value": "light"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", light)
        browser.get(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/")
        titles = make_films()[0]
        rated = []
        for name, rating in RATED.items():
            row = next(n for n, title in enumerate(titles) if title.startswith(name))
            rated.append({"item": row + 1, "title": titles[row], "rating": rating})
        script = "localStorage.setItem('cflightning ratings film 0.5-5', arguments[0])"
        browser.execute_script(script, json.dumps(rated))
        browser.refresh()
        time.sleep(DRAWING_SECONDS)
        picture = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
        Path(path).write_bytes(base64.b64decode(picture))
    finally:
        browser.quit()
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
