// The token view of any text: how likely each token was, and what may follow.

import { stream } from "./api.js";
import { announce, atNextFrame, el, fill, growing, icon, labelled, textButton } from "./dom.js";
import { TOP, score } from "./score.js";
import { explain, isStop, sampling, state } from "./state.js";
import { figures, legend, ofCompletion, view } from "./tokens.js";
import { t } from "./words.js";
import { submitOnEnter } from "./write.js";

let text = "";
let tokens = null;
let running = null;
let problem = null;
let parts = null;

/// Builds the view.
export function build() {
  const area = growing(el("textarea", { rows: 4, placeholder: t("tokensPlaceholder"), required: true, dir: "auto", oninput: (event) => (text = event.target.value) }));
  area.value = text;
  const start = el("button", { type: "submit", class: "main" });
  const more = textButton(t("tokensGoOn"), goOn, { icon: "right", id: "go-on" });
  const form = el("form", { onsubmit: onSubmit, onkeydown: submitOnEnter }, el("p", { class: "lead" }, t("tokensAbout")), labelled(t("tokensText"), area), el("div", { class: "row" }, start, more));
  const paper = el("div", { class: "paper flat" });
  parts = { area, start, more, paper };
  draw();
  return el("div", { class: "view reader", tabindex: "0", role: "region", "aria-label": t("tokensTitle") }, el("div", { class: "column" }, form, paper));
}

export function focus() {
  parts?.area.focus();
}

/// Stops what is being written.
export function stop() {
  running?.abort();
  return running !== null;
}

function draw() {
  parts.start.disabled = parts.more.disabled = state.models.length === 0;
  parts.more.hidden = running !== null;
  fill(parts.start, running ? [icon("stop"), t("stop")] : [icon("tokens"), t("tokensStart")]);
  fill(parts.paper, [
    problem && el("div", { class: "trouble", role: "alert" }, icon("warn"), el("p", {}, problem)),
    tokens ? [view(tokens, t("tokensText")), legend(), el("p", { class: "hint", id: "figures" }, figures(tokens))] : !problem && el("p", { class: "blank" }, t("tokensEmpty")),
  ]);
}

function onSubmit(event) {
  event.preventDefault();
  if (running) stop();
  else work(read);
}

function goOn() {
  if (!running && parts.area.reportValidity()) work(extend);
}

const drawSoon = atNextFrame(() => draw());

async function work(what) {
  running = new AbortController();
  problem = null;
  draw();
  try {
    await what(running.signal);
    announce(figures(tokens));
  } catch (error) {
    if (!isStop(error)) announce((problem = explain(error)));
  }
  running = null;
  draw();
}

/// The log-probabilities of the text itself.
async function read(signal) {
  tokens = await score(state.model, text, signal);
}

/// Has the model continue the text; it appears token by token, behind the text's own.
async function extend(signal) {
  await read(signal);
  draw();
  const asked = { ...sampling(), prompt: text, logprobs: TOP, stream: true };
  for await (const { choices } of stream("/v1/completions", asked, signal)) {
    const [choice] = choices ?? [];
    if (!choice) continue;
    if (choice.logprobs) tokens = [...tokens, ...ofCompletion(choice.logprobs)];
    text += choice.text;
    parts.area.value = text;
    drawSoon();
  }
}
