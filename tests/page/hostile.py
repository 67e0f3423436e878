"""Texts that would like to be markup: in a message, a reply, a file, a recipe's input, a source."""

import json

from playwright.sync_api import expect

EVIL = "<img src=x onerror=\"window.harmed=1\"><script>window.harmed=1</script><a href=\"javascript:window.harmed=1\">x</a>{message}"


def unharmed(page):
    assert page.evaluate("window.harmed") is None
    assert page.locator("main img, main script, main a, .side .chat-list img, dialog img").count() == 0


def check_texts_stay_texts(world):
    with world.page(server="history") as page:
        one = {"title": EVIL[:100], "system": EVIL, "model": EVIL[:50], "leaf": 1, "__proto__": {"harmed": 1}, "messages": [
            {"parent": None, "role": "user", "content": EVIL},
            {"parent": 0, "role": "assistant", "content": EVIL, "model": EVIL[:90], "finish": EVIL[:20]},
        ]}
        (world.folder / "evil.json").write_text(json.dumps({"conversations": [one]}))
        page.get_by_text("Export and import").click()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Import").click()
        chooser.value.set_files(world.folder / "evil.json")
        expect(page.locator(".message.assistant .text")).to_have_text(EVIL)
        unharmed(page)
        page.reload()
        page.locator(".chat-name").first.click()
        expect(page.locator(".message.user .text")).to_have_text(EVIL)
        unharmed(page)
        page.locator(".chat-list li").first.hover()
        page.locator(".chat-list .icon-bin").first.click()
        expect(page.get_by_role("dialog")).to_contain_text("<img src=x")
        unharmed(page)
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.get_by_label("Message").fill(EVIL)
        page.get_by_label("Message").press("Enter")
        expect(page.locator(".message.assistant:not(.live)")).to_have_count(1)
        unharmed(page)


def check_a_models_words_stay_words(world):
    """A server that is not ours to trust: what comes back is markup everywhere."""
    with world.page() as page:
        chunk = {"choices": [{"index": 0, "delta": {"content": EVIL}, "finish_reason": None, "logprobs": {"content": [
            {"token": EVIL, "logprob": -0.1, "bytes": list(EVIL.encode()), "top_logprobs": [{"token": EVIL, "logprob": -0.1, "bytes": list(EVIL.encode())}]}]}}]}
        answer = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        page.route("**/v1/chat/completions", lambda route: route.fulfill(body=answer, content_type="text/event-stream"))
        page.get_by_label("Message").fill("hello")
        page.get_by_label("Message").press("Enter")
        expect(page.locator(".message.assistant .text")).to_have_text(EVIL)
        page.get_by_role("button", name="Show the probability of each token").click()
        page.locator(".token").first.hover()
        expect(page.locator("#card")).to_contain_text("<img")
        unharmed(page)
        # A recipe that was written by somebody else, its parts, and an error.
        step = {"type": "step", "name": EVIL, "title": EVIL, "keep": "code " + EVIL, "text": EVIL, "passed": False, "attempts": 1, "kept": 0,
                "markdown": EVIL, "warnings": [{"kind": "check", "check": "x", "why": EVIL}]}
        events = "".join(f"data: {json.dumps(one)}\n\n" for one in ({"type": "draft", "step": EVIL, "attempt": 0, "piece": EVIL}, step, {"error": {"message": EVIL}}))
        page.route("**/app/write", lambda route: route.fulfill(body=events, content_type="text/event-stream"))
        recipe = {"name": EVIL, "about": {"en": EVIL, "zh": EVIL}, "steps": [EVIL], "inputs": [{"name": "x", "about": {"en": EVIL, "zh": EVIL}, "otherwise": {"en": EVIL, "zh": EVIL}}]}
        page.route("**/app/recipes", lambda route: route.fulfill(json={"recipes": [recipe]}))
        page.locator("#nav a").nth(1).click()
        page.get_by_role("textbox", name="Topic").fill(EVIL)
        page.get_by_role("button", name="Write", exact=True).click()
        expect(page.locator(".document pre")).to_have_text(EVIL)
        expect(page.get_by_role("alert")).to_contain_text("<img")
        unharmed(page)


def check_policy(world):
    """Nothing from elsewhere and nothing inline can run, even if somebody found a way to write it."""
    with world.page() as page:
        refused = page.evaluate("(() => { try { document.body.innerHTML = '<b>'; return false } catch { return true } })()")
        assert refused, "text can become markup"
        world.faults.clear()
        page.evaluate("(() => { const one = document.createElement('img'); one.src = 'data:image/gif;base64,R0lGODlhAQABAAAAACw='; document.body.append(one) })()")
        page.wait_for_timeout(100)
        assert any("Content Security Policy" in fault for fault in world.faults), world.faults
        world.faults.clear()
