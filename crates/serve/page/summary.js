// The summary desk: a source beside its summary, in which what the source does not say is marked.

import { stream } from "./api.js";
import { announce, copy, el, fill, icon, labelled, note, textButton } from "./dom.js";
import { explain, isStop, state } from "./state.js";
import { number, t } from "./words.js";
import { submitOnEnter } from "./write.js";

// What the server takes at most.
const MOST_BYTES = 4 << 20;
const KINDS = { number: "kindNumber", name: "kindName", title: "kindTitle" };

let source = "";
let sentences = 3;
let running = null;
let progress = null;
let waiting = null;
let result = null;
let problem = null;
let stopped = null;
let parts = null;

/// Builds the view.
export function build() {
  const area = el("textarea", { class: "source", placeholder: t("sourcePlaceholder"), required: true, dir: "auto", oninput: (event) => {
    source = event.target.value;
    drawCount();
  } });
  area.value = source;
  const file = el("input", { type: "file", accept: "text/*,.txt,.md", hidden: true, onchange: () => open(file, area) });
  const count = el("p", { class: "hint count" });
  const most = el("select", { onchange: (event) => (sentences = Number(event.target.value)) }, [1, 2, 3, 5, 8].map((n) => el("option", { value: n, selected: n === sentences }, number(n))));
  const start = el("button", { type: "submit", class: "main" });
  const settings = el("div", { class: "row" }, labelled(t("sentences"), most), textButton(t("openFile"), () => file.click(), { icon: "open" }), file, start);
  const field = labelled(t("source"), area);
  field.classList.add("tall");
  const form = el("form", { class: "desk-half", onsubmit: onSubmit, onkeydown: submitOnEnter }, el("p", { class: "lead" }, t("summaryAbout")), field, count, settings);
  const paper = el("div", { class: "paper", tabindex: "0", role: "region", "aria-label": t("summary") });
  parts = { area, count, start, paper };
  drawCount();
  drawStart();
  drawPaper();
  return el("div", { class: "view desk halves" }, form, paper);
}

export function focus() {
  parts?.area.focus();
}

/// Stops the reading.
export function stop() {
  running?.abort();
  return running !== null;
}

function drawCount() {
  fill(parts.count, t("characters", { n: number(Array.from(source).length) }));
}

function drawStart() {
  parts.start.disabled = state.models.length === 0;
  fill(parts.start, running ? [icon("stop"), t("stop")] : [icon("summary"), t("summaryStart")]);
}

async function open(file, area) {
  const [chosen] = file.files;
  file.value = "";
  if (!chosen) return;
  try {
    if (chosen.size > MOST_BYTES) throw new Error(t("fileTooLarge", { n: MOST_BYTES >> 20 }));
    const bytes = await chosen.arrayBuffer();
    try {
      source = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    } catch {
      throw new Error(t("fileNoText"));
    }
    area.value = source;
    drawCount();
  } catch (error) {
    note(error.message, { isError: true, close: t("close") });
  }
}

function onSubmit(event) {
  event.preventDefault();
  if (running) stop();
  else run();
}

async function run() {
  const controller = new AbortController();
  running = controller;
  [progress, waiting, result, problem, stopped] = [null, null, null, null, null];
  drawStart();
  drawPaper();
  if (matchMedia("(max-width: 900px)").matches) parts.paper.scrollIntoView();
  announce(t("writing"));
  try {
    const asked = { model: state.model, text: source, max_sentences: sentences };
    for await (const event of stream("/app/summarize", asked, controller.signal)) {
      if (event.type === "waiting") waiting = event.ahead;
      if (event.type === "part") [progress, waiting] = [event, null];
      if (event.type === "done") result = event;
      drawPaper();
    }
  } catch (error) {
    if (isStop(error)) stopped = progress;
    else problem = explain(error);
    if (isStop(error) && !progress) stopped = { done: 0, of: 0 };
  }
  running = null;
  announce(problem ?? (result ? read(result) : t("readNone")));
  drawStart();
  drawPaper();
}

function drawPaper() {
  fill(parts.paper, [
    problem && el("div", { class: "trouble", role: "alert" }, icon("warn"), el("p", {}, problem)),
    running && el("p", { class: "line busy" }, waiting > 0 ? t("writeWaiting", { n: waiting }) : progress ? t("summaryPart", { done: progress.done, all: progress.of }) : t("writing")),
    stopped && el("p", { class: "line" }, stopped.of > 0 ? t("readNot", { done: stopped.done, all: stopped.of }) : t("readNone")),
    result && shown(result),
    !running && !result && !problem && !stopped && el("p", { class: "blank" }, t("summaryEmpty")),
  ]);
}

/// The summary with its marks, and what is to be said of it.
function shown(result) {
  const { pieces, unfound, summary } = result;
  const marked = pieces.map(({ text, kind }) => (kind ? el("mark", { title: `${t(KINDS[kind])}: ${t("unfound")}` }, text) : text));
  const list = unfound.map(({ kind, text }) => el("li", {}, el("mark", {}, text), ` ${t(KINDS[kind])}`));
  return [
    summary === "" ? el("p", { class: "problem" }, t("summaryNothing")) : el("article", { class: "document summary-text", dir: "auto" }, marked),
    el("section", { class: "findings" }, said(result).map(([name, text]) => el("p", { class: name === "warn" ? "warning" : "hint" }, name === "warn" && icon("warn"), el("span", {}, text))),
      unfound.length > 0 && [el("h3", {}, t("unfound")), el("ul", { class: "unfound" }, list), el("p", { class: "hint" }, t("unfoundAbout"))]),
    summary !== "" && el("div", { class: "ends" }, textButton(t("copy"), async () => {
      await copy(summary);
      note(t("copied"), { close: t("close") });
    }, { icon: "copy" })),
  ];
}

/// What was read, and what was not as it should be.
function said(result) {
  const all = [["read", read(result)]];
  if (result.split_sentences > 0) all.push(["warn", t("splitSentences", { n: number(result.split_sentences) })]);
  if (result.is_stalled) all.push(["warn", t("stalled")]);
  if (result.is_cut_off) all.push(["warn", t("cutOff")]);
  if (result.unfound.length === 0 && result.summary !== "") all.push(["good", t("unfoundNone")]);
  return all;
}

function read({ chars, sentences: n, parts: cut, rounds }) {
  const values = { chars: number(chars), sentences: number(n), parts: number(cut), rounds: number(rounds) };
  return t(cut === 1 ? "readWhole" : rounds === 1 ? "readParts" : "readRounds", values);
}
