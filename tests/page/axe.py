"""Whether everybody can use it: axe-core on each view in both themes, and no sideways scroll on a phone."""

import json
import os
from pathlib import Path

from playwright.sync_api import expect

import checks
import models

LONG = "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen" * 3


def fill(page, view):
    """Something to see in each view."""
    if view == "chat":
        checks.say(page, f"hello {LONG}")
        expect(page.locator(".message.assistant:not(.live)")).to_have_count(1)
        page.get_by_role("button", name="Show the probability of each token").click()
    elif view == "write":
        page.get_by_label("What to write").select_option("weather")
        page.get_by_role("textbox", name="Topic").fill(LONG)
        page.get_by_role("button", name="Write", exact=True).click()
        expect(page.locator(".line", has_text="Written, seed")).to_be_visible()
    elif view == "summary":
        page.get_by_label("Source").fill(models.SOURCE)
        page.get_by_role("button", name="Summarize").click()
        expect(page.locator(".summary-text mark").first).to_be_visible()
    else:
        page.get_by_label("Text", exact=True).fill(f"hello fox {LONG}")
        page.get_by_role("button", name="Show probabilities").click()
        expect(page.locator(".token").first).to_be_visible()
        page.locator(".token").last.focus()


def faults(page, axe, where):
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    bad = [one for one in found if one["impact"] in ("serious", "critical")]
    told = [(one["id"], one["nodes"][0]["html"][:160], one["nodes"][0].get("failureSummary", "")) for one in bad]
    assert not bad, f"{where}: {json.dumps(told, indent=1)}"
    return len(found)


def check_axe_finds_nothing(world):
    path = os.environ.get("AXE", "target/page/node_modules/axe-core/axe.min.js")
    if not Path(path).is_file():
        print("SKIPPED check_axe_finds_nothing: no axe-core; AXE names its axe.min.js")
        return
    axe = Path(path).read_text()
    for scheme in ("light", "dark"):
        for view in ("chat", "write", "summary", "tokens"):
            # axe makes elements of its own, which the page's policy would not let it.
            with world.page(server="history", view=view, color_scheme=scheme, bypass_csp=True) as page:
                page.locator("#view select.model").wait_for()
                faults(page, axe, f"{view}, empty, {scheme}")
                fill(page, view)
                if view == "chat":
                    page.get_by_role("button", name="Settings").click()
                    page.get_by_text("Export and import").click()
                faults(page, axe, f"{view}, {scheme}")
                world.shot(page, f"axe-{view}-{scheme}")
                page.locator("#help-button").click()
                faults(page, axe, f"{view}, help, {scheme}")


def check_no_sideways_scroll_on_a_phone(world):
    for locale in ("en-US", "zh-CN"):
        for view in ("chat", "write", "summary", "tokens"):
            with world.page(view=view, width=360, height=740, locale=locale) as page:
                if locale == "en-US":
                    page.locator("#view select.model").wait_for()
                    fill(page, view)
                wide = page.evaluate(
                    "[document.scrollingElement, ...document.querySelectorAll('#view *')]"
                    ".filter((one) => one.scrollWidth > one.clientWidth + 1 && !one.matches('.hidden, pre, option, select, svg *, .token')"
                    " && ['auto', 'scroll', 'visible'].includes(getComputedStyle(one).overflowX) && getComputedStyle(one).display !== 'inline')"
                    ".map((one) => `${one.tagName}.${one.className} ${one.scrollWidth} > ${one.clientWidth}`)")
                assert wide == [], f"{view}, {locale}: {wide}"
                assert page.evaluate("document.scrollingElement.scrollWidth") <= 360
                world.shot(page, f"phone-{view}-{locale}")
                page.locator("#menu-button").tap()
                expect(page.locator("#nav a").first).to_be_focused()
                world.shot(page, f"phone-menu-{locale}")
                page.keyboard.press("Escape")
                expect(page.locator("#menu-button")).to_be_focused()
