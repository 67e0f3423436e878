// One message of a conversation, as it is shown: its text, what can be done with it, and the switch between its branches.

import { copy, el, fill, growing, iconButton, note, textButton } from "./dom.js";
import { figures, legend, view } from "./tokens.js";
import { siblings } from "./tree.js";
import { number, t } from "./words.js";

/// The element of a message. `acts` are what happens: edit(index, text), leave(index), regenerate(index), show(index), tokens(index); `isBusy` says that
/// something is being written, so that only looking is possible.
export function messageOf(chat, index, acts, { isBusy, isLive }) {
  const message = chat.messages[index];
  const isUser = message.role === "user";
  const body = el("div", { class: "text", dir: "auto" }, message.content);
  const parts = [
    el("h2", { class: "who" }, isUser ? t("you") : message.model || t("assistant")),
    message.leftOut > 0 && el("p", { class: "hint" }, t("leftOut", { n: message.leftOut })),
    message.showsTokens && message.logprobs ? tokenView(message) : body,
    message.isScoring && el("p", { class: "line busy" }, t("readingReply")),
  ];
  const root = el("article", { class: `message ${message.role}`, "data-index": index }, parts);
  if (isLive) {
    root.classList.add("live");
    return { root, body };
  }
  root.append(el("div", { class: "acts" }, buttons(), facts(message)));
  return { root, body };

  function buttons() {
    const all = siblings(chat, index);
    const at = all.indexOf(index);
    const go = (name, label, to) => iconButton(name, label, () => acts.show(to), { disabled: to === undefined || isBusy });
    const label = t("branch", { n: at + 1, all: all.length });
    const branches = all.length > 1 && el("span", { class: "branches", role: "group", "aria-label": label }, go("left", t("earlier"), all[at - 1]), el("span", { title: label }, `${at + 1}/${all.length}`), go("right", t("later"), all[at + 1]));
    const copying = iconButton("copy", t("copy"), async () => {
      await copy(message.content);
      note(t("copied"), { close: t("close") });
    });
    const editing = iconButton("edit", t("edit"), edit, { disabled: isBusy });
    const again = !isUser && iconButton("again", t("regenerate"), () => acts.regenerate(index), { disabled: isBusy });
    const seen = Boolean(message.showsTokens);
    const tokens = !isUser && message.content !== "" && iconButton("tokens", t("showTokens"), () => acts.tokens(index), { "aria-pressed": String(seen) });
    return [branches, copying, editing, again, tokens];
  }

  function edit() {
    const area = growing(el("textarea", { rows: 2, "aria-label": t("edit"), dir: "auto" }));
    area.value = message.content;
    const keep = () => area.value.trim() !== "" && acts.edit(index, area.value.trim());
    const cancel = () => acts.leave(index);
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        cancel();
      } else if (isUser && event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        keep();
      }
    });
    const ends = el("div", { class: "ends" }, textButton(t("cancel"), cancel), el("button", { type: "button", class: "main", onclick: keep }, isUser ? t("editSend") : t("editKeep")));
    fill(root, [parts[0], area, ends]);
    root.classList.add("editing");
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  }
}

function tokenView(message) {
  return el("div", {}, view(message.logprobs, t("assistant")), legend(), el("p", { class: "hint" }, figures(message.logprobs)));
}

/// What is known of a reply: tokens, speed, seed, and how it ended where that was not of itself.
function facts({ role, tokens, seconds, seed, finish }) {
  if (role !== "assistant" || tokens === undefined) return null;
  const speed = seconds > 0 && tokens > 1 ? number((tokens - 1) / seconds, 1) : null;
  const all = [speed ? t("speed", { tokens: number(tokens), speed }) : t("count", { tokens: number(tokens) })];
  if (finish === "length") all.push(t("cut"));
  if (finish === "cancelled") all.push(t("stopped"));
  const title = seed !== undefined ? t("seedWas", { seed }) : null;
  return el("span", { class: "facts", title }, all.join(" · "));
}
