// What all views share: what the server offers, which model is chosen, and what is being written.

import { ApiError, json } from "./api.js";
import * as prefs from "./prefs.js";
import { t } from "./words.js";

export const state = {
  /// What the server says of itself: { api_key, history, version }.
  config: { api_key: false, history: false, version: "" },
  /// [{ id, n_ctx, template }]
  models: [],
  model: null,
};

/// Told of "models" and "model".
export const changes = new EventTarget();

/// What can be known without a key.
export async function loadConfig() {
  state.config = await json("/app/config");
}

/// The models, for those who may use them.
export async function loadModels() {
  const { models } = await json("/app/models");
  state.models = models;
  const wanted = prefs.model();
  state.model = models.find((model) => model.id === wanted)?.id ?? models[0]?.id ?? null;
  changes.dispatchEvent(new Event("models"));
}

/// Chooses a model by its name.
export function chooseModel(id) {
  state.model = id;
  prefs.setModel(id);
  changes.dispatchEvent(new Event("model"));
}

/// The chosen model, as the server told of it.
export function model() {
  return state.models.find((model) => model.id === state.model) ?? null;
}

/// Tokens of a reply, at most: as chosen, or a share of the context.
export function maxTokens() {
  const n_ctx = model()?.n_ctx ?? 1024;
  return Math.max(1, Math.min(prefs.choices().max_tokens ?? Math.min(512, Math.floor(n_ctx / 4)), n_ctx - 1));
}

/// The fields of a request that say how words are chosen. A seed is drawn where none was chosen, so that it can be told.
export function sampling() {
  const { temperature, top_p, top_k, min_p, repetition_penalty, seed } = prefs.choices();
  const drawn = seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
  return { model: state.model, temperature, top_p, top_k, min_p, repetition_penalty, seed: drawn, max_tokens: maxTokens() };
}

/// An error, in the user's language where it is ours.
export function explain(error) {
  if (!(error instanceof ApiError)) return error.message;
  return error.code === "unreachable" ? t("unreachable") : t("failed", { message: error.message });
}

/// Whether an error is only that the user stopped it.
export function isStop(error) {
  return error.name === "AbortError";
}

/// A clock of tokens: how many came, and how quickly after the first.
export class Speed {
  tokens = 0;
  #first = 0;
  #last = 0;

  count(n) {
    if (n === 0) return;
    this.#last = performance.now();
    if (this.tokens === 0) this.#first = this.#last;
    this.tokens += n;
  }

  /// Seconds from the first token to the last.
  get seconds() {
    return (this.#last - this.#first) / 1000;
  }
}
