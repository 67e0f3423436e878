// What this browser remembers: language, theme, and how words are chosen. No text is among it.

const PREFIX = "gpt2.";

function read(name) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name));
  } catch {
    return null;
  }
}

function write(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Without storage it holds until the page is left.
  }
}

/// The language: as chosen, or as the browser's.
export function language() {
  const chosen = read("lang");
  if (chosen === "en" || chosen === "zh") return chosen;
  const first = (navigator.languages && navigator.languages[0]) || navigator.language || "en";
  return first.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export function setLanguage(lang) {
  write("lang", lang);
}

/// `system`, `light` or `dark`; theme.js reads the same place before the page is drawn.
export function theme() {
  return document.documentElement.dataset.theme ?? "system";
}

export function setTheme(theme) {
  try {
    if (theme === "system") localStorage.removeItem(`${PREFIX}theme`);
    else localStorage.setItem(`${PREFIX}theme`, theme);
  } catch {
    // As above.
  }
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

/// Whether it is dark now.
export function isDark() {
  return theme() === "dark" || (theme() === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
}

/// A switch by name.
export function flag(name, otherwise) {
  const value = read(name);
  return typeof value === "boolean" ? value : otherwise;
}

export function setFlag(name, value) {
  write(name, value);
}

/// The model that was chosen last.
export function model() {
  const value = read("model");
  return typeof value === "string" ? value : null;
}

export function setModel(model) {
  write("model", model);
}

/// How words are chosen: each with its default, and what it may be.
export const SAMPLING = {
  temperature: { otherwise: 0.8, min: 0, max: 2, step: 0.05 },
  top_p: { otherwise: 0.95, min: 0.01, max: 1, step: 0.01 },
  top_k: { otherwise: 40, min: 0, max: 1000, step: 1, slider: 200 },
  min_p: { otherwise: 0, min: 0, max: 1, step: 0.01 },
  repetition_penalty: { otherwise: 1.1, min: 0.5, max: 2, step: 0.05 },
};

let sampling = null;

/// The settings as they are: those above, `max_tokens` and `seed`, which are null where nothing was chosen.
export function choices() {
  if (sampling) return sampling;
  const stored = read("sampling") ?? {};
  sampling = {};
  for (const [name, { otherwise, min, max }] of Object.entries(SAMPLING)) {
    const value = stored[name];
    sampling[name] = typeof value === "number" && value >= min && value <= max ? value : otherwise;
  }
  for (const name of ["max_tokens", "seed"]) {
    const value = stored[name];
    sampling[name] = Number.isSafeInteger(value) && value >= 0 ? value : null;
  }
  return sampling;
}

export function choose(name, value) {
  choices()[name] = value;
  write("sampling", sampling);
}

export function forgetChoices() {
  sampling = null;
  write("sampling", {});
  choices();
}
