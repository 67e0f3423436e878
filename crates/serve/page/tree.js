// A conversation with branches, as data. A message knows its parent, which always stands before it; an edited message and a
// reply that was written anew are further children of the same parent, and `leaf` is the end of the branch that is shown.
//
// { id, title, model, system, created, updated, version, leaf, messages: [{ parent, role, content, … }] }

const ROLES = ["user", "assistant"];
// What a file may hold at most; the server has the same bounds.
const MOST_MESSAGES = 5000;
const MOST_CHARACTERS = 4_000_000;

/// A conversation without messages.
export function begin(model, system) {
  const now = new Date().toISOString();
  return { id: newId(), title: "", model, system, created: now, updated: now, version: 0, leaf: null, messages: [] };
}

/// A number that no other conversation has.
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/// Adds a message below a parent (`null` is the beginning), and shows its branch; gives its index.
export function add(chat, parent, role, content) {
  chat.messages.push({ parent, role, content });
  chat.leaf = chat.messages.length - 1;
  chat.updated = new Date().toISOString();
  if (chat.title === "" && role === "user") chat.title = titleOf(content);
  return chat.leaf;
}

/// The beginning of a message, as a title.
export function titleOf(content) {
  const line = content.trim().split("\n")[0].trim();
  const characters = Array.from(line);
  return characters.length > 60 ? `${characters.slice(0, 59).join("")}…` : line;
}

/// The messages from the beginning to this one, as indices.
export function path(chat, leaf = chat.leaf) {
  const indices = [];
  for (let at = leaf; at !== null; at = chat.messages[at].parent) indices.push(at);
  return indices.reverse();
}

/// The messages that stand in the same place, as indices in the order of their writing.
export function siblings(chat, index) {
  const { parent } = chat.messages[index];
  return chat.messages.flatMap((message, at) => (message.parent === parent ? [at] : []));
}

/// Shows the branch that goes through a message: below it, the latest of each place.
export function show(chat, index) {
  let leaf = index;
  for (let at = index + 1; at < chat.messages.length; at++) {
    if (chat.messages[at].parent === leaf) leaf = lastChild(chat, leaf);
  }
  chat.leaf = leaf;
}

function lastChild(chat, index) {
  return chat.messages.findLastIndex((message) => message.parent === index);
}

/// What is kept of a conversation: nothing that only this tab knows.
export function plain(chat) {
  const { id, title, model, system, created, updated, leaf } = chat;
  const messages = chat.messages.map(({ parent, role, content, model, finish, tokens, seconds, seed }) => {
    const kept = { parent, role, content, model, finish, tokens, seconds, seed };
    return Object.fromEntries(Object.entries(kept).filter(([key, value]) => value !== undefined && (value !== null || key === "parent")));
  });
  return { id, title, model, system, created, updated, leaf, messages };
}

/// Reads what is said to be conversations; what is not as it must be is an error that says why.
export function read(text) {
  const value = JSON.parse(text);
  const list = Array.isArray(value?.conversations) ? value.conversations : [value];
  return list.map((one, at) => conversation(one, `conversation ${at + 1}`));
}

function conversation(value, where) {
  const need = (holds, what) => {
    if (!holds) throw new Error(`${where}: ${what}`);
  };
  need(value !== null && typeof value === "object", "it is no object");
  need(Array.isArray(value.messages), "there is no list `messages`");
  need(value.messages.length <= MOST_MESSAGES, `more than ${MOST_MESSAGES} messages`);
  const text = (key) => (typeof value[key] === "string" ? value[key] : "");
  let characters = text("system").length;
  const messages = value.messages.map((message, at) => {
    const { parent = null, role, content } = message ?? {};
    need(ROLES.includes(role), `message ${at}: its role is neither user nor assistant`);
    need(typeof content === "string", `message ${at}: it has no content`);
    need(parent === null || (Number.isInteger(parent) && parent >= 0 && parent < at), `message ${at}: its parent does not stand before it`);
    characters += content.length;
    const one = { parent, role, content };
    for (const key of ["model", "finish"]) if (typeof message[key] === "string") one[key] = message[key].slice(0, 200);
    for (const key of ["tokens", "seconds", "seed"]) if (Number.isFinite(message[key]) && message[key] >= 0) one[key] = message[key];
    return one;
  });
  need(characters <= MOST_CHARACTERS, `more than ${MOST_CHARACTERS} characters`);
  const now = new Date().toISOString();
  const date = (key) => (Number.isNaN(Date.parse(text(key))) ? now : new Date(text(key)).toISOString());
  const last = messages.length > 0 ? messages.length - 1 : null;
  const leaf = Number.isInteger(value.leaf) && value.leaf >= 0 && value.leaf < messages.length ? value.leaf : last;
  const first = messages.find((message) => message.role === "user");
  const title = Array.from(text("title") || titleOf(first?.content ?? "")).slice(0, 200).join("");
  const chat = { id: newId(), title, model: text("model").slice(0, 200), system: text("system"), version: 0, leaf, messages };
  return { ...chat, created: date("created"), updated: date("updated") };
}

/// The branch that is shown, as Markdown. What was said stays as it was said.
export function markdown(chat, names) {
  const parts = [`# ${chat.title.replace(/\s+/g, " ")}`];
  if (chat.system) parts.push(`*${names.system}:*\n\n${quoted(chat.system)}`);
  for (const index of path(chat)) {
    const { role, content, model } = chat.messages[index];
    const who = role === "user" ? names.user : model ? `${names.assistant} (${model})` : names.assistant;
    parts.push(`**${who}**\n\n${content.trim()}`);
  }
  return `${parts.join("\n\n")}\n`;
}

function quoted(text) {
  return text.trim().split("\n").map((line) => `> ${line}`).join("\n");
}
