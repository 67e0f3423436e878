// Conversations: kept on the server where it keeps a history and the user wants it, and else as long as the tab lives.

import { ApiError, json } from "./api.js";
import * as prefs from "./prefs.js";
import { state } from "./state.js";
import { newId, plain } from "./tree.js";

/// Those that this tab has, by id, and the heads of those that the server has.
const here = new Map();
let heads = [];
/// One save after the other, so that versions follow each other.
let queue = Promise.resolve();

export const changes = new EventTarget();

function changed() {
  changes.dispatchEvent(new Event("list"));
}

/// Whether conversations go to the server.
export function isKept() {
  return state.config.history && prefs.flag("keep", true);
}

/// Changes that, from the next message on.
export function setKept(value) {
  prefs.setFlag("keep", value);
  changed();
}

/// Asks the server for its conversations.
export async function refresh() {
  heads = state.config.history ? (await json("/app/chats")).chats : [];
  changed();
}

/// All there are, the latest first: { id, title, updated, isHere }, where `isHere` says that only this tab has it.
export function list() {
  const known = new Set(heads.map((head) => head.id));
  const own = [...here.values()].filter((chat) => !known.has(chat.id) && chat.messages.length > 0);
  const all = [...heads, ...own.map(({ id, title, updated }) => ({ id, title, updated, isHere: true }))];
  return all.sort((a, b) => (a.updated < b.updated ? 1 : a.updated > b.updated ? -1 : 0));
}

/// A whole conversation.
export async function load(id) {
  const known = here.get(id);
  const head = heads.find((one) => one.id === id);
  if (known && (!head || head.version === known.version)) return known;
  const { version, chat } = await json(`/app/chats/${id}`);
  const loaded = { ...chat, id, version };
  here.set(id, loaded);
  return loaded;
}

/// Keeps a conversation as it is now. The result says whether it had been changed elsewhere and became another one.
export function save(chat) {
  here.set(chat.id, chat);
  changed();
  const saved = queue.then(() => send(chat));
  queue = saved.catch(() => {});
  return saved;
}

async function send(chat) {
  if (!isKept()) return false;
  try {
    await put(chat);
    return false;
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 409) throw error;
    here.delete(chat.id);
    chat.id = newId();
    chat.version = 0;
    here.set(chat.id, chat);
    await put(chat);
    return true;
  } finally {
    changed();
  }
}

async function put(chat) {
  const { version } = await json(`/app/chats/${chat.id}`, { method: "PUT", body: { version: chat.version, chat: plain(chat) } });
  chat.version = version;
  const head = { id: chat.id, title: chat.title, updated: chat.updated, version };
  heads = [head, ...heads.filter((one) => one.id !== chat.id)];
}

/// Removes a conversation, here and on the server.
export async function remove(id) {
  await queue;
  if (heads.some((head) => head.id === id)) {
    await json(`/app/chats/${id}`, { method: "DELETE" });
    heads = heads.filter((head) => head.id !== id);
  }
  here.delete(id);
  changed();
}

/// All conversations, whole.
export async function all() {
  const whole = [];
  for (const { id } of list()) whole.push(await load(id));
  return whole;
}
