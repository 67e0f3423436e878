// Talking to the server: the key, errors in OpenAI's shape, streams.

import { Events } from "./sse.js";

const KEY = "gpt2.key";

/// An error that the server told, or that there was no answer.
export class ApiError extends Error {
  constructor(status, { message, code, param, type } = {}) {
    super(message || `HTTP ${status}`);
    Object.assign(this, { status, code, param, type });
  }
}

let askForKey = null;

/// What asks the user for a key: given whether one was refused, it gives whether there is a new one.
export function onKeyNeeded(ask) {
  askForKey = ask;
}

/// The key lives as long as the tab.
export function setKey(key) {
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    memory = key;
  }
}

let memory = null;

export function hasKey() {
  return Boolean(key());
}

function key() {
  try {
    return sessionStorage.getItem(KEY) ?? memory;
  } catch {
    return memory;
  }
}

/// Sends a request. What is no success is thrown as an `ApiError`; where a key is missing, the user is asked for it.
export async function request(path, { method = "GET", body, signal } = {}) {
  for (;;) {
    const headers = {};
    if (key()) headers.Authorization = `Bearer ${key()}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    const sent = body === undefined ? undefined : JSON.stringify(body);
    let response;
    try {
      response = await fetch(path, { method, headers, body: sent, signal, credentials: "omit", cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, { code: "unreachable" });
    }
    if (response.ok) return response;
    if (response.status === 401 && askForKey && (await askForKey(hasKey()))) continue;
    throw await errorOf(response);
  }
}

async function errorOf(response) {
  const text = await response.text().catch(() => "");
  try {
    const { error } = JSON.parse(text);
    if (error && typeof error.message === "string") return new ApiError(response.status, error);
  } catch {
    // Not JSON: a proxy's page, perhaps, which is of no use here.
  }
  return new ApiError(response.status);
}

export async function json(path, options) {
  const response = await request(path, options);
  return response.status === 204 ? null : response.json();
}

/// Posts a request, and gives the objects of the stream that answers it.
export async function* stream(path, body, signal) {
  const response = await request(path, { method: "POST", body, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const events = new Events();
  let isWhole = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      for (const data of events.push(value)) {
        if (data === "[DONE]") {
          isWhole = true;
          continue;
        }
        const object = JSON.parse(data);
        if (object.error) throw new ApiError(500, object.error);
        yield object;
      }
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ApiError) throw error;
    throw new ApiError(0, { code: "unreachable" });
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!isWhole) throw new ApiError(0, { code: "unreachable" });
}
