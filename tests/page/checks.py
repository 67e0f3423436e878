"""What a user does on the page, view by view."""

import json
import re

from playwright.sync_api import expect

import models


def say(page, text):
    page.get_by_label("Message").fill(text)
    page.get_by_label("Message").press("Enter")


def settings(page, **values):
    """Types into the panel of settings, which is then closed."""
    page.get_by_role("button", name="Settings").click()
    panel = page.locator("#panel")
    for label, value in values.items():
        field = panel.get_by_label(label.replace("_", " "), exact=True).first
        field.fill(str(value))
        field.blur()
    page.get_by_role("button", name="Close").first.click()
    expect(panel).to_be_hidden()


def greedy(page):
    settings(page, Temperature=0, Repetition_penalty=1)


def replies(page):
    return page.locator(".message.assistant:not(.live) .text")


def check_chat_streams(world):
    with world.page() as page:
        greedy(page)
        say(page, "hello")
        expect(replies(page)).to_have_text(["good morning"])
        expect(page.locator(".facts")).to_contain_text("tokens")
        say(page, "who are you")
        expect(replies(page)).to_have_text(["good morning", "a red fox"])
        expect(page.get_by_label("Message")).to_be_focused()
        world.shot(page, "chat")


def slowly(page, bytes_per_second):
    """Lets answers come so slowly that something can be done meanwhile."""
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": bytes_per_second, "uploadThroughput": -1})


def check_stop_keeps_what_is_there(world):
    for way in ("button", "key"):
        with world.page() as page:
            settings(page, Temperature=0, Repetition_penalty=1, **{"Tokens of a reply, at most": 900})
            slowly(page, 20_000)
            say(page, models.LONG)
            expect(page.locator(".message.live .text")).to_contain_text("la la")
            expect(page.locator(".message.live .facts")).to_contain_text("tokens/s")
            if way == "button":
                page.get_by_role("button", name="Stop").click()
            else:
                page.keyboard.press("Escape")
            expect(page.locator(".facts")).to_contain_text("stopped")
            assert "la la" in replies(page).inner_text()
            # The chat goes on.
            slowly(page, -1)
            page.get_by_role("button", name="New chat").click()
            say(page, "hello")
            expect(replies(page)).to_have_text(["good morning"])


def check_edit_and_branch(world):
    with world.page() as page:
        greedy(page)
        say(page, "hello")
        expect(replies(page)).to_have_text(["good morning"])
        page.locator(".message.user").get_by_role("button", name="Edit").click()
        page.locator(".editing textarea").fill("who are you")
        page.get_by_role("button", name="Send as a new branch").click()
        expect(replies(page)).to_have_text(["a red fox"])
        expect(page.get_by_role("group", name="Branch 2 of 2")).to_be_visible()
        page.get_by_role("button", name="Earlier branch").click()
        expect(replies(page)).to_have_text(["good morning"])
        page.get_by_role("button", name="Later branch").click()
        expect(replies(page)).to_have_text(["a red fox"])
        # An empty message field gives the last one back to be edited; Escape leaves it as it was.
        page.get_by_label("Message").press("ArrowUp")
        expect(page.locator(".editing textarea")).to_have_value("who are you")
        page.keyboard.press("Escape")
        expect(replies(page)).to_have_text(["a red fox"])


def check_regenerate(world):
    with world.page() as page:
        settings(page, Temperature=2, Top_k=0, Top_p=1, **{"Tokens of a reply, at most": 12})
        page.get_by_label("Model", exact=True).select_option("other")
        say(page, "hello")
        expect(replies(page)).to_have_count(1)
        first = replies(page).inner_text()
        page.get_by_role("button", name="Write the reply anew").click()
        expect(page.get_by_role("group", name="Branch 2 of 2")).to_be_visible()
        assert replies(page).inner_text() != first
        page.get_by_role("button", name="Earlier branch").click()
        expect(replies(page)).to_have_text([first])
        # A reply can be edited, too; that writes nothing.
        page.locator(".message.assistant").get_by_role("button", name="Edit").click()
        page.locator(".editing textarea").fill("my own words")
        page.get_by_role("button", name="Keep as a new branch").click()
        expect(replies(page)).to_have_text(["my own words"])
        expect(page.get_by_role("group", name="Branch 3 of 3")).to_be_visible()


def check_settings_are_sent(world):
    with world.page() as page:
        settings(page, System_prompt="Answer briefly.", Temperature=0.3, Top_p=0.5, Top_k=7, Min_p=0.1, Repetition_penalty=1.2,
                 Seed=11, **{"Tokens of a reply, at most": 9})
        with page.expect_request("**/v1/chat/completions") as sent:
            say(page, "hello")
        body = sent.value.post_data_json
        assert body["messages"] == [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "hello"}], body
        wanted = {"model": "talk", "temperature": 0.3, "top_p": 0.5, "top_k": 7, "min_p": 0.1, "repetition_penalty": 1.2, "seed": 11, "max_tokens": 9}
        assert {key: body.get(key) for key in wanted} == wanted, body
        expect(replies(page)).to_have_count(1)
        first = replies(page).inner_text()
        # The same seed, the same reply.
        page.get_by_role("button", name="Write the reply anew").click()
        expect(page.get_by_role("group", name="Branch 2 of 2")).to_be_visible()
        expect(replies(page)).to_have_text([first])
        # What is no number is put right; the panel remembers, and can be put back.
        settings(page, Temperature=99)
        page.reload()
        page.get_by_role("button", name="Settings").click()
        expect(page.locator("#panel").get_by_label("Temperature", exact=True).first).to_have_value("2")
        page.get_by_role("button", name="Back to the defaults").click()
        expect(page.locator("#panel").get_by_label("Temperature", exact=True).first).to_have_value("0.8")


def check_too_long_a_conversation_is_told(world):
    with world.page() as page:
        settings(page, **{"Tokens of a reply, at most": 8})
        for n in range(4):
            say(page, f"{n} " + "many words of mine " * 25)
            expect(replies(page)).to_have_count(n + 1)
        expect(page.get_by_text("oldest", exact=False).first).to_contain_text("were left out")
        page.get_by_role("button", name="New chat").click()
        say(page, "far too many words " * 300)
        expect(page.get_by_role("alert")).to_contain_text("context")


def check_tokens_of_a_reply(world):
    with world.page() as page:
        greedy(page)
        say(page, "你好")
        expect(replies(page)).to_have_text(["早上好"])
        page.get_by_role("button", name="Show the probability of each token").click()
        tokens = page.locator(".message .token")
        expect(tokens.first).to_be_visible()
        text = page.locator(".message .tokens").inner_text()
        assert "早上好" in text.replace("·", ""), text
        tokens.first.hover()
        card = page.locator("#card")
        expect(card).to_be_visible()
        expect(card.locator("li")).to_have_count(5)
        expect(card.locator(".is-it")).to_have_count(1)
        tokens.first.focus()
        page.keyboard.press("ArrowRight")
        expect(tokens.nth(1)).to_be_focused()
        expect(card).to_contain_text("%")
        page.keyboard.press("Escape")
        expect(card).to_be_hidden()
        page.get_by_role("button", name="Show the probability of each token").click()
        expect(replies(page)).to_have_text(["早上好"])


def check_tokens_of_a_reply_after_a_reload(world):
    show = "Show the probability of each token"
    labels = "[...document.querySelectorAll('.message .token')].map((one) => one.getAttribute('aria-label'))"
    with world.page(server="history") as page:
        greedy(page)
        for n, text in enumerate(("hello", "你好")):
            say(page, text)
            expect(replies(page)).to_have_count(n + 1)
        page.get_by_role("button", name=show).last.click()
        tokens = page.locator(".message .token")
        expect(tokens.first).to_be_visible()
        drawn = page.evaluate(labels)
        page.reload()
        page.locator(".chat-name", has_text="hello").click()
        expect(replies(page)).to_have_text(["good morning", "早上好"])
        slowly(page, 8000)
        page.get_by_role("button", name=show).last.click()
        expect(page.locator(".message .busy")).to_have_text("The model is reading the reply.")
        expect(tokens.first).to_be_visible()
        slowly(page, -1)
        expect(page.get_by_role("button", name=show).last).to_be_focused()
        # They are told as they were when they were drawn.
        assert page.evaluate(labels) == drawn, (page.evaluate(labels), drawn)
        assert "p0" in tokens.first.get_attribute("class")
        tokens.first.hover()
        expect(page.locator("#card .is-it")).to_have_count(1)
        assert page.locator("#card li").count() >= 5
        # Words that the model did not say are scored, too.
        page.locator(".message.assistant").first.get_by_role("button", name="Edit").click()
        page.locator(".editing textarea").fill("a red fox")
        page.get_by_role("button", name="Keep as a new branch").click()
        page.get_by_role("button", name=show).click()
        expect(tokens.first).to_be_visible()
        assert page.locator(".message .tokens").inner_text() == "a red fox"
        page.get_by_role("button", name="Delete “hello”").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("No conversations yet.")).to_be_visible()


def check_tokens_that_cannot_be_told(world):
    long = "far too many words " * 600
    for said, model, why in (("hello", "gone", "not served here any more"), (long, "talk", "longer than the model's context of 1,024 tokens")):
        with world.page() as page:
            messages = [{"parent": None, "role": "user", "content": said}, {"parent": 0, "role": "assistant", "content": "good morning", "model": model}]
            (world.folder / "chat.json").write_text(json.dumps({"messages": messages}))
            page.get_by_text("Export and import").click()
            with page.expect_file_chooser() as chooser:
                page.get_by_role("button", name="Import").click()
            chooser.value.set_files(world.folder / "chat.json")
            page.get_by_role("button", name="Show the probability of each token").click()
            expect(page.get_by_role("alert")).to_contain_text(why)
            expect(replies(page)).to_have_text(["good morning"])


def check_tokens_of_a_text(world):
    with world.page(view="tokens") as page:
        page.get_by_label("Text", exact=True).fill("User: hello\nAssistant: good morning")
        page.get_by_role("button", name="Show probabilities").click()
        tokens = page.locator(".token")
        expect(tokens.first).to_be_visible()
        shown = page.locator(".tokens").inner_text().replace("↵", "")
        assert shown == "User: hello\nAssistant: good morning", shown
        expect(page.locator("#figures")).to_contain_text("perplexity")
        tokens.first.focus()
        expect(page.locator("#card")).to_contain_text("nothing before it")
        page.keyboard.press("End")
        expect(tokens.last).to_be_focused()
        expect(page.locator("#card li").first).to_be_visible()
        # What was learnt by heart is likely, and drawn so.
        assert "p0" in tokens.last.get_attribute("class")
        world.shot(page, "tokens")
        before = tokens.count()
        page.get_by_role("button", name="Continue the text").click()
        expect(page.get_by_role("button", name="Show probabilities")).to_be_visible()
        assert tokens.count() > before


def check_tap_shows_the_alternatives(world):
    with world.page(view="tokens", width=360, height=700) as page:
        page.get_by_label("Text", exact=True).fill("hello fox")
        page.get_by_role("button", name="Show probabilities").tap()
        page.locator(".token").last.tap()
        expect(page.locator("#card li").first).to_be_visible()


def check_writing_desk(world):
    with world.page(view="write") as page:
        page.get_by_label("What to write").select_option("weather")
        page.get_by_role("textbox", name="Topic").fill("Leeds, Monday: 3 to 9 degrees, showers")
        page.get_by_role("button", name="Write", exact=True).click()
        expect(page.locator(".line", has_text="Written, seed")).to_be_visible()
        parts = page.locator(".document > p:not(.warning)")
        expect(parts).to_have_count(2)
        # The model is too small to keep the recipe's rules, and the page says so.
        expect(page.locator(".document .warning").first).to_contain_text("fails a check")
        with page.expect_download() as download:
            page.get_by_role("button", name="Download as Markdown").click()
        text = download.value.path().read_text()
        assert text.strip().startswith(parts.first.inner_text().strip()[:10]), text
        world.shot(page, "write")


def check_writing_can_be_stopped(world):
    with world.page(view="write") as page:
        page.get_by_label("What to write").select_option("marketing")
        page.get_by_role("textbox", name="Topic").fill("a bread baking course")
        expect(page.get_by_role("textbox", name="Whom it is for")).to_have_attribute("placeholder", "if empty: our customers")
        page.get_by_role("textbox", name="Whom it is for").fill("young families")
        slowly(page, 4000)
        page.get_by_role("button", name="Write", exact=True).click()
        expect(page.locator(".draft")).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator(".line", has_text="Stopped.")).to_be_visible()
        # The desk is free for the next.
        slowly(page, -1)
        page.get_by_label("What to write").select_option("weather")
        page.get_by_role("button", name="Write", exact=True).click()
        expect(page.locator(".line", has_text="Written, seed")).to_be_visible()


def check_summary_desk(world):
    with world.page(view="summary") as page:
        page.get_by_label("Source").fill(models.SOURCE)
        page.get_by_role("button", name="Summarize").click()
        expect(page.locator(".summary-text")).to_have_text(models.SUMMARY)
        expect(page.locator(".summary-text mark")).to_have_text(["7", "Bob"])
        expect(page.locator(".unfound li")).to_have_text(["7 number", "Bob name"])
        expect(page.locator(".findings", has_text=f"All {len(models.SOURCE)} characters (2 sentences) were read at once.")).to_be_visible()
        world.shot(page, "summary")
        # Longer than the context: in parts, and said so.
        page.get_by_label("Source").fill(" ".join(f"The fox walked {n} miles to the river and slept." for n in range(400)))
        page.get_by_role("button", name="Summarize").click()
        expect(page.locator(".findings", has_text=re.compile("were read, in \\d+ parts"))).to_be_visible()


def check_history_is_kept(world):
    with world.page(server="history") as page:
        greedy(page)
        say(page, "hello")
        expect(replies(page)).to_have_text(["good morning"])
        page.get_by_role("button", name="Write the reply anew").click()
        expect(page.get_by_role("group", name="Branch 2 of 2")).to_be_visible()
        page.reload()
        page.locator(".chat-name", has_text="hello").click()
        expect(replies(page)).to_have_text(["good morning"])
        expect(page.get_by_role("group", name="Branch 2 of 2")).to_be_visible()
        # It goes on, and is one conversation still.
        say(page, "who are you")
        expect(replies(page)).to_have_text(["good morning", "a red fox"])
        expect(page.locator(".chat-list li")).to_have_count(1)
        # Not kept where it is not wanted.
        page.get_by_text("Export and import").click()
        page.get_by_label("Keep conversations on the server").uncheck()
        page.get_by_role("button", name="New chat").click()
        say(page, "what now")
        expect(page.locator(".chat-list li")).to_have_count(2)
        expect(page.get_by_text("only in this tab")).to_have_count(1)
        page.reload()
        expect(page.locator(".chat-list li")).to_have_count(1)
        page.get_by_role("button", name="Delete “hello”").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.get_by_text("No conversations yet.")).to_be_visible()
        page.reload()
        expect(page.get_by_text("No conversations yet.")).to_be_visible()


def check_without_history_nothing_is_kept(world):
    with world.page() as page:
        greedy(page)
        say(page, "hello")
        expect(page.locator(".chat-list li")).to_have_count(1)
        page.get_by_text("Export and import").click()
        expect(page.get_by_label("Keep conversations on the server")).to_be_disabled()
        expect(page.get_by_text("This server keeps nothing.")).to_be_visible()
        page.reload()
        expect(page.get_by_text("No conversations yet.")).to_be_visible()


def check_two_tabs_lose_nothing(world):
    with world.page(server="history") as page:
        greedy(page)
        say(page, "hello")
        expect(replies(page)).to_have_text(["good morning"])
        other = page.context.new_page()
        other.goto(page.url)
        other.locator(".chat-name", has_text="hello").click()
        say(other, "who are you")
        expect(replies(other)).to_have_count(2)
        page.bring_to_front()
        say(page, "what now")
        expect(replies(page)).to_have_count(2)
        expect(page.get_by_text("was changed elsewhere")).to_be_visible()
        expect(page.locator(".chat-list li")).to_have_count(2)
        for _ in range(2):
            page.locator(".chat-list li").first.hover()
            page.get_by_role("button", name="Delete “hello”").first.click()
            page.get_by_role("dialog").get_by_role("button", name="Delete").click()
            expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_text("No conversations yet.")).to_be_visible()


def check_export_and_import(world):
    with world.page() as page:
        greedy(page)
        say(page, "hello")
        expect(replies(page)).to_have_text(["good morning"])
        page.get_by_role("button", name="Write the reply anew").click()
        expect(page.get_by_role("group", name="Branch 2 of 2")).to_be_visible()
        page.get_by_text("Export and import").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Export as Markdown").click()
        text = download.value.path().read_text()
        assert text == "# hello\n\n**You**\n\nhello\n\n**Model (talk)**\n\ngood morning\n", text
        with page.expect_download() as download:
            page.get_by_role("button", name="Export as JSON, with all branches").click()
        assert download.value.suggested_filename == "hello.json"
        exported = json.loads(download.value.path().read_text())
        assert len(exported["conversations"][0]["messages"]) == 3, exported
        saved = world.folder / "hello.json"
        download.value.save_as(saved)
        page.reload()
        page.get_by_text("Export and import").click()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Import").click()
        chooser.value.set_files(saved)
        expect(replies(page)).to_have_text(["good morning"])
        expect(page.get_by_role("group", name="Branch 2 of 2")).to_be_visible()
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Import").click()
        (world.folder / "wrong.json").write_text('{"messages": [{"role": "user", "content": "x", "parent": 4}]}')
        chooser.value.set_files(world.folder / "wrong.json")
        expect(page.get_by_role("alert")).to_contain_text("its parent does not stand before it")


def check_themes(world):
    ground = "getComputedStyle(document.body.parentElement).backgroundColor"
    for scheme, other in (("light", "Dark"), ("dark", "Light")):
        with world.page(color_scheme=scheme) as page:
            first = page.evaluate(ground)
            page.get_by_role("radio", name=other).check()
            assert page.evaluate(ground) != first
            page.reload()
            page.locator("#view .view").wait_for()
            assert page.evaluate(ground) != first, "the choice is remembered"
            page.get_by_role("radio", name="As the system").check()
            assert page.evaluate(ground) == first


def check_languages(world):
    with world.page(locale="zh-CN") as page:
        expect(page.get_by_role("heading", name="想聊些什么？")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "zh-CN"
        page.get_by_role("radio", name="EN").check()
        expect(page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
        page.reload()
        expect(page.get_by_role("heading", name="What shall we talk about?")).to_be_visible()
        # Both languages say the same things, with the same places to be filled.
        said = page.evaluate("import('/page/words.js').then(({ LANGUAGES }) => LANGUAGES)")
        places = {tag: {key: sorted(set(re.findall(r"\{\w+\}", text))) for key, text in words.items()} for tag, words in said.items()}
        assert places["en"] == places["zh"], "words.js"


def check_keyboard(world):
    with world.page() as page:
        expect(page.get_by_label("Message")).to_be_focused()
        page.keyboard.type("n?")
        expect(page.get_by_label("Message")).to_have_value("n?")
        page.keyboard.press("Shift+Enter")
        expect(page.get_by_label("Message")).to_have_value("n?\n")
        page.get_by_label("Message").fill("")
        page.locator("#chats").get_by_role("button", name="New chat").focus()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        for key, title in (("2", "Writing desk"), ("3", "Summary desk"), ("4", "Token view"), ("1", "Chat")):
            page.locator("#nav a").first.focus()
            page.keyboard.press(key)
            expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()
        page.locator("#nav a").first.focus()
        page.keyboard.press("/")
        expect(page.get_by_label("Message")).to_be_focused()
        page.locator("#nav a").first.focus()
        page.keyboard.press("s")
        expect(page.locator("#panel")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#panel")).to_be_hidden()
        page.keyboard.press("d")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        # Single keys can be turned off.
        page.keyboard.press("?")
        page.get_by_label("Single keys work outside of text fields").uncheck()
        page.keyboard.press("Escape")
        page.locator("#nav a").first.focus()
        page.keyboard.press("2")
        expect(page.get_by_role("heading", name="Chat", level=1)).to_be_visible()


def check_everything_is_reached_by_tab(world):
    stops = "[...document.querySelectorAll('a[href], button:not(:disabled), input:not(.hidden), select, textarea, summary, [tabindex=\"0\"]')]" \
        ".filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.closest('[inert]') && !(one.type === 'radio' && !one.checked))"
    for view in ("chat", "write", "summary", "tokens"):
        with world.page(view=view) as page:
            page.locator("#view select.model").wait_for()
            page.evaluate(f"window.stops = new Set({stops}); document.activeElement.blur(); window.outlines = []")
            all_stops = page.evaluate("window.stops.size")
            for _ in range(all_stops + 3):
                page.keyboard.press("Tab")
                page.evaluate("(() => { const at = document.activeElement; window.stops.delete(at);"
                              "const shown = at.nextElementSibling?.classList.contains('segment') ? at.nextElementSibling : at.closest('.composer') ?? at;"
                              "const { outlineStyle, boxShadow } = getComputedStyle(shown);"
                              "if (at !== document.body && outlineStyle === 'none' && boxShadow === 'none') window.outlines.push(at.outerHTML.slice(0, 80)); })()")
            left = page.evaluate("[...window.stops].map((one) => one.outerHTML.slice(0, 120))")
            assert left == [], f"{view}: Tab does not reach {left}"
            assert page.evaluate("window.outlines") == [], f"{view}: the focus is not seen"


def check_keys_are_asked_for(world):
    if "keys" not in world.servers:
        print("SKIPPED check_keys_are_asked_for: gpt2 serve has no --api-key-file")
        return
    with world.page(server="keys") as page:
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        dialog.get_by_label("API key").fill("a-wrong-key-0123456789")
        dialog.get_by_role("button", name="Use the key").click()
        expect(dialog.get_by_role("alert")).to_be_visible()
        dialog.get_by_label("API key").fill(models.KEYS["ann"])
        dialog.get_by_role("button", name="Use the key").click()
        expect(dialog).to_have_count(0)
        greedy(page)
        say(page, "hello")
        expect(replies(page)).to_have_text(["good morning"])
        page.reload()
        expect(page.locator(".chat-name", has_text="hello")).to_be_visible()
        stored = page.evaluate("JSON.stringify(localStorage)")
        assert "a-key" not in stored, stored
        # Another key has other conversations.
        page.locator("#key-button").click()
        dialog.get_by_label("API key").fill(models.KEYS["bob"])
        dialog.get_by_role("button", name="Use the key").click()
        expect(page.get_by_text("No conversations yet.")).to_be_visible()
