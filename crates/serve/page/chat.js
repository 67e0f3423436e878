// The chat: a conversation with its branches, and the reply that is being written.

import { json, stream } from "./api.js";
import { confirmed } from "./dialogs.js";
import { announce, el, fill, growing, icon, iconButton, note, textButton } from "./dom.js";
import { messageOf } from "./message.js";
import * as prefs from "./prefs.js";
import { TOP, scoreReply } from "./score.js";
import { panel } from "./settings.js";
import { Speed, explain, isStop, model, sampling, state } from "./state.js";
import * as store from "./store.js";
import { ofChat } from "./tokens.js";
import * as tree from "./tree.js";
import { number, t } from "./words.js";

let chat = null;
let running = null;
let problem = null;
let parts = null;

/// Told of "current", when another conversation is shown, or its title is new.
export const changes = new EventTarget();

/// The conversation that is shown.
export function current() {
  chat ??= tree.begin(state.model, "");
  return chat;
}

/// Shows another conversation; a reply that is being written is stopped.
export function show(other) {
  stop();
  chat = other;
  problem = null;
  changes.dispatchEvent(new Event("current"));
  draw();
  drawPanel();
}

/// Another model was chosen.
export function modelChanged() {
  draw();
  drawPanel();
}

/// A new conversation, with the system prompt of the one before.
export function startNew() {
  show(tree.begin(state.model, current().system));
  focus();
}

/// Stops the reply; what is there stays.
export function stop() {
  running?.controller.abort();
  return running !== null;
}

export function focus() {
  parts?.field.focus();
}

/// Builds the view.
export function build() {
  current();
  const field = el("textarea", { class: "message-field", rows: 1, placeholder: t("placeholder"), "aria-label": t("message"), dir: "auto", onkeydown: onKey });
  growing(field);
  const go = el("button", { type: "submit", class: "main round" });
  const form = el("form", { class: "composer", onsubmit: onSubmit }, field, go);
  const log = el("div", { class: "log", role: "log", "aria-live": "off", "aria-label": t("chat"), tabindex: "0" });
  const side = el("aside", { class: "panel", id: "panel", "aria-label": t("settings") });
  const talk = el("div", { class: "talk" }, log, el("div", { class: "foot" }, form));
  const root = el("div", { class: "view chat" }, talk, side);
  parts = { root, field, go, log, side };
  drawPanel();
  draw();
  return root;
}

/// The button that opens the panel, for the bar above the view.
export function panelButton() {
  const button = iconButton("tune", t("settings"), togglePanel, { "aria-expanded": "false", "aria-controls": "panel", id: "panel-button" });
  queueMicrotask(drawPanel);
  return button;
}

/// Opens or closes the panel of settings.
export function togglePanel() {
  prefs.setFlag("panel", !isPanelOpen());
  drawPanel();
  if (isPanelOpen()) parts.side.querySelector("textarea, input")?.focus();
  else document.getElementById("panel-button")?.focus();
}

export function isPanelOpen() {
  return prefs.flag("panel", false);
}

function drawPanel() {
  if (!parts) return;
  const isOpen = isPanelOpen();
  parts.side.hidden = !isOpen;
  document.getElementById("panel-button")?.setAttribute("aria-expanded", String(isOpen));
  if (!isOpen) return fill(parts.side, []);
  const heading = el("div", { class: "panel-head" }, el("h2", {}, t("settings")), iconButton("close", t("close"), togglePanel));
  fill(parts.side, [heading, panel(() => chat.system ?? "", (system) => (chat.system = system))]);
}

/// Draws all messages anew.
export function draw() {
  if (!parts) return;
  const { log } = parts;
  const messages = tree.path(chat).map((index) => element(index));
  if (problem) messages.push(trouble());
  fill(log, messages.length > 0 ? el("div", { class: "messages" }, messages) : welcome());
  drawButton();
  log.scrollTop = log.scrollHeight;
}

function element(index) {
  const isLive = running?.chat === chat && running.index === index;
  const { root, body } = messageOf(chat, index, acts, { isBusy: running !== null, isLive });
  if (isLive) {
    running.body = body;
    running.rate = root.appendChild(el("p", { class: "facts" }));
  }
  return root;
}

function welcome() {
  const isPlain = model() && !model().template;
  return el(
    "div",
    { class: "welcome" },
    el("h2", {}, t("empty")),
    el("p", {}, t("emptyAbout")),
    state.models.length === 0 && el("p", { class: "problem" }, t("noModel")),
    isPlain && el("p", { class: "hint boxed" }, t("plainTemplate")),
  );
}

function trouble() {
  const { text, retry } = problem;
  return el("div", { class: "trouble", role: "alert" }, icon("warn"), el("p", {}, text), textButton(t("retry"), retry, { icon: "again" }));
}

function drawButton() {
  const isBusy = running !== null;
  const label = isBusy ? t("stop") : t("send");
  parts.go.setAttribute("aria-label", label);
  parts.go.title = label;
  parts.go.disabled = !isBusy && state.models.length === 0;
  fill(parts.go, icon(isBusy ? "stop" : "send"));
  parts.root.classList.toggle("busy", isBusy);
}

function onSubmit(event) {
  event.preventDefault();
  if (running) {
    stop();
    return;
  }
  const text = parts.field.value.trim();
  if (text === "" || state.models.length === 0) return;
  parts.field.value = "";
  parts.field.dispatchEvent(new Event("input"));
  tree.add(chat, chat.leaf, "user", text);
  changes.dispatchEvent(new Event("current"));
  reply();
}

function onKey(event) {
  // While Chinese is being composed, Enter chooses a word.
  if (event.isComposing || event.keyCode === 229) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    if (!running) parts.go.click();
  } else if (event.key === "ArrowUp" && event.target.value === "" && !running) {
    const last = tree.path(chat).findLast((index) => chat.messages[index].role === "user");
    if (last === undefined) return;
    event.preventDefault();
    parts.log.querySelector(`[data-index="${last}"] .icon-edit`)?.closest("button").click();
  }
}

const acts = {
  edit(index, text) {
    const { parent, role } = chat.messages[index];
    const added = tree.add(chat, parent, role, text);
    if (role === "user") return reply();
    chat.messages[added].model = chat.messages[index].model;
    keep(chat);
    draw();
  },

  leave(index) {
    draw();
    parts.log.querySelector(`[data-index="${index}"] .icon-edit`)?.closest("button").focus();
  },

  regenerate(index) {
    chat.leaf = chat.messages[index].parent;
    reply();
  },

  show(index) {
    tree.show(chat, index);
    draw();
    parts.log.querySelector(`[data-index="${index}"]`)?.scrollIntoView({ block: "nearest" });
  },

  async tokens(index) {
    const mine = chat;
    const message = mine.messages[index];
    if (message.isScoring) return;
    if (message.showsTokens || message.logprobs?.length > 0) {
      message.showsTokens = !message.showsTokens;
      return redraw(mine, index);
    }
    // It was written before the page was loaded, or by hand.
    message.isScoring = true;
    redraw(mine, index);
    announce(t("readingReply"));
    const { system, messages } = sent(mine, message.parent);
    try {
      message.logprobs = await scoreReply(message.model ?? state.model, [...system, ...messages], message.content);
      message.showsTokens = true;
    } catch (error) {
      note(explain(error), { isError: true, close: t("close") });
    }
    message.isScoring = false;
    redraw(mine, index);
  },
};

/// Draws a message anew, if it is shown; its button for tokens keeps the focus.
function redraw(mine, index) {
  const old = mine === chat && parts.log.querySelector(`[data-index="${index}"]`);
  if (!old) return;
  const hadFocus = old.contains(document.activeElement);
  const drawn = element(index);
  old.replaceWith(drawn);
  if (hadFocus) drawn.querySelector(".icon-tokens")?.closest("button").focus();
}

/// What is sent of a conversation up to a message.
function sent(mine, leaf) {
  const messages = tree.path(mine, leaf).map((index) => ({ role: mine.messages[index].role, content: mine.messages[index].content }));
  const system = mine.system?.trim() ? [{ role: "system", content: mine.system }] : [];
  return { system, messages };
}

/// Has the model answer the last message.
async function reply() {
  const mine = chat;
  const asked = sampling();
  const parent = mine.leaf;
  const index = tree.add(mine, parent, "assistant", "");
  const message = mine.messages[index];
  mine.model = state.model;
  Object.assign(message, { model: state.model, seed: asked.seed, logprobs: [] });
  const run = { chat: mine, index, controller: new AbortController(), body: null, rate: null };
  running = run;
  problem = null;
  draw();
  announce(t("writing"));
  const speed = new Speed();
  let failure = null;
  try {
    for await (const chunk of chunks(mine, parent, asked, message, run.controller.signal)) {
      const choice = chunk.choices?.[0];
      const tokens = choice?.logprobs?.content ?? [];
      message.logprobs.push(...tokens.map(ofChat));
      speed.count(tokens.length);
      if (choice?.finish_reason) message.finish = choice.finish_reason;
      if (choice?.delta?.content) grow(run, message, choice.delta.content, speed);
      if (chunk.usage) message.tokens = chunk.usage.completion_tokens;
    }
  } catch (error) {
    if (isStop(error)) message.finish = "cancelled";
    else failure = error;
  }
  message.content = message.content.trim();
  message.tokens ??= speed.tokens;
  message.seconds = Math.round(speed.seconds * 1000) / 1000;
  running = null;
  if (message.content === "" && (failure || message.finish === "cancelled") && mine.messages.length - 1 === index) {
    mine.messages.pop();
    mine.leaf = parent;
  }
  if (failure) problem = { text: explain(failure), retry: () => (mine.leaf === index ? acts.regenerate(index) : reply()) };
  announce(failure ? problem.text : t("replied"));
  keep(mine);
  if (mine === chat) draw();
}

/// More of the reply: it is shown where it belongs, and stays in sight if its end was.
function grow(run, message, piece, speed) {
  const before = message.content;
  message.content = (before + piece).trimStart();
  if (run.chat !== chat || !run.body) return;
  const { log } = parts;
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  if (before === "") fill(run.body, message.content);
  else run.body.firstChild.appendData(piece);
  if (speed.seconds > 0) run.rate.textContent = t("speed", { tokens: number(speed.tokens), speed: number((speed.tokens - 1) / speed.seconds, 1) });
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

/// The chunks of a reply. Where the context does not hold the conversation, its oldest messages are left out, as few as must be,
/// and the message says how many; the system prompt stays.
async function* chunks(mine, leaf, asked, message, signal) {
  const { system, messages } = sent(mine, leaf);
  const from = (start) => [...system, ...messages.slice(start)];
  const more = { stream: true, stream_options: { include_usage: true }, logprobs: true, top_logprobs: TOP };
  const open = (start) => stream("/v1/chat/completions", { ...asked, ...more, messages: from(start) }, signal);
  let isOpen = false;
  try {
    for await (const chunk of open(0)) {
      isOpen = true;
      yield chunk;
    }
  } catch (error) {
    const starts = messages.flatMap(({ role }, at) => (role === "user" && at > 0 ? [at] : []));
    if (error.code !== "context_length_exceeded" || isOpen || starts.length === 0) throw error;
    message.leftOut = await firstThatFits(starts, from, asked, signal);
    yield* open(message.leftOut);
  }
}

/// The first of these beginnings whose prompt leaves room for the reply; the last one, if none does. By halving.
async function firstThatFits(starts, from, { model, max_tokens }, signal) {
  let [least, most] = [0, starts.length - 1];
  while (least < most) {
    const middle = Math.floor((least + most) / 2);
    const body = { model, messages: from(starts[middle]) };
    const { count, max_model_len } = await json("/tokenize", { method: "POST", body, signal });
    if (count + max_tokens <= max_model_len) most = middle;
    else least = middle + 1;
  }
  return starts[least];
}

async function keep(mine) {
  try {
    if (await store.save(mine)) note(t("changedElsewhere"), { close: t("close") });
  } catch (error) {
    note(t("notKept", { why: error.message }), { isError: true, close: t("close") });
  }
  changes.dispatchEvent(new Event("current"));
}

/// Asks, and removes a conversation.
export async function remove({ id, title }) {
  if (!(await confirmed(t("deleteSure"), t("deleteAbout", { title: title || t("untitled") }), t("delete")))) return;
  try {
    await store.remove(id);
    if (current().id === id) show(tree.begin(state.model, current().system));
  } catch (error) {
    note(explain(error), { isError: true, close: t("close") });
  }
}
