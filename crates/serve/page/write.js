// The writing desk: a recipe, its inputs, and the document as its parts are written.

import { json, stream } from "./api.js";
import { announce, atNextFrame, copy, download, el, fill, growing, icon, labelled, note, textButton } from "./dom.js";
import { explain, isStop, state } from "./state.js";
import { lang, number, t } from "./words.js";

let recipes = null;
let chosen = null;
// What was typed, by the name of the input.
const typed = { topic: "" };
let candidates = 1;
let running = null;
// The document: [{ name, attempts: Map, result }], its Markdown once it is whole, and the line that says how it stands.
let steps = [];
let whole = null;
let line = "";
let problem = null;
let parts = null;

/// Builds the view.
export function build() {
  const form = el("form", { class: "desk-form", onsubmit: onSubmit, onkeydown: submitOnEnter });
  const paper = el("div", { class: "paper", tabindex: "0", role: "region", "aria-label": t("write") });
  const root = el("div", { class: "view desk" }, el("div", { class: "desk-side" }, el("p", { class: "lead" }, t("writeAbout")), form), paper);
  parts = { form, paper };
  drawForm();
  drawPaper();
  if (!recipes) load();
  return root;
}

export function focus() {
  parts?.form.querySelector("textarea")?.focus();
}

/// Stops the writing; what is decided stays.
export function stop() {
  running?.abort();
  return running !== null;
}

/// Control and Enter start, from any field.
export function submitOnEnter(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    event.currentTarget.requestSubmit();
  }
}

async function load() {
  try {
    recipes = (await json("/app/recipes")).recipes;
    chosen ??= recipes[0]?.name ?? null;
  } catch (error) {
    problem = explain(error);
    drawPaper();
  }
  drawForm();
}

function recipe() {
  return recipes?.find((one) => one.name === chosen) ?? null;
}

function drawForm() {
  const options = (recipes ?? []).map(({ name, about }) => el("option", { value: name, selected: name === chosen }, about[lang()]));
  const choice = el("select", { onchange: (event) => {
    chosen = event.target.value;
    drawForm();
    parts.form.querySelector("select").focus();
  } }, options);
  const topic = input("topic", t("topic"), t("topicAbout"), t("topicPlaceholder"));
  const others = (recipe()?.inputs ?? []).map(({ name, about, otherwise }) => input(name, about[lang()], null, otherwise ? t("optional", { value: otherwise[lang()] }) : "", !otherwise));
  const count = el("select", { onchange: (event) => (candidates = Number(event.target.value)) }, [1, 2, 4].map((n) => el("option", { value: n, selected: n === candidates }, number(n))));
  const start = el("button", { type: "submit", class: "main wide", id: "write-start", disabled: !recipe() || state.models.length === 0 });
  fill(start, running ? [icon("stop"), t("stop")] : [icon("write"), t("writeStart")]);
  fill(parts.form, [labelled(t("recipe"), choice), topic, others, labelled(t("candidates"), count, t("candidatesAbout")), start]);
}

function input(name, label, about, placeholder, isRequired = name === "topic") {
  const area = growing(el("textarea", { rows: name === "topic" ? 2 : 1, placeholder, required: isRequired, dir: "auto", oninput: (event) => (typed[name] = event.target.value) }));
  area.value = typed[name] ?? "";
  return labelled(label, area, about);
}

function onSubmit(event) {
  event.preventDefault();
  if (running) stop();
  else run();
}

async function run() {
  const inputs = {};
  for (const { name } of recipe().inputs) if (typed[name]?.trim()) inputs[name] = typed[name].trim();
  const asked = { model: state.model, recipe: chosen, topic: typed.topic.trim(), inputs, best_of: candidates };
  const controller = new AbortController();
  running = controller;
  [steps, whole, line, problem] = [[], null, "", null];
  drawForm();
  drawPaper();
  if (matchMedia("(max-width: 900px)").matches) parts.paper.scrollIntoView();
  announce(t("writing"));
  try {
    for await (const event of stream("/app/write", asked, controller.signal)) take(event);
  } catch (error) {
    if (isStop(error)) line = t("writeStopped");
    else problem = explain(error);
  }
  running = null;
  steps = steps.filter((step) => step.result);
  announce(problem ?? line);
  drawForm();
  drawPaper();
}

/// Takes in what the server tells.
function take(event) {
  if (event.type === "waiting") line = t("writeWaiting", { n: event.ahead });
  if (event.type === "draft") {
    const step = stepOf(event.step);
    line = t("writeStep", { step: event.step });
    step.attempts.set(event.attempt, (step.attempts.get(event.attempt) ?? "") + event.piece);
  }
  if (event.type === "step") stepOf(event.name).result = event;
  if (event.type === "done") {
    whole = event.markdown;
    line = t("writeDone", { seed: event.seed });
  }
  drawSoon();
}

function stepOf(name) {
  let step = steps.find((one) => one.name === name);
  if (!step) steps.push((step = { name, attempts: new Map(), result: null }));
  return step;
}

/// The document so far, as Markdown.
function soFar() {
  return whole ?? `${steps.flatMap((step) => step.result?.markdown ?? []).join("\n\n")}\n`;
}

const drawSoon = atNextFrame(() => drawPaper());

function drawPaper() {
  if (!parts) return;
  const { paper } = parts;
  const isAtEnd = paper.scrollHeight - paper.scrollTop - paper.clientHeight < 60;
  const shown = steps.flatMap((step) => (step.result ? decided(step.result) : draft(step)));
  const hasText = steps.some((step) => step.result);
  const ends = !running && hasText && el(
    "div",
    { class: "ends" },
    textButton(t("copyMarkdown"), async () => {
      await copy(soFar());
      note(t("copied"), { close: t("close") });
    }, { icon: "copy" }),
    textButton(t("downloadMarkdown"), () => download(`${chosen}.md`, "text/markdown", soFar()), { icon: "save", id: "download-document" }),
  );
  fill(paper, [
    shown.length > 0 ? el("article", { class: "document", dir: "auto" }, shown) : !problem && !running && el("p", { class: "blank" }, t("writeEmpty")),
    problem && el("div", { class: "trouble", role: "alert" }, icon("warn"), el("p", {}, problem)),
    line && el("p", { class: running ? "line busy" : "line" }, line),
    ends,
  ]);
  if (isAtEnd && running) paper.scrollTop = paper.scrollHeight;
}

/// A part that is decided, as the document has it, and what is to be said of it.
function decided({ title, keep, text, warnings }) {
  const [kind, detail] = keep.split(" ");
  const lines = text.split("\n").map((one) => one.replace(/^[\s\-*•·–]+/, "").trim()).filter(Boolean);
  const bodies = {
    heading: () => el(Number(detail) === 1 ? "h2" : "h3", {}, text),
    list: () => el("ul", {}, lines.map((one) => el("li", {}, one))),
    code: () => el("pre", { tabindex: "0" }, el("code", {}, text)),
    no: () => el("p", { class: "aside" }, text),
  };
  const paragraphs = () => text.split(/\n\s*\n/).map((paragraph) => el("p", {}, paragraph));
  const body = Object.hasOwn(bodies, kind) ? bodies[kind] : paragraphs;
  const notes = warnings.map(warning).map((said) => el("p", { class: "warning" }, icon("warn"), el("span", {}, said)));
  return [title && el("h3", {}, title), body(), notes];
}

function warning({ kind, why, n }) {
  if (kind === "check") return t("checkFailed", { why });
  if (kind === "room") return t("shortOfRoom", { n: number(n) });
  return t("droppedSentence");
}

/// A part that is being written: of several candidates the first of the latest round.
function draft({ attempts }) {
  const last = Math.max(...attempts.keys());
  const shown = last - (last % candidates);
  const text = attempts.get(shown) ?? attempts.get(last);
  return el("p", { class: "draft" }, text.trimStart(), last > 0 && el("small", {}, ` ${t("attempt", { n: shown + 1 })}`));
}
