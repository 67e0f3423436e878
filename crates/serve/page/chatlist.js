// The list of conversations beside the views: new, open, remove, export, import, and whether they are kept.

import * as chat from "./chat.js";
import { download, el, fill, iconButton, note, textButton } from "./dom.js";
import { explain, state } from "./state.js";
import * as store from "./store.js";
import { markdown, plain, read } from "./tree.js";
import { t } from "./words.js";

// What is read of a file at most.
const MOST_BYTES = 64 << 20;

let root = null;
let onOpen = () => {};

/// Builds the list into its place; `opened` is called when a conversation is chosen.
export function build(place, opened) {
  root = place;
  onOpen = opened;
  store.changes.addEventListener("list", draw);
  chat.changes.addEventListener("current", draw);
  draw();
}

/// Draws it anew.
export function draw() {
  if (!root) return;
  const wasOpen = root.querySelector("details")?.open ?? false;
  const fresh = textButton(t("newChat"), () => {
    chat.startNew();
    onOpen();
    chat.focus();
  }, { icon: "plus", class: "plain wide", id: "new-chat" });
  const entries = store.list().map(entry);
  const list = entries.length > 0 ? el("ul", { class: "chat-list" }, entries) : el("p", { class: "hint" }, t("noChats"));
  fill(root, [fresh, el("h2", { class: "small" }, t("chats")), list, more(wasOpen)]);
}

function entry({ id, title, isHere }) {
  const isCurrent = chat.current().id === id;
  const name = title || t("untitled");
  const open = el("button", { type: "button", class: "chat-name", "aria-current": isCurrent ? "true" : null, title: name, onclick: () => openChat(id) }, el("span", { dir: "auto" }, name), isHere && state.config.history && el("small", {}, t("onlyHere")));
  return el("li", {}, open, iconButton("bin", t("deleteChat", { title: name }), () => chat.remove({ id, title })));
}

async function openChat(id) {
  try {
    chat.show(await store.load(id));
    onOpen();
  } catch (error) {
    fail(error);
  }
}

function more(isOpen) {
  const file = el("input", { type: "file", accept: ".json,application/json", hidden: true, onchange: () => take(file) });
  const { history } = state.config;
  const box = el("input", { type: "checkbox", id: "keep", checked: store.isKept(), disabled: !history, onchange: (event) => store.setKept(event.target.checked) });
  const about = history ? (store.isKept() ? t("keepOn") : t("keepNot")) : t("keepOff");
  return el(
    "details",
    { class: "more", open: isOpen },
    el("summary", {}, t("more")),
    el("label", { class: "check" }, box, t("keep")),
    el("p", { class: "hint" }, about),
    textButton(t("exportMarkdown"), exportMarkdown, { icon: "save", id: "export-markdown" }),
    textButton(t("exportJson"), () => exportJson([chat.current()]), { icon: "save", id: "export-json" }),
    textButton(t("exportAll"), () => store.all().then(exportJson, fail), { icon: "save", id: "export-all" }),
    textButton(t("import"), () => file.click(), { icon: "open", id: "import" }),
    file,
  );
}

function exportMarkdown() {
  const one = chat.current();
  download(`${fileName(one)}.md`, "text/markdown", markdown(one, { system: t("system"), user: t("you"), assistant: t("assistant") }));
}

function exportJson(chats) {
  const text = JSON.stringify({ format: "gpt2-conversations", version: 1, conversations: chats.map(plain) }, null, 2);
  download(`${chats.length === 1 ? fileName(chats[0]) : "conversations"}.json`, "application/json", `${text}\n`);
}

/// A title's letters and digits, as the name of a file.
function fileName({ title }) {
  return Array.from(title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "")).slice(0, 40).join("") || "conversation";
}

/// Reads a file of conversations, and keeps them.
async function take(input) {
  const [file] = input.files;
  input.value = "";
  if (!file) return;
  try {
    if (file.size > MOST_BYTES) throw new Error(t("fileTooLarge", { n: MOST_BYTES >> 20 }));
    let chats;
    try {
      chats = read(await file.text());
    } catch (error) {
      throw new Error(t("importWrong", { why: error.message }), { cause: error });
    }
    for (const one of chats) await store.save(one);
    note(t("imported", { n: chats.length }), { close: t("close") });
    if (chats.length > 0) chat.show(chats[0]);
    onOpen();
  } catch (error) {
    note(error.message, { isError: true, close: t("close") });
  }
}

function fail(error) {
  note(explain(error), { isError: true, close: t("close") });
}
