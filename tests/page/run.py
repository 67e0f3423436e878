"""The web page of `gpt2 serve` in headless Chromium: the real server, small models that are trained here.

    python tests/page/run.py target/debug/gpt2 [--only NAME] [--shots DIR]

Needs the package `playwright` (requirements.txt), a Chromium ($CHROMIUM, or in the path) and axe-core's file ($AXE; without
it the accessibility check is SKIPPED). Each check is a function of checks.py, axe.py or hostile.py, and has a browser of its own.
"""

import argparse
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

import models

HERE = Path(__file__).parent
# Milliseconds after which something that does not come is a failure.
PATIENCE = int(os.environ.get("PATIENCE", 120_000))


class Server:
    """`gpt2 serve` on a free port, with these flags."""

    def __init__(self, gpt2, folder, *flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.origin = f"http://127.0.0.1:{port}"
        self.log = open(folder / f"server-{port}.log", "w+")
        command = [gpt2, "serve", *flags, "--port", str(port)]
        self.process = subprocess.Popen(command, cwd=folder, stdout=self.log, stderr=self.log)

    def wait(self):
        while True:
            if self.process.poll() is not None:
                self.log.seek(0)
                raise RuntimeError(f"the server ended: {self.log.read()}")
            try:
                with urllib.request.urlopen(f"{self.origin}/health") as answer:
                    if answer.status == 200:
                        return self
            except OSError:
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


class World:
    """What checks share: the browser, the servers, and where pictures go."""

    def __init__(self, browser, servers, folder, shots):
        self.browser, self.servers, self.folder, self.shots = browser, servers, folder, shots
        self.faults = []

    @contextmanager
    def page(self, server="plain", view="chat", width=1280, height=800, **settings):
        """A page of a browser that has seen nothing yet. Requests to others, and what the console says, are faults."""
        origin = self.servers[server].origin
        settings = {"locale": "en-US", "color_scheme": "light", "accept_downloads": True} | settings
        if width < 600:
            settings |= {"has_touch": True, "is_mobile": True}
        context = self.browser.new_context(viewport={"width": width, "height": height}, **settings)
        context.set_default_timeout(PATIENCE)
        context.on("request", lambda request: self.see(request.url, origin))
        page = context.new_page()
        page.on("console", lambda said: said.type == "error" and self.console(said))
        page.on("pageerror", lambda error: self.faults.append(f"an error on the page: {error}"))
        try:
            page.goto(f"{origin}/#{view}")
            page.locator("#view .view").wait_for()
            yield page
        except Exception:
            self.shot(page, "failure")
            raise
        finally:
            context.close()

    def see(self, url, origin):
        if not url.startswith((origin + "/", "blob:" + origin)):
            self.faults.append(f"a request left the machine: {url}")

    def console(self, said):
        # Chromium itself tells of each answer that is an error, which checks of errors cause.
        if "Failed to load resource" not in said.text:
            self.faults.append(f"the console says: {said.text}")

    def shot(self, page, name):
        if self.shots:
            page.screenshot(path=self.shots / f"{name}.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gpt2", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--models", type=Path, help="a folder with the model `talk`, made here if it has none")
    args = parser.parse_args()
    expect.set_options(timeout=PATIENCE)
    import axe
    import checks
    import hostile

    found = [getattr(module, name) for module in (checks, hostile, axe) for name in vars(module) if name.startswith("check_")]
    found = [check for check in found if args.only in check.__name__]
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        gpt2 = args.gpt2.resolve()
        made = args.models.resolve() if args.models else folder
        made.mkdir(parents=True, exist_ok=True)
        if not (made / "talk").is_dir():
            models.train(gpt2, made)
        lines = [f"{name}: sha256:{hashlib.sha256(key.encode()).hexdigest()}\n" for name, key in models.KEYS.items()]
        (folder / "keys").write_text("".join(lines))
        (folder / "keys").chmod(0o600)
        both = ["-m", f"talk={made}/talk", "-m", f"other={made}/talk"]
        servers = {
            "plain": Server(gpt2, folder, *both),
            "history": Server(gpt2, folder, *both, "--history", "chats.sqlite"),
        }
        usage = subprocess.run([gpt2, "serve", "--help"], capture_output=True, text=True).stdout
        if "--api-key-file" in usage:
            servers["keys"] = Server(gpt2, folder, *both, "--history", "keyed.sqlite", "--api-key-file", "keys")
        try:
            for server in servers.values():
                server.wait()
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            for check in found:
                world = World(browser, servers, folder, args.shots)
                start = time.monotonic()
                try:
                    check(world)
                    assert not world.faults, "\n".join(world.faults)
                    print(f"ok      {check.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
                except Exception:
                    failed += 1
                    told = "\n".join(world.faults)
                    print(f"FAILED  {check.__name__}\n{traceback.format_exc()}{told}", flush=True)
            browser.close()
        finally:
            for server in servers.values():
                server.stop()
    print(f"{len(found) - failed} passed, {failed} failed")
    sys.exit(1 if failed or not found else 0)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    main()
