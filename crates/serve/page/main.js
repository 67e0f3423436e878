// The page: which view is shown, the menu, language and theme, and the keys.

import { onKeyNeeded } from "./api.js";
import * as chat from "./chat.js";
import * as chatlist from "./chatlist.js";
import { askForKey, help } from "./dialogs.js";
import { el, fill, icon, iconButton, note, segments, textButton } from "./dom.js";
import * as prefs from "./prefs.js";
import * as reader from "./reader.js";
import { changes, chooseModel, explain, loadConfig, loadModels, state } from "./state.js";
import * as store from "./store.js";
import * as summary from "./summary.js";
import { hideCard } from "./tokens.js";
import { speak, t } from "./words.js";
import * as write from "./write.js";

const VIEWS = { chat, write, summary, tokens: reader };
const NAMES = Object.keys(VIEWS);
const NARROW = matchMedia("(max-width: 760px)");

const place = (id) => document.getElementById(id);
let shown = null;

/// Shows the view that the address names, and everything around it, in the language that is spoken.
function draw() {
  const name = location.hash.slice(1);
  shown = NAMES.includes(name) ? name : (shown ?? "chat");
  document.title = `${t(shown)} · gpt2`;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", t(element.dataset.tLabel));
  fill(place("nav"), NAMES.map((one) => el("a", { href: `#${one}`, "aria-current": one === shown ? "page" : null }, icon(one), el("span", {}, t(one)))));
  place("chats").hidden = shown !== "chat";
  chatlist.draw();
  fill(place("tools"), tools());
  fill(place("view"), [bar(), VIEWS[shown].build()]);
}

/// The bar above a view: the menu on narrow screens, the title, the model.
function bar() {
  const menu = iconButton("menu", t("menu"), () => openMenu(true), { class: "quiet menu-button", "aria-expanded": "false", "aria-controls": "side", id: "menu-button" });
  const titles = { chat: "chat", write: "writeTitle", summary: "summaryTitle", tokens: "tokensTitle" };
  const models = state.models.map(({ id }) => el("option", { value: id, selected: id === state.model }, id));
  const choice = el("select", { class: "model", "aria-label": t("model"), title: t("model"), onchange: (event) => chooseModel(event.target.value) }, models);
  return el("div", { class: "bar" }, menu, el("h1", {}, t(titles[shown])), models.length > 0 && choice, shown === "chat" && chat.panelButton());
}

function tools() {
  const theme = segments(t("theme"), [["system", t("themeSystem"), "system"], ["light", t("themeLight"), "light"], ["dark", t("themeDark"), "dark"]], prefs.theme(), prefs.setTheme);
  const languages = segments(t("language"), [["en", "EN"], ["zh", "中文"]], document.documentElement.lang.startsWith("zh") ? "zh" : "en", setLanguage);
  const asks = state.config.api_key && iconButton("key", t("key"), async () => (await askForKey(false)) && start(), { id: "key-button" });
  return [theme, languages, el("div", { class: "row" }, textButton(t("help"), help, { icon: "help", class: "plain", id: "help-button" }), asks)];
}

function setLanguage(lang) {
  prefs.setLanguage(lang);
  speak(lang);
  draw();
  document.querySelector(`#tools input[value="${lang}"]`)?.focus();
}

/// Opens or closes the menu, where there is no room for it beside the view.
function openMenu(isOpen) {
  document.body.classList.toggle("menu", isOpen);
  place("menu-button")?.setAttribute("aria-expanded", String(isOpen));
  fence();
  if (isOpen) place("nav").querySelector("a").focus();
  else if (NARROW.matches) place("menu-button")?.focus();
}

/// What is out of sight cannot be reached by Tab.
function fence() {
  const isOpen = document.body.classList.contains("menu");
  place("side").inert = NARROW.matches && !isOpen;
  place("view").inert = NARROW.matches && isOpen;
}

/// What a single key does, outside of fields.
const KEYS = {
  "?": help,
  n: () => {
    location.hash = "chat";
    draw();
    chat.startNew();
  },
  "/": () => VIEWS[shown].focus(),
  s: () => shown === "chat" && chat.togglePanel(),
  d: () => {
    prefs.setTheme(prefs.isDark() ? "light" : "dark");
    fill(place("tools"), tools());
  },
};
NAMES.forEach((name, at) => {
  KEYS[String(at + 1)] = () => (location.hash = name);
});

function onKey(event) {
  if (event.key === "Escape" && !event.isComposing) {
    if (document.querySelector("dialog[open]")) return;
    if (hideCard()) return;
    if (document.body.classList.contains("menu")) openMenu(false);
    else if (!VIEWS[shown].stop() && shown === "chat" && chat.isPanelOpen()) chat.togglePanel();
    return;
  }
  const isTyping = event.target.closest?.("input:not([type=checkbox], [type=radio], [type=range]), textarea, select, dialog");
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey || !prefs.flag("keys", true)) return;
  const act = KEYS[event.key.toLowerCase()];
  if (!act) return;
  event.preventDefault();
  act();
}

/// Learns what the server has, and draws the page.
async function start() {
  try {
    await loadConfig();
    draw();
    await loadModels();
    draw();
    await store.refresh();
  } catch (error) {
    draw();
    note(explain(error), { isError: true, close: t("close") });
  }
  if (!NARROW.matches) VIEWS[shown].focus();
}

speak(prefs.language());
onKeyNeeded(askForKey);
chatlist.build(place("chats"), () => openMenu(false));
place("veil").addEventListener("click", () => openMenu(false));
place("nav").addEventListener("click", (event) => event.target.closest("a") && document.body.classList.contains("menu") && openMenu(false));
NARROW.addEventListener("change", () => openMenu(false));
addEventListener("hashchange", () => {
  if (!NAMES.includes(location.hash.slice(1))) return;
  draw();
  if (!NARROW.matches) VIEWS[shown].focus();
});
addEventListener("keydown", onKey);
changes.addEventListener("model", () => VIEWS[shown] === chat && chat.modelChanged());
fence();
start();
