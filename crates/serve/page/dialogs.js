// What is asked or told over the page: the key, whether something shall be deleted, the list of keys.

import { setKey } from "./api.js";
import { el, icon, textButton } from "./dom.js";
import * as prefs from "./prefs.js";
import { t } from "./words.js";

/// Shows a dialog, and gives what it was closed with.
function open(title, children, attributes = {}) {
  const heading = el("h2", { id: "dialog-title" }, title);
  const box = el("dialog", { "aria-labelledby": "dialog-title", ...attributes }, heading, children);
  document.body.append(box);
  box.addEventListener("pointerdown", (event) => {
    const { left, right, top, bottom } = box.getBoundingClientRect();
    const isInside = event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom;
    if (event.target === box && !isInside) box.close("");
  });
  return new Promise((resolve) => {
    box.addEventListener("close", () => {
      box.remove();
      resolve(box.returnValue);
    });
    box.showModal();
  });
}

let asking = null;

/// Asks for the API key; gives whether there is one now. Several requests ask once.
export function askForKey(wasRefused) {
  asking ??= key(wasRefused).finally(() => {
    asking = null;
  });
  return asking;
}

async function key(wasRefused) {
  const field = el("input", { type: "password", id: "key", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "key-about" });
  const form = el(
    "form",
    { method: "dialog" },
    el("label", { for: "key" }, t("key")),
    field,
    el("p", { class: "hint", id: "key-about" }, t("keyAbout")),
    wasRefused && el("p", { class: "problem", role: "alert" }, t("keyWrong")),
    el("div", { class: "ends" }, textButton(t("cancel"), () => form.closest("dialog").close("")), el("button", { class: "main", value: "use" }, t("keySave"))),
  );
  const answer = await open(t("keyTitle"), form);
  if (answer !== "use" || field.value.trim() === "") return false;
  setKey(field.value.trim());
  return true;
}

/// Whether the user means it.
export async function confirmed(title, about, action) {
  const form = el(
    "form",
    { method: "dialog" },
    el("p", {}, about),
    el("div", { class: "ends" }, el("button", { class: "plain", value: "", autofocus: true }, t("cancel")), el("button", { class: "main danger", value: "yes" }, action)),
  );
  return (await open(title, form)) === "yes";
}

/// The keys, and whether single ones do something.
export function help() {
  const rows = [
    [["?"], t("keyHelp")],
    [["N"], t("keyNew")],
    [["/"], t("keyFocus")],
    [["1", "2", "3", "4"], t("keyViews")],
    [["S"], t("keySettings")],
    [["D"], t("keyTheme")],
    [["Enter"], t("keySend")],
    [["Shift", "Enter"], t("keyLine"), "+"],
    [["↑"], t("keyLast")],
    [["←", "→"], t("keyArrows")],
    [["Esc"], t("keyStop")],
  ];
  const list = rows.map(([keys, about, between = " "]) => [
    el("dt", {}, keys.flatMap((one, at) => [at > 0 && between, el("kbd", {}, one)])),
    el("dd", {}, about),
  ]);
  const single = el("input", { type: "checkbox", checked: prefs.flag("keys", true), onchange: (event) => prefs.setFlag("keys", event.target.checked) });
  const shut = el("button", { class: "quiet corner", "aria-label": t("close"), autofocus: true }, icon("close"));
  return open(t("helpTitle"), el("form", { method: "dialog" }, shut, el("dl", { class: "keys" }, list), el("label", { class: "check" }, single, t("helpSingle"))));
}
