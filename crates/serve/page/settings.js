// The panel beside the chat: the system prompt, and how words are chosen.

import { el, fill, growing, labelled, textButton } from "./dom.js";
import * as prefs from "./prefs.js";
import { maxTokens, model } from "./state.js";
import { number, t } from "./words.js";

/// The panel's contents. `system` is the prompt as it is, `onSystem` is told of another one.
export function panel(system, onSystem) {
  const root = el("div", { class: "settings" });
  const draw = () => {
    const area = growing(el("textarea", { rows: 3, spellcheck: "true", oninput: (event) => onSystem(event.target.value) }));
    area.value = system();
    fill(root, [
      labelled(t("system"), area, t("systemAbout")),
      el("h3", {}, t("sampling")),
      Object.keys(prefs.SAMPLING).map(slider),
      limit(),
      seed(),
      textButton(t("reset"), () => {
        prefs.forgetChoices();
        draw();
      }),
    ]);
  };
  draw();
  return root;
}

/// A slider with its number; both say the same.
function slider(name) {
  const { min, max, step, slider: most = max } = prefs.SAMPLING[name];
  const value = prefs.choices()[name];
  const box = el("input", { type: "number", min, max, step: "any", value, inputmode: "decimal" });
  const range = el("input", { type: "range", min, max: most, step, value: Math.min(value, most), "aria-label": t(name) });
  const take = (typed) => {
    const wanted = Number.parseFloat(typed);
    const bounded = Number.isFinite(wanted) ? Math.min(Math.max(wanted, min), max) : prefs.SAMPLING[name].otherwise;
    const taken = step === 1 ? Math.round(bounded) : bounded;
    prefs.choose(name, taken);
    box.value = taken;
    range.value = Math.min(taken, most);
  };
  box.addEventListener("change", () => take(box.value));
  range.addEventListener("input", () => take(range.value));
  const field = labelled(t(name), box, t(`${name}About`));
  field.classList.add("slider");
  box.after(range);
  return field;
}

function whole(name, placeholder, least) {
  const value = prefs.choices()[name] ?? "";
  return el("input", {
    type: "number",
    min: least,
    step: 1,
    value,
    placeholder,
    inputmode: "numeric",
    onchange: (event) => {
      const typed = Number(event.target.value);
      const isGood = event.target.value.trim() !== "" && Number.isSafeInteger(typed) && typed >= least;
      prefs.choose(name, isGood ? typed : null);
      if (!isGood) event.target.value = "";
    },
  });
}

function limit() {
  const n_ctx = model()?.n_ctx;
  return labelled(t("max_tokens"), whole("max_tokens", maxTokens(), 1), n_ctx && t("max_tokensAbout", { n: number(n_ctx) }));
}

function seed() {
  return labelled(t("seed"), whole("seed", t("random"), 0), t("seedAbout"));
}
