// Texts whose tokens are coloured by their probability. The pointer, the keyboard or a finger on a token shows what the
// model expected in its place.
//
// A token is { text, bytes, logprob, top: [{ text, logprob }] }, where logprob is null for the first of a text.

import { el, fill } from "./dom.js";
import { number, t } from "./words.js";

// Steps of probability, from the most likely to the least; the colours are in chat.css.
const STEPS = [0.8, 0.4, 0.15, 0.05, 0.01, 0];

/// The step of a probability, 0 for the likely ones.
function step(logprob) {
  const p = Math.exp(logprob);
  return STEPS.findIndex((least) => p >= least);
}

/// A probability for people.
export function percent(logprob) {
  const p = 100 * Math.exp(logprob);
  if (p >= 99.95) return "100 %";
  if (p >= 0.1) return `${number(p, 1)} %`;
  return p > 0 ? `${p.toExponential(1)} %` : "0 %";
}

/// A token of OpenAI's chat log-probabilities.
export function ofChat({ token, bytes, logprob, top_logprobs }) {
  const top = (top_logprobs ?? []).map((one) => ({ text: one.token, bytes: one.bytes, logprob: one.logprob }));
  return { text: token, bytes: bytes ?? null, logprob, top };
}

/// The tokens of OpenAI's legacy completions. Bytes that are no text by themselves come as `bytes:\xe4\xbd`.
export function ofCompletion({ tokens, token_logprobs, top_logprobs }) {
  return tokens.map((token, at) => {
    const top = Object.entries(top_logprobs?.[at] ?? {}).map(([text, logprob]) => ({ ...named(text), logprob }));
    top.sort((a, b) => b.logprob - a.logprob);
    return { ...named(token), logprob: token_logprobs[at] ?? null, top };
  });
}

function named(token) {
  const escaped = /^bytes:((?:\\x[0-9a-f]{2})+)$/i.exec(token);
  if (!escaped) return { text: token, bytes: null };
  return { text: token, bytes: escaped[1].match(/[0-9a-f]{2}/gi).map((pair) => Number.parseInt(pair, 16)) };
}

/// Gives each token the text that it completes: a character may be spread over several tokens.
export function shown(tokens) {
  const decoder = new TextDecoder("utf-8");
  const encoder = new TextEncoder();
  return tokens.map((token) => decoder.decode(new Uint8Array(token.bytes ?? encoder.encode(token.text)), { stream: true }));
}

/// A token's text where it stands alone: with its white space to be seen, or as the bytes of a part of a character.
function name(token) {
  if (token.bytes) {
    try {
      return visible(new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(token.bytes)));
    } catch {
      return token.bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    }
  }
  return visible(token.text);
}

function visible(text) {
  return text.replace(/ /g, "␣").replace(/\r/g, "␍").replace(/\n/g, "↵").replace(/\t/g, "⇥") || "∅";
}

/// The mean of the log-probabilities, over the tokens that have one.
export function mean(tokens) {
  const known = tokens.filter((token) => Number.isFinite(token.logprob));
  return known.length > 0 ? known.reduce((sum, token) => sum + token.logprob, 0) / known.length : null;
}

/// The line of figures below a text.
export function figures(tokens) {
  const average = mean(tokens);
  if (average === null) return t("count", { tokens: number(tokens.length) });
  const perplexity = Math.exp(-average);
  return t("tokensCount", {
    n: number(tokens.length),
    mean: number(average, 2),
    perplexity: perplexity < 1e6 ? number(perplexity, perplexity < 100 ? 2 : 0) : perplexity.toExponential(1),
  });
}

/// The scale of colours.
export function legend() {
  const steps = STEPS.map((least, at) => el("span", { class: `swatch p${at}` }, at === STEPS.length - 1 ? `< ${100 * STEPS[at - 1]} %` : `≥ ${Math.round(100 * least)} %`));
  return el("p", { class: "legend" }, el("span", {}, t("legend")), steps);
}

/// A text of tokens: one stop of the Tab key, and arrow keys within it.
export function view(tokens, label) {
  const texts = shown(tokens);
  const spans = tokens.map((token, at) => span(token, texts[at], at));
  const box = el("div", { class: "tokens", role: "group", "aria-label": `${label}. ${t("tokensHelp")}` }, spans);
  spans[0]?.setAttribute("tabindex", "0");
  const focused = (event) => spans.indexOf(event.target.closest(".token"));
  box.addEventListener("keydown", (event) => {
    const at = focused(event);
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: spans.length - 1 };
    if (at < 0 || !(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    const to = spans[Math.min(Math.max(moves[event.key], 0), spans.length - 1)];
    event.preventDefault();
    spans[at].setAttribute("tabindex", "-1");
    to.setAttribute("tabindex", "0");
    to.focus();
  });
  const open = (event) => {
    const at = focused(event);
    if (at >= 0) card.show(spans[at], tokens[at]);
  };
  box.addEventListener("focusin", open);
  box.addEventListener("pointerover", open);
  box.addEventListener("click", open);
  box.addEventListener("focusout", () => card.hide());
  box.addEventListener("pointerleave", () => card.hide());
  return box;
}

function span(token, text, at) {
  const known = Number.isFinite(token.logprob);
  const says = known ? t("probability", { p: percent(token.logprob) }) : t("noAlternatives");
  const isPart = text === "" && (token.bytes !== null || token.text !== "");
  const attributes = { class: `token ${known ? `p${step(token.logprob)}` : "first"}${isPart ? " part" : ""}`, tabindex: "-1", role: "button" };
  attributes["data-at"] = at;
  attributes["aria-label"] = `${name(token)}, ${says}`;
  return el("span", attributes, isPart ? "·" : text.includes("\n") ? text.replace(/\n/g, "↵\n") : text);
}

// One card for the whole page.
const card = {
  box: null,

  show(anchor, token) {
    this.box ??= document.body.appendChild(el("div", { class: "card", role: "tooltip", id: "card" }));
    if (this.anchor !== anchor) this.anchor?.removeAttribute("aria-describedby");
    this.anchor = anchor;
    anchor.setAttribute("aria-describedby", "card");
    fill(this.box, contents(token));
    this.box.hidden = false;
    const { left, bottom, top } = anchor.getClientRects()[0] ?? anchor.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const x = Math.max(8, Math.min(left, document.documentElement.clientWidth - width - 8));
    const y = bottom + 8 + height < window.innerHeight ? bottom + 8 : Math.max(8, top - height - 8);
    this.box.style.left = `${x}px`;
    this.box.style.top = `${y}px`;
  },

  hide() {
    if (this.box) this.box.hidden = true;
    this.anchor?.removeAttribute("aria-describedby");
  },
};

/// Hides the card, as the Escape key does; gives whether it was there.
export function hideCard() {
  const wasShown = card.box !== null && !card.box.hidden;
  card.hide();
  return wasShown;
}

addEventListener("scroll", () => card.hide(), { capture: true, passive: true });

function contents(token) {
  const head = el("p", { class: "card-head" }, el("code", {}, name(token)), el("strong", {}, Number.isFinite(token.logprob) ? percent(token.logprob) : "–"));
  if (!Number.isFinite(token.logprob)) return [head, el("p", { class: "hint" }, t("noAlternatives"))];
  const same = (one) => one.text === token.text && String(one.bytes ?? "") === String(token.bytes ?? "");
  const rows = token.top.map((one) => {
    const bar = el("span", { class: "measure" });
    bar.style.inlineSize = `${Math.max(1, 100 * Math.exp(one.logprob))}%`;
    const isIt = same(one);
    return el("li", { class: isIt ? "is-it" : null }, el("code", {}, name(one)), el("span", { class: "track" }, bar), el("span", { class: "share" }, percent(one.logprob)), isIt && el("span", { class: "hidden" }, t("chosen")));
  });
  return [head, rows.length > 0 && el("p", { class: "hint" }, t("alternatives")), el("ol", {}, rows)];
}
